"""`tasqueue enqueue`: a job from a shell, checked as the application itself would check it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec

from ..client.registry import TaskDef
from ..client.signature import Signature
from ..clock import SYSTEM
from ..core.job import Job
from ..core.status import Status
from ..errors import InvalidJob, JobCancelled, JobFailed
from ..server import Server
from . import near
from .job import decoded, readable
from .target import Target, app_target_options
from .terminal import from_ms, visible

_relative = re.compile(r"\+(\d+(?:\.\d+)?)\s*([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
PATIENCE = 2.0
"""Seconds of --wait before it says what it is waiting for."""


class Eta(click.ParamType[datetime]):
    """`+10s`, `+5m`, `+2h`, `+1d`, or ISO 8601 with a zone."""

    name = "T"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """An aware datetime."""
        if isinstance(value, datetime):
            return value
        if found := _relative.fullmatch(value):
            return from_ms(int(SYSTEM.now() * 1000)) + timedelta(seconds=float(found[1]) * _UNITS[found[2]])
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time: +10s, +5m, +2h, +1d, or ISO 8601 as in 2030-01-31T09:00:00+01:00", param, ctx
            )
        if at.utcoffset() is None:
            self.fail(f"{value!r} has no zone: {at.replace(tzinfo=UTC).isoformat()} would be UTC", param, ctx)
        return at


@click.command(context_settings={"ignore_unknown_options": True})
@app_target_options
@click.argument("app", metavar="APP:SERVER")
@click.argument("task")
@click.argument("args", metavar="[JSON ARGS]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-q", "--queue", help="Instead of the task's own.")
@click.option("--eta", type=Eta(), help="Not before: +10s, +5m, +2h, +1d, or ISO 8601 with a zone.")
@click.option("-w", "--wait", is_flag=True, help="Until it has ended, then print its result.")
def enqueue(
    target: Target, app: str, task: str, args: tuple[str, ...], queue: str | None, eta: datetime | None, wait: bool
) -> None:
    """Enqueue a job and print its id.

    Each argument is JSON, or text if it is not JSON; a task of the byte level takes one, as it is.
    """
    for arg in args:
        if arg.startswith("-") and isinstance(_value(arg), str):
            raise click.UsageError(
                f"no such option: {arg}; an argument that begins with - is written as JSON, '{json(arg)}'"
            )
    srv = target.app(app)
    if task not in (known := srv.get_tasks()):
        names = f" It has {', '.join(known)}." if known else " It has none."
        raise click.UsageError(f"{app} has no task {task!r}.{near(task, known) or names}")
    asyncio.run(_enqueue(srv, task, args, {"queue": queue, "eta": eta}, wait))


def _job(task: TaskDef, args: Sequence[str], options: Mapping[str, Any]) -> Job[Any]:
    if task.function is not None:
        payload = Signature(task.name, task.function).encode([_value(arg) for arg in args], {})
    elif len(args) <= 1:
        payload = "".join(args).encode()
    else:
        raise click.UsageError(f"task {task.name!r} takes bytes, so one argument at most, not {len(args)}: quote it")
    return Job(task.name, payload, **options)


def _quoted(task: TaskDef, args: Sequence[str], error: InvalidJob) -> str:
    """A hint, when an argument that is JSON would fit as text: how to write it."""
    if task.function is None:
        return ""
    signature = Signature(task.name, task.function)
    values = [_value(arg) for arg in args]
    for i, arg in enumerate(args):
        if isinstance(values[i], str):
            continue
        try:
            signature.encode([*values[:i], arg, *values[i + 1 :]], {})
        except InvalidJob as other:
            if _argument(other) == _argument(error):
                continue
        return f"; to pass {arg} as text, quote it as '{json(arg)}'"
    return ""


def _argument(error: InvalidJob) -> str:
    found = re.search(r"argument '(\w+)'", str(error))
    return found[1] if found else ""


def _value(arg: str) -> Any:
    try:
        return msgspec.json.decode(arg)
    except msgspec.DecodeError:
        return arg


async def _enqueue(srv: Server, task: str, args: Sequence[str], options: Mapping[str, Any], wait: bool) -> None:
    async with srv:
        parts = await srv.parts()
        if not parts.engine.capabilities.shared:
            raise click.UsageError(
                f"{parts.engine.url} lives inside one process: the job would be gone at once; use sqlite:///file"
            )
        try:
            job = _job(parts.registry.tasks[task], args, options)
        except InvalidJob as error:
            raise click.UsageError(f"{error}{_quoted(parts.registry.tasks[task], args, error)}") from None
        id = await srv.enqueue(job)
        click.echo(id)
        if not wait:
            return
        try:
            message, result = await srv.inspector.outcome(id, PATIENCE)
        except TimeoutError:
            click.echo(f"{await srv.explain(id)} Ctrl-C stops the waiting, not the job.", err=True)
            message, result = await srv.inspector.outcome(id)
    meta = message.meta
    if meta.status is Status.CANCELLED:
        raise JobCancelled(id)
    if meta.status is Status.FAILED:
        last = meta.errors[-1] if meta.errors else None
        raise JobFailed(id, last.type, last.message) if last else JobFailed(id, "", meta.prev_err)
    click.echo("null" if result is None else visible(_printed(result)))


def json(value: Any) -> str:
    """In one line."""
    return msgspec.json.encode(value).decode()


def _printed(result: bytes) -> str:
    """A result that is msgpack as JSON, any other as `tasqueue job` would show it."""
    try:
        return json(decoded(result))
    except (msgspec.DecodeError, TypeError, ValueError):
        return readable(result)
