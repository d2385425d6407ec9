"""The verbs of operators and of the scheduler: schedules, cancel, reopen, delete, pause, prune."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.codec import same_job
from ...core.record import Schedule, Tick
from ...core.status import ENDED, State, Status
from ...interfaces import Cancelled
from . import links
from .base import Base
from .lane import Tx
from .working import insert

MOST = 1_000
"""What one call forgets."""


class Operating(Base):
    """See `Engine`."""

    async def put_schedule(self, entry: Schedule) -> bool:
        return await self._write(partial(_put_schedule, entry))

    async def delete_schedule(self, id: str) -> bool:
        return await self._write(lambda tx: tx.run("delete_schedule", id).rowcount > 0)

    async def schedules(self, due: bool = False, limit: int = 1000) -> list[Schedule]:
        def read(tx: Tx) -> list[Schedule]:
            rows = tx.run("schedules_due", tx.now, limit) if due else tx.run("schedules", limit)
            return [_schedule(row) for row in rows]

        return await self._read(read)

    async def fire(self, ticks: Sequence[Tick]) -> list[bool]:
        return await self._write(partial(_fire, ticks))

    async def cancel(self, ids: Sequence[str], ttl: int | None) -> list[Cancelled]:
        return await self._write(lambda tx: [_cancel(tx, id, ttl) for id in ids])

    async def cancel_link(self, key: str, ttl: int | None) -> bool:
        return await self._write(partial(_cancel_link, key, ttl))

    async def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        return await self._write(partial(_reopen, id, ended_at, tail))

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        return await self._write(lambda tx: [_delete(tx, id) for id in ids])

    async def pause(self, queue: str, reason: str, by: str) -> None:
        await self._write(lambda tx: tx.run("pause", queue, reason, by, tx.now))

    async def resume(self, queue: str) -> None:
        def resume(tx: Tx) -> None:
            tx.news = tx.run("resume", queue).rowcount > 0 or tx.news

        await self._write(resume)

    async def drain(self, worker: str) -> bool:
        return await self._write(lambda tx: tx.run("drain", worker).rowcount > 0, durable=False)

    async def prune(self) -> int:
        """A chain's held jobs go with it, however many, and count as one."""
        return await self._write(_prune, durable=False)


def _schedule(row: Sequence[object]) -> Schedule:
    return Schedule(*row[:-1], paused=bool(row[-1]))  # type: ignore[arg-type]


def _put_schedule(entry: Schedule, tx: Tx) -> bool:
    row = tx.run("get_schedule", entry.id).fetchone()
    if row is not None:
        old = _schedule(row)
        same = (old.schedule, old.task, old.queue) == (entry.schedule, entry.task, entry.queue)
        if same and same_job(old.job, entry.job):
            return False
    tx.run(
        "put_schedule",
        entry.id,
        entry.schedule,
        entry.task,
        entry.queue,
        entry.priority,
        entry.job,
        entry.anchor,
        entry.next_at,
        entry.last_at,
        entry.paused,
    )
    return True


def _fire(ticks: Sequence[Tick], tx: Tx) -> list[bool]:
    fired = [
        tx.run("advance_schedule", tick.next_at, tick.at, tick.schedule_id, tick.expect).rowcount > 0 for tick in ticks
    ]
    if any(fired):
        insert(tx, [tick.record for tick, yes in zip(ticks, fired, strict=True) if yes])
        tx.passed.append("S2.tick_inserted")
    return fired


def _cancel(tx: Tx, id: str, ttl: int | None) -> Cancelled:
    row = tx.run("place_of", id, tx.now).fetchone()
    if row is None or row[1] in ENDED:
        return Cancelled()
    seq, state, link, pos, queue, prio, ord, _ = row
    if state == State.RUNNING:
        tx.run("ask", seq)
        return Cancelled(asked=True)
    if state == State.READY:
        tx.run("leave_place", queue, prio, ord)
    else:
        tx.run("cancel_idle", seq)
    tx.run("cancelled", seq, tx.place(1), tx.now, None if ttl is None else tx.now + ttl)
    tx.run("answered", str([seq]))
    if ttl == 0:
        links.forget_jobs(tx, [seq])
    if link:
        links.jobs_ended(tx, [links.Ended(link, pos, State.CANCELLED, None)], insert)
    tx.news = True
    return Cancelled(done=True)


def _cancel_link(key: str, ttl: int | None, tx: Tx) -> bool:
    link = links.load(tx, key)
    if link is None or not link.open:
        return False
    if key.startswith("c:"):
        current = tx.run("step_id", key, link.pos).fetchone()
        links.end(tx, key, link, Status.CANCELLED)
        if current is not None:
            _cancel(tx, current[0], ttl)
    else:
        for id in tx.column("open_of_link", key):
            _cancel(tx, id, ttl)
    return True


def _reopen(id: str, ended_at: int, tail: bytes, tx: Tx) -> bool:
    row = tx.run("place_of", id, tx.now).fetchone()
    if row is None or row[1] not in (State.FAILED, State.CANCELLED) or row[7] != ended_at:
        return False
    seq, _, link, pos = row[:4]
    tx.run("outcome_forgotten", seq)
    ready = links.reopened(tx, link, pos)
    tx.run("reopen", State.READY if ready else State.HELD, tx.place(1), tail, seq)
    if ready:
        tx.run("into_line", str([seq]))
    tx.news = True
    return True


def _delete(tx: Tx, id: str) -> bool:
    row = tx.run("place_of", id, tx.now).fetchone()
    if row is None or row[1] not in ENDED:
        return False
    links.forget_jobs(tx, [row[0]])
    return True


def _prune(tx: Tx) -> int:
    seqs = tx.column("outlived", tx.now, MOST)
    if seqs:
        links.forget_jobs(tx, seqs)
    keys = tx.column("links_outlived", tx.now, MOST - len(seqs)) if len(seqs) < MOST else []
    for key in keys:
        links.forget(tx, key)
    tx.run("forget_workers")
    return len(seqs) + len(keys)
