"""`tasqueue job` and `tasqueue explain`: everything about one job, and what to do about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import click
import msgspec

from ..client.explain import Explanation
from ..client.inspector import Inspector
from ..clock import SYSTEM
from ..core.message import JobMessage
from ..core.status import Status
from ..errors import NotFound
from .jobs import STYLE, as_document
from .target import Target, ask, json_option, target_options
from .terminal import Block, Text, clock_time, from_ms, pairs, show, show_json, since, size

SHOWN = 2_000
"""Characters of a payload or a result."""


@click.command()
@target_options
@click.argument("id")
@json_option
def job(target: Target, id: str, as_json: bool) -> None:
    """Show a job: what it was given, what became of it, its errors."""

    async def question(inspector: Inspector) -> tuple[JobMessage, bytes | None]:
        try:
            message = await inspector.get_job(id)
        except NotFound:
            if kind := await inspector.link_kind(id):
                raise NotFound(f"{id!r} is a {kind}, not a job: `tasqueue explain {id}` tells of its jobs") from None
            raise
        try:
            return message, await inspector.get_result(id)
        except NotFound:  # it has saved nothing
            return message, None

    message, result = ask(target, question)
    if as_json:
        extra = {"payload": _for_json(message.job.payload), "result": None if result is None else _for_json(result)}
        show_json(as_document(message) | extra)
    else:
        show(*_view(message, result, from_ms(int(SYSTEM.now() * 1000))))


def _view(message: JobMessage, result: bytes | None, now: datetime) -> list[Block]:
    what, meta = message.job, message.meta

    def moment(at: datetime | None) -> str:
        return f"{clock_time(at)} ({since(at, now)})" if at else ""

    facts: dict[str, str | Text] = {
        "task": what.task,
        "queue": meta.queue,
        "payload": readable(what.payload),
        "result": "" if result is None else readable(result),
        "progress": "{}/{} {}".format(*meta.progress) if meta.progress else "",
        "priority": str(what.priority or ""),
        "headers": ", ".join(f"{key}: {value}" for key, value in what.headers.items()),
        "enqueued": moment(meta.enqueued_at),
        "due": moment(meta.due_at),
        "started": moment(meta.started_at),
        "ended": moment(meta.ended_at),
        "worker": meta.worker,
        "retries": str(meta.retried or "") if what.max_retries is None else f"{meta.retried} of {what.max_retries}",
        "deaths": Text(str(meta.deaths), "bad") if meta.deaths else "",
        "generation": str(meta.generation or ""),
        "parked": Text(meta.parked, "warn"),
        "schedule": meta.schedule,
        "chain": meta.chain_id,
        "group": meta.group_id,
        "caused by": f"{meta.cause_id} {meta.cause_err}".strip(),
        "on success": " ".join(meta.on_success_ids),
        "on error": " ".join(meta.on_error_ids),
    }
    blocks: list[Block] = [Text(f"{meta.id}  {meta.status}", STYLE.get(meta.status, "strong")), pairs(facts)]
    for error in meta.errors:
        blocks.append(Text(f"{clock_time(error.at)}  {error.type}: {error.message}  on {error.worker}", "bad"))
        blocks += error.traceback.rstrip().split("\n") if error.traceback else []
    if meta.prev_err and not meta.errors:
        blocks.append(Text(meta.prev_err, "bad"))
    return [*blocks, "", Text(_next(meta.status, meta.id), "dim")]


def _next(status: Status, id: str) -> str:
    match status:
        case Status.FAILED | Status.CANCELLED:
            return f"Next: tasqueue retry {id} puts it back, tasqueue delete {id} forgets it."
        case Status.SUCCESSFUL:
            return "Nothing is left to do."
        case _:
            return f"Next: tasqueue explain {id} tells why it has not ended."


@click.command()
@target_options
@click.argument("id")
@json_option
def explain(target: Target, id: str, as_json: bool) -> None:
    """Say why a job, chain or group is not running, or not done."""
    answer: Explanation = ask(target, lambda inspector: inspector.explain(id))
    if answer.code == "unknown":
        raise NotFound(answer.text)
    if as_json:
        show_json(answer)
    else:
        show(answer.text, Text(_advice(answer), "dim"))


def _advice(answer: Explanation) -> str:
    facts = answer.evidence
    match answer.code:
        case "failed" | "cancelled":
            return f"Next: tasqueue job {answer.id} shows its errors, tasqueue retry {answer.id} puts it back."
        case "paused":
            return f"Next: tasqueue resume {facts['queue']}"
        case "no-worker" | "unknown-task" | "parked":
            return "Next: tasqueue worker APP:SERVER starts a worker, tasqueue status shows those that run."
        case "held":
            return f"Next: tasqueue explain {facts.get('waits_for', facts['chain'])}"
        case "retrying":
            return f"Next: tasqueue job {answer.id} shows its errors."
        case "chain" | "group" if facts["status"] in (Status.FAILED, Status.CANCELLED) or facts.get("not_successful"):
            return (
                f"Next: tasqueue job {facts['job_id']} shows its errors, tasqueue retry {answer.id} puts back what "
                f"did not succeed of the {answer.code}."
            )
        case "chain" | "group" if facts["status"] is Status.SUCCESSFUL:
            return f"Nothing is left to do: every job of the {answer.code} has succeeded."
        case "chain" | "group":
            return f"Next: tasqueue explain {facts['job_id']}"
        case _:
            return f"See also: tasqueue job {answer.id}"


# -- bytes for people -------------------------------------------------------------------------------------------------


def decoded(data: bytes) -> Any:
    """What the bytes say when they are msgpack; msgspec.DecodeError otherwise."""
    return msgspec.msgpack.decode(data)


def readable(data: bytes) -> str:
    """A call as `(5, 4, size=3)`, other msgpack as a Python value, text as it is, else bytes; cut when long."""
    try:
        value = decoded(data)
    except msgspec.DecodeError:
        text = data.decode() if _is_text(data) else repr(data[:SHOWN])
    else:
        call = _as_call(value)
        text = repr(value) if call is None else call
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({size(len(data))} in all)"


def _as_call(value: Any) -> str | None:
    """What `tasqueue.pack` made: `[args, kwargs]`."""
    match value:
        case [list(), dict()]:
            args, kwargs = cast("tuple[list[object], dict[object, object]]", value)
            return f"({', '.join([*map(repr, args), *(f'{key}={item!r}' for key, item in kwargs.items())])})"
        case _:
            return None


def _for_json(data: bytes) -> Any:
    """The decoded value, text, or else null (base64 is in `job`)."""
    try:
        return msgspec.Raw(msgspec.json.encode(decoded(data)))
    except (msgspec.DecodeError, TypeError, ValueError):
        return data.decode() if _is_text(data) else None


def _is_text(data: bytes) -> bool:
    try:
        return data.decode().isprintable()
    except UnicodeDecodeError:
        return False
