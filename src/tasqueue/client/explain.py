"""`explain(id)`: why a job is not running, or not done. It reads the store and says the first thing that holds.

Each answer has a code for programs, a sentence for people, and the facts that it was concluded from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..core import message
from ..core.ids import derive
from ..core.message import Meta, moment
from ..core.record import LinkRow, Row, chain_key, group_key
from ..core.status import State, Status
from ..interfaces import Engine

LOOKED_AT = 1000
"""Pending jobs among which a job's place is looked for."""


class Explanation(msgspec.Struct, frozen=True):
    """`code`: unknown, successful, failed, cancelled, running, lease-ended, held, parked, retrying, due, paused,
    no-worker, unknown-task, waiting, chain or group. `text`: one or two sentences. `evidence`: the facts behind it.
    """

    id: str
    code: str
    text: str
    evidence: Mapping[str, Any]

    def __str__(self) -> str:
        return self.text


class _Worker(msgspec.Struct):
    """What is needed of a worker's report."""

    queues: dict[str, int] = {}
    tasks: list[str] = []
    busy: int = 0


async def explain(engine: Engine, id: str) -> Explanation:
    """The answer for a job; a chain's or group's id is answered for, too."""
    row = (await engine.get([id]))[0]
    if row is None:
        return await _link(engine, id)
    meta = message.message(row).meta
    match row.state:
        case State.SUCCESSFUL | State.FAILED | State.CANCELLED:
            return _ended(id, row, meta)
        case State.RUNNING:
            return await _running(engine, id, row, meta)
        case State.HELD:
            return await _held(engine, id, row)
        case State.PARKED:
            facts = {"why": row.parked, "until": moment(row.due), "task": row.task}
            text = f"It is parked: {row.parked}. It runs as soon as a worker that can run it starts"
            if row.due:  # the next offer, or the last: what is counted from when it was first parked, the worker knows
                text += f"; it is offered again at {_time(row.due)}, and fails when `park_for` has passed in all"
            text += "."
            return Explanation(id, "parked", text, facts)
        case State.DUE:
            return _due(id, row, meta)
        case State.READY:
            return await _ready(engine, id, row)


def _ended(id: str, row: Row, meta: Meta) -> Explanation:
    text = f"It has ended as {meta.status}, at {_time(row.ended_at)}"
    if meta.status is Status.FAILED:
        text += f": {first_line(meta.prev_err)}. `await srv.retry({id!r})` puts it back"
    facts = {"status": meta.status, "ended_at": meta.ended_at, "prev_err": meta.prev_err, "retried": meta.retried}
    return Explanation(id, str(meta.status), f"{text}.", facts)


async def _running(engine: Engine, id: str, row: Row, meta: Meta) -> Explanation:
    now = await engine.now()
    deadline = next((worker.deadline for worker in await engine.workers() if worker.id == row.worker), None)
    facts = {
        "worker": row.worker,
        "started_at": meta.started_at,
        "progress": meta.progress,
        "lease_until": moment(deadline),
    }
    if deadline is None or deadline < now:
        text = f"It was running on {row.worker}, whose lease has ended; any living worker offers it again shortly."
        return Explanation(id, "lease-ended", text, facts)
    text = f"It is running on {row.worker}, since {_time(row.claimed_at)}; that worker's lease is valid."
    return Explanation(id, "running", text, facts)


async def _held(engine: Engine, id: str, row: Row) -> Explanation:
    chain = row.link[2:]
    link = await engine.get_link(row.link)
    if link is None or link.status.final:
        status = "forgotten" if link is None else str(link.status)
        text = f"It is step {row.pos} of chain {chain!r}, which is {status}: it will not run"
        text += "." if link is None else ", unless the step that ended the chain is put back; explain the chain."
        return Explanation(id, "held", text, {"chain": chain, "status": status, "pos": row.pos})
    at = derive(chain, f"c{link.pos}")
    text = f"It is step {row.pos} of chain {chain!r} and waits for step {link.pos}, {at!r}; explain that one."
    return Explanation(id, "held", text, {"chain": chain, "waits_for": at, "pos": row.pos})


def _due(id: str, row: Row, meta: Meta) -> Explanation:
    facts = {"due_at": meta.due_at, "retried": meta.retried, "max_retries": meta.max_retries, "prev_err": meta.prev_err}
    if meta.status is Status.RETRYING:
        text = f"Its last run failed ({first_line(meta.prev_err)}); retry {meta.retried} is due at {_time(row.due)}."
        return Explanation(id, "retrying", text, facts)
    return Explanation(id, "due", f"It is due later, at {_time(row.due)}.", facts)


