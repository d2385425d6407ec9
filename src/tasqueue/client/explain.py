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
            until = f", at the latest until {_at(row.due)}, when it fails" if row.due else ""
            text = f"It is parked: {row.parked}. It runs as soon as a worker that can run it starts{until}."
            return Explanation(id, "parked", text, facts)
        case State.DUE:
            return _due(id, row, meta)
        case State.READY:
            return await _ready(engine, id, row)


def _ended(id: str, row: Row, meta: Meta) -> Explanation:
    text = f"It has ended as {meta.status}, {_at(row.ended_at)}"
    if meta.status is Status.FAILED:
        text += f": {meta.prev_err}. `await srv.retry({id!r})` puts it back"
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
    text = f"It is running on {row.worker} since {_at(row.claimed_at)}, whose lease is valid."
    return Explanation(id, "running", text, facts)


async def _held(engine: Engine, id: str, row: Row) -> Explanation:
    chain = row.link[2:]
    link = await engine.get_link(row.link)
    if link is None or link.status.final:
        status = "forgotten" if link is None else str(link.status)
        text = f"It is step {row.pos} of chain {chain!r}, which is {status}: it will not run."
        return Explanation(id, "held", text, {"chain": chain, "status": status, "pos": row.pos})
    at = derive(chain, f"c{link.pos}")
    text = f"It is step {row.pos} of chain {chain!r} and waits for step {link.pos}, {at!r}; explain that one."
    return Explanation(id, "held", text, {"chain": chain, "waits_for": at, "pos": row.pos})


def _due(id: str, row: Row, meta: Meta) -> Explanation:
    facts = {"due_at": meta.due_at, "retried": meta.retried, "max_retries": meta.max_retries, "prev_err": meta.prev_err}
    if meta.status is Status.RETRYING:
        text = f"Its last run failed ({meta.prev_err}); retry {meta.retried} is due {_at(row.due)}."
        return Explanation(id, "retrying", text, facts)
    return Explanation(id, "due", f"It is due later: {_at(row.due)}.", facts)


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
        at = message.chain_message(chain).job_id
        text = f"Chain {id!r} is {chain.status}, at step {chain.pos} of {chain.n}"
        text += "." if chain.status.final else f": explain {at!r}."
        return Explanation(id, "chain", text, {"status": chain.status, "pos": chain.pos, "n": chain.n, "job_id": at})
    group: LinkRow | None = await engine.get_link(group_key(id))
    if group is not None:
        left = [derive(id, f"g{i}") for i in range(group.n) if i not in group.members]
        text = f"Group {id!r} is {group.status}: {len(left)} of {group.n} job(s) have not ended"
        text += f"; explain {left[0]!r}." if left else "."
        return Explanation(id, "group", text, {"status": group.status, "n": group.n, "not_ended": left[:100]})
    text = f"{id!r} is unknown: never enqueued here, deleted, or forgotten after its retention."
    return Explanation(id, "unknown", text, {"url": engine.url})


def _report(data: bytes) -> _Worker:
    try:
        return msgspec.msgpack.decode(data, type=_Worker)
    except msgspec.DecodeError:  # another library's, or a newer one's
        return _Worker()


def _at(ms: int | None) -> str:
    at = moment(ms)
    return "at an unknown time" if at is None else f"at {at:%Y-%m-%d %H:%M:%S} UTC"
