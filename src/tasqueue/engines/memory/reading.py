"""The verbs that only read, and `watch`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import dropwhile, islice

from ...core.record import LinkRow, Row
from ...core.status import ENDED, State, Status
from ...interfaces import Counts, Durability, Filter, Finding, Key, PauseRow, WorkerRow
from . import links
from .base import Base
from .sleep import Sleeper
from .store import Job, Store


class Reading(Base):
    """See `Engine`."""

    async def now(self) -> int:
        return self._now()

    async def get(self, ids: Sequence[str]) -> list[Row | None]:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            return [None if (job := store.jobs.get(id)) is None else _row(job) for id in ids]

    async def get_link(self, key: str) -> LinkRow | None:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            stored = store.links.get(key)
            if stored is None:
                return None
            members = {i: status for i, (status, _) in sorted(stored.members.items())}
            return LinkRow(key, stored.link.n, stored.status, stored.pos, stored.generation, members)

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            stored = store.links.get(key)
            if stored is None:
                return []
            nothing = (Status.QUEUED, None)
            return [stored.members.get(i, nothing)[1] for i in range(start, min(start + limit, stored.link.n))]

    async def pending(self, queue: str, limit: int, after: str | None) -> list[Row]:
        store = self._store
        with store.lock:
            found = store.queues.get(queue)
            jobs: Iterable[Job] = () if found is None else found.line
            last = None if after is None else store.jobs.get(after)
            if last is not None and last.state is State.READY and last.queue == queue:
                jobs = islice(dropwhile(lambda job: job is not last, jobs), 1, None)
            return [_row(job) for job in islice(jobs, limit)]

    async def ended(self, state: State, limit: int, after: str | None) -> list[str]:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            last = None if after is None else store.jobs.get(after)
            before = None if last is None or last.state is not state else last.number
            return [job.id for job in store.ended[state].page(limit, before)]

    async def jobs(self, which: Filter, limit: int, after: str | None) -> list[Row]:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            last = None if after is None else store.jobs.get(after)
            found = (
                _row(job)
                for job in reversed(store.jobs.values())
                if (last is None or job.seq < last.seq)
                and (which.states is None or job.state in which.states)
                and (which.queue is None or job.queue == which.queue)
                and (which.task is None or job.task == which.task)
            )
            return list(islice(found, limit))

    async def counts(self) -> Counts:
        store = self._store
        with store.lock:
            links.sweep(store, self._now())
            queues: defaultdict[str, Counter[State]] = defaultdict(Counter)
            for name, queue in store.queues.items():
                queues[name] += Counter({State.READY: len(queue.line), State.DUE: len(queue.due)})
            for member in store.workers.values():
                for job in member.held.values():
                    queues[job.queue][State.RUNNING] += 1
            for _, job in store.overdue:
                queues[job.queue][State.PARKED] += 1
            for stored in store.links.values():
                for job in store.members(stored) if stored.is_chain else ():
                    if job.state is State.HELD:
                        queues[job.queue][State.HELD] += 1
            busy = {name: dict(count) for name, count in queues.items() if count}
            return Counts(busy, {state: len(store.ended[state]) for state in ENDED})

    async def workers(self) -> list[WorkerRow]:
        store = self._store
        with store.lock:
            members = [store.workers[id] for id in sorted(store.workers)]
            return [WorkerRow(member.id, member.deadline, member.info, len(member.held)) for member in members]

    async def paused(self) -> list[PauseRow]:
        with self._store.lock:
            return [self._store.paused[name] for name in sorted(self._store.paused)]

    async def tasks(self) -> dict[str, str]:
        with self._store.lock:
            return dict(self._store.tasks)

    async def watch(self, keys: Sequence[Key], until: int | None) -> None:
        store = self._store
        with store.lock:
            if any(_has_ended(store, key) for key in keys):
                return
            sleeper = Sleeper()
            store.bells.watch(keys, sleeper)
            seconds = None if until is None else (until - self._now()) / 1000
        self._sleepers.add(sleeper)
        try:
            await sleeper.sleep(seconds)
        finally:
            self._sleepers.discard(sleeper)
            with store.lock:
                store.bells.leave(sleeper, keys=keys)

    async def durability(self) -> Durability:
        lost = Finding("storage", "memory", "warn", "use sqlite:///file.db for jobs that must survive the process")
        return Durability("process", "Jobs live in this process's memory and end with it.", (lost,))


def _has_ended(store: Store, key: Key) -> bool:
    kind, id = key
    if kind == "job":
        job = store.jobs.get(id)
        return job is None or job.state in ENDED
    stored = store.links.get(f"{kind[0]}:{id}")
    return stored is None or stored.status is not Status.PROCESSING


def _row(job: Job) -> Row:
    hold = job.hold
    return Row(
        job.id,
        job.queue,
        job.state,
        job.spec,
        job.tail,
        job.prev,
        job.result,
        job.priority,
        job.due,
        job.died_with if hold is None else hold.worker,
        None if hold is None else hold.at,
        job.ended_at,
        job.deaths,
        job.parked,
        job.progress,
        job.task,
        job.link,
        job.pos,
    )
