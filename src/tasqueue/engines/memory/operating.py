"""The verbs of operators and of the scheduler: schedules, cancel, reopen, delete, pause, prune."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ...core.codec import same_job
from ...core.record import Schedule, Tick
from ...core.status import ENDED, State, Status
from ...interfaces import Cancelled, PauseRow
from . import links
from .base import Base

MOST = 1_000
"""What one call forgets."""


class Operating(Base):
    """See `Engine`."""

    async def put_schedule(self, entry: Schedule) -> bool:
        store = self._store
        with store.lock:
            old = store.schedules.get(entry.id)
            if (
                old is not None
                and (old.schedule, old.task, old.queue) == (entry.schedule, entry.task, entry.queue)
                and same_job(old.job, entry.job)
            ):
                return False
            store.schedules[entry.id] = entry
            return True

    async def delete_schedule(self, id: str) -> bool:
        with self._store.lock:
            return self._store.schedules.pop(id, None) is not None

    async def schedules(self, due: bool = False, limit: int = 1000) -> list[Schedule]:
        store = self._store
        with store.lock:
            if not due:
                return [store.schedules[id] for id in sorted(store.schedules)[:limit]]
            now = self._now()
            found = [entry for entry in store.schedules.values() if entry.next_at <= now and not entry.paused]
            return sorted(found, key=lambda entry: entry.next_at)[:limit]

    async def fire(self, ticks: Sequence[Tick]) -> list[bool]:
        store = self._store
        fired: list[bool] = []
        with store.lock:
            now = self._now()
            for tick in ticks:
                entry = store.schedules.get(tick.schedule_id)
                if entry is None or entry.next_at != tick.expect:
                    fired.append(False)
                    continue
                store.insert((tick.record,), now)
                store.schedules[entry.id] = replace(entry, next_at=tick.next_at, last_at=tick.at)
                store.passed("S2.tick_inserted")
                fired.append(True)
        store.hit_points()
        return fired

    async def cancel(self, ids: Sequence[str], ttl: int | None) -> list[Cancelled]:
        store = self._store
        answers: list[Cancelled] = []
        with store.lock:
            now = self._now()
            for id in ids:
                job = store.jobs.get(id)
                if job is None or job.state in ENDED:
                    answers.append(Cancelled())
                    continue
                done = self._cancel(job, ttl, now)
                answers.append(Cancelled(done=done, asked=not done))
        store.hit_points()
        return answers

    async def cancel_link(self, key: str, ttl: int | None) -> bool:
        store = self._store
        with store.lock:
            stored = store.links.get(key)
            if stored is None or stored.status is not Status.PROCESSING:
                return False
            now = self._now()
            for job in links.cancel(store, stored, now):
                self._cancel(job, ttl, now)
        store.hit_points()
        return True

    async def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            job = store.jobs.get(id)
            if job is None or job.state not in (State.FAILED, State.CANCELLED) or job.ended_at != ended_at:
                return False
            store.take_out(job)
            job.tail, job.result, job.progress = tail, None, None
            job.hold, job.due, job.ended_at, job.ttl = None, None, None, None
            job.deaths, job.died_with, job.death_cause, job.parked_at = 0, "", "", None
            links.reopen(store, job, self._now())
            return True

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            deleted: list[bool] = []
            for id in ids:
                job = store.jobs.get(id)
                if job is None or job.state not in ENDED:
                    deleted.append(False)
                    continue
                store.forget(job)
                deleted.append(True)
            return deleted

    async def pause(self, queue: str, reason: str, by: str) -> None:
        with self._store.lock:
            self._store.paused[queue] = PauseRow(queue, reason, by, self._now())

    async def resume(self, queue: str) -> None:
        with self._store.lock:
            if self._store.paused.pop(queue, None) is not None:
                self._store.stir(queue)

    async def drain(self, worker: str) -> bool:
        with self._store.lock:
            member = self._store.workers.get(worker)
            if member is None:
                return False
            member.drain = True
            return True

    async def prune(self) -> int:
        store = self._store
        with store.lock:
            gone = links.sweep(store, self._now(), MOST)
            for name in [name for name, queue in store.queues.items() if not queue.line and not queue.due]:
                del store.queues[name]
            return gone
