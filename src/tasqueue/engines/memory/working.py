"""The verbs of producers and workers: submit, claim, settle, and the lease that lies between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ... import faults
from ...core.record import Kind, Lease, Link, Record, Step
from ...core.status import State
from ...interfaces import Beat, Claim, WorkerGone
from . import links
from .base import Base
from .sleep import Sleeper
from .store import REMEMBERED, Hold, Job, Queue, Store, Worker

END, RUNNING = Kind.END, State.RUNNING  # up to Python 3.11, looking up a member costs 0.1 µs
MOST = 1_000
"""Jobs that one call makes ready."""
STOOD_STILL = 3_000
"""A gap of more than so many ms between two reclaims: the machine slept or the clock jumped; no lease can be judged."""


class Working(Base):
    """See `Engine`; here is said only what is this engine's own."""

    async def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        if faults.active:
            faults.point("E2.before_write")
        store = self._store
        with store.lock:
            _insert(store, records, links, self._now())
        if faults.active:
            if links:
                faults.point("G1.record_written")
            faults.point("E3.written")

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        store = self._store
        with store.lock:
            member = store.workers.get(worker)
            if member is None:
                member = store.workers[worker] = Worker(worker)
            member.lease, member.deadline, member.info = lease, self._now() + lease, info
            store.tasks.update(tasks)
            for key in [key for key in store.parked if _unparks(key, tasks, version)]:
                for job in list(store.parked[key].values()):
                    store.unpark(job)

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        store = self._store
        with store.lock:
            member = store.workers.get(worker)
            if member is None:
                raise WorkerGone(f"worker {worker!r} was reclaimed, retired or never registered")
            self._looked = store.stamp
            if number <= member.last:
                again = [
                    _lease(job, job.hold) for job in member.held.values() if job.hold and job.hold.number == number
                ]
                _mark_asked(store, again)
                return Claim(again, _next_due(store, wants))
            member.last = number
            now = self._now()
            hold = Hold(worker, number, now)
            leases: list[Lease] = []
            for name, limit in wants.items():
                queue = store.queues.get(name)
                if queue is None or name in store.paused:
                    continue
                if queue.due:
                    self._ripen(queue, now, MOST)
                for job in queue.line.take(limit):
                    job.state = RUNNING
                    job.hold = hold
                    member.held[job.id] = job
                    leases.append(_lease(job, hold))
            due = _next_due(store, wants)
            if store.asked:
                _mark_asked(store, leases)
        if faults.active:
            store.hit_points()
            if leases:
                faults.point("W2.claimed")
        return Claim(leases, due)

    async def settle(self, worker: str, steps: Sequence[Step]) -> list[bool]:
        """A repeated END with a `ttl` of 0 is accepted if among the last 1,000 of a living worker, else refused."""
        store = self._store
        accepted: list[bool] = []
        with store.lock:
            now = self._now()
            member = store.workers.get(worker)
            held = {} if member is None else member.held
            for step in steps:
                job = held.get(step.id)
                if job is None or job.hold is None or job.hold.number != step.claim:
                    accepted.append(_applied_before(store, worker, step))
                    continue
                del held[step.id]
                accepted.append(True)
                if step.kind is END:
                    if step.tail is not None:
                        job.tail = step.tail
                    job.result = step.result
                    if step.died:
                        _count_death(job, worker, step.reason)
                    store.end(job, step.state, step.ttl, now)
                    if step.follow:
                        store.insert(step.follow, now)
                    if job.link:
                        store.insert(links.job_ended(store, job, now), now)
                    if step.ttl == 0 and member is not None:
                        _remember(member, step)
                else:
                    _put_back(store, job, worker, step, now)
        if faults.active:
            store.hit_points()
            faults.point("W9.settled")
            if any(step.kind is Kind.RETRY for step in steps):
                faults.point("R2.rescheduled")
        return accepted

    async def beat(self, worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]] = ()) -> Beat:
        store = self._store
        with store.lock:
            member = store.workers.get(worker)
            paused = sorted(store.paused)
            if member is None:
                return Beat(lost=True, paused=paused)
            member.lease, member.deadline, member.info = lease, self._now() + lease, info or member.info
            for id, number, note in progress:
                job = member.held.get(id)
                if job is not None and job.hold is not None and job.hold.number == number:
                    job.progress = note
            return Beat(False, [id for id in store.asked if id in member.held], paused, member.drain)

    async def retire(self, worker: str) -> int:
        store = self._store
        with store.lock:
            member = store.workers.pop(worker, None)
            if member is None:
                return 0
            for job in member.held.values():
                job.hold = None
                store.give_back(job)
            return len(member.held)

    async def reclaim(self, worker: str = "", cause: str = "") -> list[str]:
        store = self._store
        with store.lock:
            now = self._now()
            if worker:
                dead = [store.workers[worker]] if worker in store.workers else []
            else:
                last, store.last_reclaim = store.last_reclaim, now
                if last is None or now - last > STOOD_STILL:
                    for member in store.workers.values():
                        member.deadline = now + member.lease
                    return []
                dead = [member for member in store.workers.values() if member.deadline < now]
            if dead:
                store.passed("P1.expired_read")
                for member in dead:
                    _bury(store, member, cause or f"its lease ended {now - member.deadline} ms ago")
                store.passed("P2.offered")
        store.hit_points()
        return [member.id for member in dead]

    async def promote(self) -> int | None:
        store = self._store
        with store.lock:
            now = self._now()
            moved = 0
            while moved < MOST and (first := store.overdue.first()) is not None and first[0] <= now:
                store.unpark(store.overdue.peek())
                moved += 1
            for queue in list(store.queues.values()):
                moved += self._ripen(queue, now, MOST - moved)
            dates = [first[0] for queue in store.queues.values() if (first := queue.due.first())]
            if first := store.overdue.first():
                dates.append(first[0])
            dates += [entry.next_at for entry in store.schedules.values() if not entry.paused]
            due = min(dates, default=None)
        store.hit_points()
        return due

    async def wait(self, queues: Sequence[str], until: int | None) -> None:
        store = self._store
        with store.lock:
            stamps = [store.queues[name].stamp for name in queues if name in store.queues]
            if any(stamp > self._looked for stamp in stamps):
                return
            dates = [until, _next_due(store, queues)]
            sleeper = Sleeper()
            store.bells.wait(queues, sleeper)
            now = self._now()
        self._sleepers.add(sleeper)
        try:
            await sleeper.sleep(min(((at - now) / 1000 for at in dates if at is not None), default=None))
        finally:
            self._sleepers.discard(sleeper)
            with store.lock:
                store.bells.leave(sleeper, queues=queues)

    def _ripen(self, queue: Queue, now: int, limit: int) -> int:
        store = self._store
        first = queue.due.first()
        if first is None or first[0] > now:
            return 0
        store.passed("M1.due_read")
        moved = store.ripen(queue, now, limit)
        store.passed("M2.moved")
        return moved