async def _ready(engine: Engine, id: str, row: Row) -> Explanation:
    for pause in await engine.paused():
        if pause.queue == row.queue:
            why = f": {pause.reason}" if pause.reason else ""
            text = f"Queue {row.queue!r} was paused by {pause.by}{why}. `await srv.resume({row.queue!r})` goes on."
            return Explanation(id, "paused", text, {"queue": row.queue, "by": pause.by, "reason": pause.reason})
    now = await engine.now()
    alive = {worker.id: _report(worker.info) for worker in await engine.workers() if worker.deadline >= now}
    serving = {name: worker for name, worker in alive.items() if row.queue in worker.queues}
    facts: dict[str, Any] = {"queue": row.queue, "task": row.task, "workers": sorted(alive), "serving": sorted(serving)}
    if not serving:
        others = f"; the {len(alive)} living serve others" if alive else ": no worker is alive"
        text = f"No worker serves queue {row.queue!r}{others}. Start one with a task on that queue."
        return Explanation(id, "no-worker", text, facts)
    if not any(row.task in worker.tasks for worker in serving.values()):
        text = (
            f"No living worker of queue {row.queue!r} knows task {row.task!r}: it will be parked until one does. Is "
            "the worker's code up to date?"
        )
        return Explanation(id, "unknown-task", text, facts)
    ahead = await engine.pending(row.queue, LOOKED_AT, None)
    place = next((n for n, other in enumerate(ahead) if other.id == id), None)
    slots = sum(worker.queues[row.queue] for worker in serving.values())
    facts |= {"ahead": place, "slots": slots, "busy": sum(worker.busy for worker in serving.values())}
    behind = f"more than {LOOKED_AT:,}" if place is None else f"{place:,}"
    text = f"It waits in queue {row.queue!r} behind {behind} job(s), for {len(serving)} worker(s) with {slots} slot(s)."
    return Explanation(id, "waiting", text, facts)


async def _link(engine: Engine, id: str) -> Explanation:
    """No job of that id: perhaps a chain or a group."""
    chain = await engine.get_link(chain_key(id))
    if chain is not None:
        return await _chain(engine, id, chain)
    group = await engine.get_link(group_key(id))
    if group is not None:
        return await _group(engine, id, group)
    text = f"{id!r} is unknown: never enqueued here, deleted, or forgotten after its retention."
    return Explanation(id, "unknown", text, {"url": engine.url})


async def _chain(engine: Engine, id: str, link: LinkRow) -> Explanation:
    """`evidence`: `job_id` is the step that it is at, or that ended it; `prev_err` that one's error."""
    at = message.chain_message(link).job_id
    facts: dict[str, Any] = {"status": link.status, "pos": link.pos, "n": link.n, "job_id": at, "prev_err": ""}
    text = f"Chain {id!r} is {link.status}, at step {link.pos} of {link.n}"
    if not link.status.final:
        text += f": explain {at!r}"
    elif link.status is not Status.SUCCESSFUL:
        said, facts["prev_err"] = await _verdict(engine, at, link.status)
        text += f": {said}"
    return Explanation(id, "chain", f"{text}.", facts)


async def _group(engine: Engine, id: str, link: LinkRow) -> Explanation:
    """`evidence`: `job_id` is the first job that failed, else was cancelled, else has not ended; `prev_err` its error;
    `not_ended` and `not_successful`: at most 100 each.
    """
    left = [derive(id, f"g{i}") for i in range(link.n) if i not in link.members]
    ended = {status: [i for i, s in sorted(link.members.items()) if s is status] for status in _UNSUCCESSFUL}
    bad = [derive(id, f"g{i}") for i in sorted(i for found in ended.values() for i in found)]
    facts: dict[str, Any] = {
        "status": link.status,
        "n": link.n,
        "job_id": left[0] if left else "",
        "prev_err": "",
        "not_ended": left[:100],
        "not_successful": bad[:100],
    }
    parts = [f"Group {id!r} is {link.status}: {len(left)} of {link.n} job(s) have not ended"]
    parts += [f"{len(found)} ended as {status}" for status, found in ended.items() if found]
    text = ", ".join(parts)
    if left:
        text += f"; explain {left[0]!r}"
    for status, found in ended.items():
        if found:
            facts["job_id"] = derive(id, f"g{found[0]}")
            said, facts["prev_err"] = await _verdict(engine, facts["job_id"], status)
            text += f". The first: {said}"
            break
    return Explanation(id, "group", f"{text}.", facts)


_UNSUCCESSFUL = (Status.FAILED, Status.CANCELLED)


async def _verdict(engine: Engine, id: str, status: Status) -> tuple[str, str]:
    """What a job that ended a chain or decided a group came to, in words, and its whole error."""
    row = (await engine.get([id]))[0]
    if row is None:
        return f"{id!r} is {status}, and forgotten meanwhile", ""
    meta = message.message(row).meta
    if not meta.status.final:  # a chain that was cancelled while its step ran
        return f"{id!r} is {meta.status}", ""
    why = f": {first_line(meta.prev_err)}" if meta.status is Status.FAILED else ""
    return f"{id!r} {_BECAME[meta.status]}{why}; `await srv.retry({id!r})` puts it back, and all goes on", meta.prev_err


_BECAME = {Status.FAILED: "failed", Status.CANCELLED: "was cancelled", Status.SUCCESSFUL: "succeeded"}


def first_line(text: str, most: int = 200) -> str:
    """An error in a line: its first, cut."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _report(data: bytes) -> _Worker:
    try:
        return msgspec.msgpack.decode(data, type=_Worker)
    except msgspec.DecodeError:  # another library's, or a newer one's
        return _Worker()


def _time(ms: int | None) -> str:
    at = moment(ms)
    return "an unknown time" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
