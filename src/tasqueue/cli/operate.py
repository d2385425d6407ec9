"""`cancel`, `retry`, `delete`, `pause`, `resume` from a shell. What could not be done is named, with exit code 1.

An id is a job's, else a chain's, else a group's: what has no job's id is looked for among the chains and groups.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from ..client.inspector import Inspector
from ..core.status import Status
from ..errors import NotFound
from .target import Target, ask, target_options
from .terminal import Text, complain, count_of, show

Act = Callable[[Inspector, str], Awaitable[str]]
_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)


class Refused(Exception):
    """Why it could not be done."""


def _each(target: Target, ids: tuple[str, ...], act: Act) -> None:
    """Do it for each id; `act` says what was done, or raises Refused or NotFound."""

    async def all_of_them(inspector: Inspector) -> list[str | Exception]:
        return [await _try(inspector, id) for id in ids]

    async def _try(inspector: Inspector, id: str) -> str | Exception:
        try:
            return await act(inspector, id)
        except (Refused, NotFound) as error:
            return error

    answers = ask(target, all_of_them)
    for answer in answers:
        if isinstance(answer, str):
            show(Text(answer, "good"))
        else:
            complain(str(answer))
    if any(isinstance(answer, Exception) for answer in answers):
        raise SystemExit(1)


async def _status(inspector: Inspector, id: str) -> Status | None:
    """A job's; None when there is none, but a chain or group. NotFound when there is neither."""
    try:
        return (await inspector.get_job(id)).meta.status
    except NotFound:
        if await inspector.link_kind(id) is None:
            raise
        return None


@click.command()
@target_options
@_ids
def cancel(target: Target, ids: tuple[str, ...]) -> None:
    """Cancel waiting jobs, chains, groups; running jobs are asked to stop."""
    _each(target, ids, _cancel)


async def _cancel(inspector: Inspector, id: str) -> str:
    answer = await inspector.cancelled(id)
    if answer.done:
        return f"cancelled: {id}"
    if answer.asked:
        return f"asked to stop, since it is running: {id}"
    if (status := await _status(inspector, id)) is not None:
        raise Refused(f"job {id!r} is {status}: it has ended already")
    if await inspector.link_kind(id) == "chain":
        if not await inspector.cancel_chain(id):
            raise Refused(f"chain {id!r} is {(await inspector.get_chain(id)).status}: it has ended already")
        step = (await inspector.get_chain(id)).job_id
        running = (await _status(inspector, step)) is Status.PROCESSING
        return f"cancelled: chain {id}" + (f"; its step {step} is running, and asked to stop" if running else "")
    if not await inspector.cancel_group(id):
        raise Refused(f"group {id!r} is {(await inspector.get_group(id)).status}: it has ended already")
    left = sum(not status.final for status in (await inspector.get_group(id)).job_status.values())
    return f"cancelled: group {id}" + (f"; {count_of(left, 'job')} running, and asked to stop" if left else "")


@click.command()
@target_options
@_ids
def retry(target: Target, ids: tuple[str, ...]) -> None:
    """Put failed or cancelled jobs back; their chain or group goes on.

    Of a chain that is the step that ended it, of a group each job that has failed or was cancelled.
    """
    _each(target, ids, _retry)


async def _retry(inspector: Inspector, id: str) -> str:
    if await inspector.retry(id):
        return f"put back: {id}"
    if (status := await _status(inspector, id)) is not None:
        raise Refused(f"job {id!r} is {status}: only failed and cancelled jobs are put back")
    if await inspector.link_kind(id) == "chain":
        chain = await inspector.get_chain(id)
        if not await inspector.retry(chain.job_id):
            raise Refused(f"chain {id!r} is {chain.status}: its step {chain.job_id!r} has not failed or is forgotten")
        return f"put back: {chain.job_id}, so chain {id} goes on"
    group = await inspector.get_group(id)
    bad = [job for job, status in group.job_status.items() if status in (Status.FAILED, Status.CANCELLED)]
    if not bad:
        raise Refused(f"group {id!r} is {group.status}: none of its jobs has failed or was cancelled")
    back = sum([await inspector.retry(job) for job in bad])
    if back < len(bad):
        raise Refused(f"group {id!r}: {back} of {count_of(len(bad), 'job')} put back, the others are forgotten")
    return f"put back: {count_of(back, 'job')} of group {id}"


@click.command()
@target_options
@_ids
def delete(target: Target, ids: tuple[str, ...]) -> None:
    """Forget ended jobs, with their results."""
    _each(target, ids, _delete)


async def _delete(inspector: Inspector, id: str) -> str:
    if await inspector.delete_job(id):
        return f"deleted: {id}"
    if (status := await _status(inspector, id)) is not None:
        raise Refused(f"job {id!r} is {status}: only ended jobs are deleted; cancel it first")
    raise Refused(f"{id!r} is a {await inspector.link_kind(id)}: only jobs are deleted, it is forgotten with time")


@click.command()
@target_options
@click.argument("queues", metavar="QUEUE...", nargs=-1, required=True)
@click.option("--reason", default="", help="Shown by `tasqueue status`.")
def pause(target: Target, queues: tuple[str, ...], reason: str) -> None:
    """Start no more jobs of these queues, on any worker; those that run go on."""

    async def all_of_them(inspector: Inspector) -> None:
        for queue in queues:
            await inspector.pause(queue, reason)

    ask(target, all_of_them)
    show(*(Text(f"paused: {queue}; `tasqueue resume {queue}` undoes it", "good") for queue in queues))


@click.command()
@target_options
@click.argument("queues", metavar="QUEUE...", nargs=-1, required=True)
def resume(target: Target, queues: tuple[str, ...]) -> None:
    """Start jobs of these queues again."""

    async def all_of_them(inspector: Inspector) -> list[str]:
        paused = {row.queue for row in await inspector.paused()}
        for queue in queues:
            await inspector.resume(queue)
        return [queue for queue in queues if queue not in paused]

    idle = ask(target, all_of_them)
    show(*(Text(f"{'was not paused' if queue in idle else 'resumed'}: {queue}", "good") for queue in queues))