def _insert(store: Store, records: Sequence[Record], new: Sequence[Link], now: int) -> None:
    if new:
        links.insert(store, new, records, now)
    else:
        store.insert((record for record in records if not record.link), now)


def _lease(job: Job, hold: Hold) -> Lease:
    return Lease(
        job.id,
        job.queue,
        hold.number,
        job.spec,
        job.tail,
        job.prev,
        job.deaths,
        job.died_with,
        job.death_cause,
        job.parked_at,
        job.link,
        job.pos,
    )


def _mark_asked(store: Store, leases: Sequence[Lease]) -> None:
    for lease in leases:
        lease.asked = lease.id in store.asked


def _next_due(store: Store, queues: Sequence[str] | Mapping[str, int]) -> int | None:
    earliest: int | None = None
    for name in queues:
        queue = store.queues.get(name)
        if queue is None or not queue.due or name in store.paused:
            continue
        first = queue.due.first()
        if first is not None and (earliest is None or first[0] < earliest):
            earliest = first[0]
    return earliest


def _applied_before(store: Store, worker: str, step: Step) -> bool:
    """Whether this very token's last act was such a step, so that the answer to it was lost (G14)."""
    job = store.jobs.get(step.id)
    if job is not None and job.hold is not None and (job.hold.worker, job.hold.number) == (worker, step.claim):
        if step.kind is Kind.END:
            return job.state is step.state
        return job.state in (State.READY, State.DUE, State.PARKED)
    member = store.workers.get(worker)
    return member is not None and step.kind is Kind.END and member.forgotten.get(step.id) == step.claim


def _remember(member: Worker, step: Step) -> None:
    member.forgotten[step.id] = step.claim
    if len(member.forgotten) > REMEMBERED:
        del member.forgotten[next(iter(member.forgotten))]


def _count_death(job: Job, worker: str, cause: str) -> None:
    job.deaths += 1
    job.died_with, job.death_cause = worker, cause


def _put_back(store: Store, job: Job, worker: str, step: Step, now: int) -> None:
    """Every step but END."""
    if step.kind is Kind.RELEASE:
        if step.died:
            _count_death(job, worker, step.reason)
        store.give_back(job)
        return
    job.progress = None
    store.asked.discard(job.id)
    if step.tail is not None:
        job.tail = step.tail
    if step.kind is Kind.PARK:
        store.park(job, step, now)
    else:
        store.make_due(job, now + step.delay, now)


def _bury(store: Store, member: Worker, cause: str) -> None:
    """What a dead worker held goes back, a death counted for each; its tokens are worth nothing from now on."""
    del store.workers[member.id]
    for job in member.held.values():
        job.hold = None
        _count_death(job, member.id, cause)
        store.give_back(job)


def _unparks(key: str, tasks: Mapping[str, str], version: int) -> bool:
    what, _, name = key.partition(":")
    return name in tasks if what == "task" else what == "version" and name.isdecimal() and int(name) <= version
