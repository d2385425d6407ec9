"""`cancel`, `retry`, `delete`, `pause`, `resume` from a shell. What could not be done is named, with exit code 1."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from ..client.inspector import Inspector
from ..errors import NotFound
from .target import Target, ask, target_options
from .terminal import Text, show

Act = Callable[[Inspector, str], Awaitable[bool]]
_ids = click.argument("ids", metavar="ID...", nargs=-1, required=True)


def _each(target: Target, ids: tuple[str, ...], act: Act, done: str, refusal: str) -> None:
    """Do it for each id; `refusal` says what to do when a known job's status forbids it."""

    async def all_of_them(inspector: Inspector) -> list[str | None]:
        return [None if await act(inspector, id) else await _why(inspector, id) for id in ids]

    reasons = ask(target, all_of_them)
    for id, reason in zip(ids, reasons, strict=True):
        if reason is None:
            show(Text(f"{done} {id}", "good"))
        else:
            click.echo(f"Error: {reason}{'' if 'unknown' in reason else refusal}", err=True)
    if any(reasons):
        raise SystemExit(1)


async def _why(inspector: Inspector, id: str) -> str:
    try:
        return f"job {id!r} is {(await inspector.get_job(id)).meta.status}"
    except NotFound as error:
        return str(error)


@click.command()
@target_options
@_ids
def cancel(target: Target, ids: tuple[str, ...]) -> None:
    """Cancel waiting jobs; running ones are asked to stop."""
    _each(
        target,
        ids,
        lambda inspector, id: inspector.cancel(id),
        "cancelled, or asked to stop:",
        ": it has ended already",
    )


@click.command()
@target_options
@_ids
def retry(target: Target, ids: tuple[str, ...]) -> None:
    """Put failed or cancelled jobs back; their chain or group goes on."""
    _each(
        target,
        ids,
        lambda inspector, id: inspector.retry(id),
        "put back:",
        ": only failed and cancelled jobs are put back",
    )


@click.command()
@target_options
@_ids
def delete(target: Target, ids: tuple[str, ...]) -> None:
    """Forget ended jobs, with their results."""
    refusal = ": only ended jobs are deleted; cancel it first"
    _each(target, ids, lambda inspector, id: inspector.delete_job(id), "deleted:", refusal)


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
