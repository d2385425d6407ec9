"""The contract once more, as short as it can be said: what a rule machine compares an engine with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import msgspec
from msgspec.structs import replace

from ..core.codec import pack_results
from ..core.record import Kind, Link, Record, Step, callback_id
from ..core.status import ENDED, WAITING, State, Status


class MJob(msgspec.Struct):
    """A job. `token`: worker and number of the claim that has it, or whose last step is remembered."""

    record: Record
    seq: int
    place: int
    state: State
    due: int | None = None
    prev: bytes | None = None
    tail: bytes = b""
    result: bytes | None = None
    token: tuple[str, int] | None = None
    ended_at: int | None = None
    gone_at: int | None = None
    deaths: int = 0
    died_with: str = ""
    parked_at: int | None = None
    key: str = ""
    asked: bool = False


class MLink(msgspec.Struct):
    """A chain or a group."""

    link: Link
    ids: dict[int, str]
    status: Status = Status.PROCESSING
    pos: int = 0
    generation: int = 0
    members: dict[int, tuple[Status, bytes | None]] = {}
    gone_at: int | None = None


class MWorker(msgspec.Struct):
    """A living incarnation."""

    deadline: int = 0
    lease: int = 0
    last: int = 0


class Model:
    """Verbs answer as the engine's; a WorkerGone is a None. Everything is a scan: no index to get out of step."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.jobs: dict[str, MJob] = {}
        self.links: dict[str, MLink] = {}
        self.workers: dict[str, MWorker] = {}
        self.paused: set[str] = set()
        self.forgotten: set[tuple[str, str, int]] = set()
        """Tokens whose END forgot the job: the answer to their repetition is not promised."""
        self._last_reclaim: int | None = None
        self._next = count(1).__next__

    def ready(self, queue: str) -> list[str]:
        """What could start now, in claim order."""
        return self._in_order(
            [id for id, job in self.jobs.items() if (job.state, job.record.queue) == (State.READY, queue)]
        )

    def _in_order(self, ids: list[str]) -> list[str]:
        return sorted(ids, key=lambda id: (-self.jobs[id].record.priority, self.jobs[id].place))

    def held(self, worker: str) -> list[str]:
        """What a worker holds."""
        return [id for id, job in self.jobs.items() if job.state is State.RUNNING and (job.token or "")[0] == worker]

    def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        new = {link.key: MLink(link, {}) for link in links if link.key not in self.links}
        for record in records:
            if record.link and record.link not in new:
                continue
            old = self.jobs.get(record.id)
            if record.link:
                new[record.link].ids[record.pos] = record.id
                if old is not None and old.record.link == record.link:
                    del self.jobs[record.id]
            if record.id not in self.jobs:
                job = MJob(record, self._next(), self._next(), State.HELD, prev=record.prev)
                self.jobs[record.id] = job
                if not record.held:
                    self._wait_until(job, record.due)
        self.links.update(new)

    def _wait_until(self, job: MJob, due: int | None) -> None:
        job.state, job.due, job.place = State.READY, due, self._next()
        if due is not None and due > self.now:
            job.state = State.DUE

    def _wait_at_old_place(self, job: MJob) -> None:
        job.state, job.key = State.READY, ""

    def register(self, worker: str, lease: int, tasks: Mapping[str, str], version: int) -> None:
        known = self.workers.setdefault(worker, MWorker())
        known.deadline, known.lease = self.now + lease, lease
        keys = {f"task:{name}" for name in tasks} | {f"version:{n}" for n in range(version + 1)}
        for job in self.jobs.values():
            if job.state is State.PARKED and job.key in keys:
                self._wait_at_old_place(job)

    def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> list[str] | None:
        known = self.workers.get(worker)
        if known is None:
            return None
        if number <= known.last:
            return self._in_order([id for id in self.held(worker) if self.jobs[id].token == (worker, number)])
        known.last = number
        taken: list[str] = []
        for queue, limit in wants.items():
            if queue not in self.paused:
                self._ripen(queue)
                taken += self.ready(queue)[:limit]
        for id in taken:
            self.jobs[id].state, self.jobs[id].token = State.RUNNING, (worker, number)
        return taken

    def _ripen(self, queue: str | None = None) -> None:
        due = [job for job in self.jobs.values() if job.state is State.DUE and queue in (None, job.record.queue)]
        for job in sorted(due, key=lambda job: (job.due or 0, job.seq)):
            if job.due is not None and job.due <= self.now:
                self._wait_until(job, None)

    def promote(self) -> None:
        for job in self.jobs.values():
            if job.state is State.PARKED and job.due is not None and job.due <= self.now:
                self._wait_at_old_place(job)
        self._ripen()

    def settle(self, worker: str, step: Step) -> bool:
        job = self.jobs.get(step.id)
        if job is None or job.token != (worker, step.claim):
            return False
        if job.state is not State.RUNNING:
            return job.state is step.state if step.kind is Kind.END else job.state in WAITING - {State.HELD}
        if step.kind is Kind.RELEASE:
            if step.died:
                job.deaths, job.died_with = job.deaths + 1, worker
            self._wait_at_old_place(job)
            return True
        job.asked = False
        job.tail = job.tail if step.tail is None else step.tail
        if step.kind is Kind.END:
            self._end(job, step.state, step.result, step.ttl)
            self.submit(step.follow)
            self._tell_link(job)
            if step.ttl == 0:
                self.forgotten.add((step.id, worker, step.claim))
        elif step.kind is Kind.PARK:
            job.parked_at = self.now if job.parked_at is None else job.parked_at
            job.state, job.key, job.due = State.PARKED, step.key, job.parked_at + step.delay
        else:
            self._wait_until(job, self.now + step.delay)
        return True

    def _end(self, job: MJob, state: State, result: bytes | None, ttl: int | None) -> None:
        job.state, job.result, job.ended_at, job.asked = state, result, self.now, False
        job.gone_at = None if ttl is None else self.now + ttl
        if ttl == 0:
            del self.jobs[job.record.id]

    def take_back(self, worker: str, death: bool) -> int:
        """What `retire` and `reclaim` do to one worker."""
        held = self.held(worker)
        for id in held:
            job = self.jobs[id]
            job.token = None
            if death:
                job.deaths, job.died_with = job.deaths + 1, worker
            self._wait_at_old_place(job)
        self.workers.pop(worker, None)
        return len(held)

    def reclaim(self) -> list[str]:
        last, self._last_reclaim = self._last_reclaim, self.now
        if last is None or self.now - last > 3_000:
            for known in self.workers.values():
                known.deadline = self.now + known.lease
            return []
        dead = [name for name, known in self.workers.items() if known.deadline < self.now]
        for name in dead:
            self.take_back(name, death=True)
        return dead

    def _tell_link(self, job: MJob) -> None:
        link, record, status = self.links.get(job.record.link), job.record, ENDED[job.state]
        if link is None:
            return
        if record.link.startswith("g:"):
            link.members[record.pos] = (status, job.result)
            if len(link.members) == link.link.n:
                good = all(status is Status.SUCCESSFUL for status, _ in link.members.values())
                prev = pack_results([link.members[i][1] for i in range(link.link.n)])
                for callback in link.link.on_success if good else link.link.on_error:
                    self.submit([replace(callback, id=callback_id(callback.id, link.generation), prev=prev)])
                self._end_link(link, Status.SUCCESSFUL if good else Status.FAILED)
            return
        if status is not Status.SUCCESSFUL:
            self._end_link(link, status)
            return
        link.pos = record.pos + 1
        following = self.jobs.get(link.ids.get(link.pos, ""))
        if following is not None:
            following.prev = job.result
        if link.pos == link.link.n:
            self._end_link(link, Status.SUCCESSFUL)
        self._go_on(link)

    def _go_on(self, link: MLink) -> None:
        current = self.jobs.get(link.ids.get(link.pos, ""))
        if current is not None and current.state is State.HELD and link.status is Status.PROCESSING and link.pos:
            self._wait_until(current, current.record.due)

    def _end_link(self, link: MLink, status: Status) -> None:
        if link.status is not Status.PROCESSING:
            return
        ttl = link.link.failed_ttl if status is Status.FAILED else link.link.result_ttl
        link.status, link.gone_at = status, None if ttl is None else self.now + ttl
        if ttl == 0:
            self._forget_link(link)

    def _forget_link(self, link: MLink) -> None:
        del self.links[link.link.key]
        for id in link.ids.values():
            if id in self.jobs and self.jobs[id].state is State.HELD:
                del self.jobs[id]

    def cancel(self, id: str, ttl: int | None) -> str:
        job = self.jobs.get(id)
        if job is None or job.state in ENDED:
            return "neither"
        if job.state is State.RUNNING:
            job.asked = True
            return "asked"
        self._end(job, State.CANCELLED, None, ttl)
        self._tell_link(job)
        return "done"

    def cancel_link(self, key: str, ttl: int | None) -> bool:
        link = self.links.get(key)
        if link is None or link.status is not Status.PROCESSING:
            return False
        chain = key.startswith("c:")
        ids = [link.ids[link.pos]] if chain else [link.ids[i] for i in range(link.link.n)]
        if chain:
            self._end_link(link, Status.CANCELLED)
        for id in ids:
            self.cancel(id, ttl)
        return True

    def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        job = self.jobs.get(id)
        if job is None or job.state not in (State.FAILED, State.CANCELLED) or job.ended_at != ended_at:
            return False
        fresh = MJob(job.record, job.seq, job.place, State.HELD, prev=job.prev, tail=tail)
        self.jobs[id] = fresh
        link = self.links.get(job.record.link)
        if link is not None and link.status is not Status.PROCESSING:
            link.status, link.gone_at, link.generation = Status.PROCESSING, None, link.generation + 1
        if link is not None:
            link.members.pop(job.record.pos, None)
        if link is None or job.record.link.startswith("g:") or job.record.pos == link.pos:
            self._wait_until(fresh, None)
        else:
            self._go_on(link)
        return True

    def prune(self) -> None:
        for id in [id for id, job in self.jobs.items() if job.gone_at is not None and job.gone_at <= self.now]:
            del self.jobs[id]
        for link in [link for link in self.links.values() if link.gone_at is not None and link.gone_at <= self.now]:
            self._forget_link(link)
