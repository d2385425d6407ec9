"""What the engine keeps, and the moves between the places where a job can be.

The invariant: a job is in exactly one place, and its state says which.

    state      place                          leaves it for
    ---------  -----------------------------  ------------------------------------------------
    HELD       nowhere but in `jobs`          READY, DUE (its chain gets there), CANCELLED
    READY      its queue's `line`             RUNNING, CANCELLED
    DUE        its queue's `due`              READY, CANCELLED
    RUNNING    its worker's `held`            any but HELD
    PARKED     `parked[key]` and `overdue`    READY, CANCELLED
    ended      `ended[state]`, `leaving`      forgotten; READY or HELD (reopened)

A Store may be shared by engines on several loops and threads. Everything here is called with `lock` held; a caller
finishes all moves of one verb before it lets go, so that nobody ever sees half a verb.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import msgspec

from ... import faults
from ...core.record import Link, Record, Schedule, Step
from ...core.status import ENDED, State, Status
from ...interfaces import Key, PauseRow
from .order import Ledger, Line, Pile, Retention
from .sleep import Bells

REMEMBERED = 1_000
"""How many jobs forgotten at their end a worker's tokens are kept of, for a settle that is repeated."""


class Hold(msgspec.Struct, frozen=True, gc=False):
    """One claim of one worker, shared by all the jobs that it took. Worker and number are the fencing token."""

    worker: str
    number: int
    at: int


class Job(msgspec.Struct, gc=False):
    """A stored job. `hold`: the claim that has it or had it last; None when that token must not count any more."""

    id: str
    queue: str
    task: str
    spec: bytes
    priority: int
    due: int | None
    prev: bytes | None
    link: str
    pos: int
    seq: int
    """In the order of submission, for readers."""
    ord: int
    """Its place in the queue: kept when it is given back, new when it becomes ready in any other way."""
    state: State = State.READY
    tail: bytes = b""
    result: bytes | None = None
    hold: Hold | None = None
    ended_at: int | None = None
    number: int = 0
    """In the ledger of its final state."""
    ttl: int | None = None
    """The span under which it is in `leaving`."""
    deaths: int = 0
    died_with: str = ""
    death_cause: str = ""
    parked_at: int | None = None
    parked: str = ""
    key: str = ""
    """What unparks it."""
    progress: bytes | None = None


class Worker:
    """An incarnation. `last` is the number of its last claim; `held` is in the order of its claims."""

    __slots__ = ("deadline", "drain", "forgotten", "held", "id", "info", "last", "lease")

    def __init__(self, id: str) -> None:
        self.id = id
        self.deadline = 0
        self.lease = 0
        self.info = b""
        self.last = 0
        self.drain = False
        self.held: dict[str, Job] = {}
        self.forgotten: dict[str, int] = {}
        """Id and claim number of the last jobs that were forgotten by their own end."""


class Queue:
    """The ready and the due jobs of a queue. `stamp` grows whenever there may be work that there was not before."""

    __slots__ = ("due", "line", "stamp")

    def __init__(self) -> None:
        self.line: Line[Job] = Line()
        self.due: Pile[tuple[int, int], Job] = Pile()
        self.stamp = 0


class StoredLink:
    """A chain or a group. `ids`: its jobs by index. `members`: a group's ended ones, with what they saved."""

    __slots__ = ("ended_at", "generation", "ids", "is_chain", "link", "members", "pos", "status", "ttl")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_chain = link.key.startswith("c:")
        self.ids: dict[int, str] = {}
        self.status = Status.PROCESSING
        self.pos = 0
        self.generation = 0
        self.members: dict[int, tuple[Status, bytes | None]] = {}
        self.ended_at: int | None = None
        self.ttl: int | None = None


class Store:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bells = Bells()
        self.jobs: dict[str, Job] = {}
        """In the order of submission."""
        self.queues: dict[str, Queue] = {}
        self.parked: dict[str, dict[str, Job]] = {}
        self.overdue: Pile[tuple[int, int], Job] = Pile()
        """Parked jobs by the end of their waiting."""
        self.ended: dict[State, Ledger[Job]] = {state: Ledger() for state in ENDED}
        self.leaving = Retention()
        self.links: dict[str, StoredLink] = {}
        self.leaving_links = Retention()
        self.workers: dict[str, Worker] = {}
        self.asked: set[str] = set()
        """Jobs, running or given back, that somebody asked to cancel."""
        self.schedules: dict[str, Schedule] = {}
        self.paused: dict[str, PauseRow] = {}
        self.tasks: dict[str, str] = {}
        self.last_reclaim: int | None = None
        self.stamp = 0
        self._points: list[str] = []
        self._seq = 0
        self._ord = 0

    def passed(self, point: str) -> None:
        """A fault point inside a verb: hit when the verb is done, since nothing may be raised half way through one."""
        if faults.active:
            self._points.append(point)

    def hit_points(self) -> None:
        """Hit the fault points passed; called after a verb, without the lock."""
        points, self._points = self._points, []
        for name in points:
            faults.point(name)

    def queue(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue()
        return queue

    def stir(self, name: str) -> None:
        """There may be work in this queue: for claims to come, and for those who sleep."""
        self.stamp += 1
        self.queue(name).stamp = self.stamp
        self.bells.ring_queue(name)

    # -- into a place -------------------------------------------------------------------------------------------------

    def insert(self, records: Iterable[Record], now: int) -> None:
        """Those that are new by id. Queues are stirred once for all of them."""
        jobs, stirred = self.jobs, set[str]()
        for record in records:
            old = jobs.get(record.id)
            if old is not None:
                if old.ttl is None or old.ended_at is None or old.ended_at + old.ttl > now:
                    continue
                self.forget(old)  # it has outlived its retention: the id is new again
            self._seq = seq = self._seq + 1
            self._ord = place = self._ord + 1
            job = jobs[record.id] = Job(
                record.id,
                record.queue,
                record.task,
                record.spec,
                record.priority,
                record.due,
                record.prev,
                record.link,
                record.pos,
                seq,
                place,
            )
            if record.held:
                job.state = State.HELD
                continue
            stirred.add(record.queue)
            queue = self.queues.get(record.queue) or self.queue(record.queue)
            if record.due is not None and record.due > now:
                job.state = State.DUE
                queue.due.add((record.due, seq), job)
            else:
                queue.line.append(job)
        for name in stirred:
            self.stir(name)

    def make_ready(self, job: Job) -> None:
        """At a new place."""
        self._ord += 1
        job.ord = self._ord
        job.state = State.READY
        self.queue(job.queue).line.append(job)
        self.stir(job.queue)

    def make_due(self, job: Job, due: int | None, now: int) -> None:
        """Due then; ready, at a new place, when that is not after now."""
        job.due = due
        if due is None or due <= now:
            self.make_ready(job)
            return
        job.state = State.DUE
        self.queue(job.queue).due.add((due, job.seq), job)
        self.stir(job.queue)

    def give_back(self, job: Job) -> None:
        """Ready at its old place."""
        job.state = State.READY
        job.progress = None
        self.queue(job.queue).line.put_back(job)
        self.stir(job.queue)

    def park(self, job: Job, step: Step, now: int) -> None:
        """Until somebody announces `step.key`, or its time is over, counted from when it was first parked."""
        if job.parked_at is None:
            job.parked_at = now
        job.state, job.key, job.parked = State.PARKED, step.key, step.reason
        job.due = job.parked_at + step.delay
        self.parked.setdefault(step.key, {})[job.id] = job
        self.overdue.add((job.due, job.seq), job)

    def end(self, job: Job, state: State, ttl: int | None, now: int) -> None:
        """Ended, and in the same move forgotten when `ttl` is 0."""
        job.state = state
        job.ended_at = now
        job.ttl = ttl
        if ttl == 0:
            del self.jobs[job.id]
        else:
            job.number = self.ended[state].add(job)
            if ttl is not None:
                self.leaving.add(job.id, ttl, now)
        if self.asked:
            self.asked.discard(job.id)
        self.wake("job", job.id)

    # -- out of a place -----------------------------------------------------------------------------------------------

    def take_out(self, job: Job) -> None:
        """Out of the place that its state names; the caller gives it another, or drops it."""
        state = job.state
        if state is State.READY:
            self.queues[job.queue].line.remove(job)
        elif state is State.DUE:
            assert job.due is not None
            self.queues[job.queue].due.remove((job.due, job.seq))
        elif state is State.PARKED:
            assert job.due is not None
            self.overdue.remove((job.due, job.seq))
            same = self.parked[job.key]
            del same[job.id]
            if not same:
                del self.parked[job.key]
        elif state is State.RUNNING:
            assert job.hold is not None
            del self.workers[job.hold.worker].held[job.id]
        elif state in ENDED:
            self.ended[state].remove(job.number)
            if job.ttl is not None:
                self.leaving.remove(job.id, job.ttl)

    def forget(self, job: Job) -> None:
        """As if it had never been."""
        self.take_out(job)
        del self.jobs[job.id]
        self.asked.discard(job.id)
        self.wake("job", job.id)

    def wake(self, kind: str, id: str) -> None:
        """Something has ended or is gone: tell those who watch it."""
        if self.bells.watched:
            self.bells.ring_key((kind, id))  # type: ignore[arg-type]

    # -- the time has come --------------------------------------------------------------------------------------------

    def ripen(self, queue: Queue, now: int, limit: int) -> int:
        """Due jobs of a queue become ready, at new places, in the order of their dates. How many."""
        moved = 0
        while moved < limit and (first := queue.due.first()) is not None and first[0] <= now:
            job = queue.due.pop()
            job.due = None
            self.make_ready(job)
            moved += 1
        return moved

    def unpark(self, job: Job) -> None:
        """Ready at its old place."""
        self.take_out(job)
        job.due, job.key, job.parked = None, "", ""
        self.give_back(job)

    def members(self, stored: StoredLink) -> Sequence[Job]:
        """The jobs of a chain or group that are still stored."""
        found = (self.jobs.get(id) for id in stored.ids.values())
        return [job for job in found if job is not None and job.link == stored.link.key]


def watched_key(key: str) -> Key:
    """A link's key as watchers name it."""
    return ("chain" if key.startswith("c:") else "group", key[2:])
