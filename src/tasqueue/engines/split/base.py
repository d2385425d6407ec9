"""What all parts of the split engine share: the store, the clock, what this process holds, and how something new is
stored.

Invariant (design, G3): message first, record second; what follows from an end is written only after the end itself was
accepted, and the broker's acknowledgement comes last. Every write here may be done again by somebody else, and then
changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from ... import faults
from ...clock import Ports
from ...core.record import Lease
from ...core.status import State
from ...interfaces import Delivery, Engine
from .docs import VERSION, Job, Order, OrderKind, Worker, apply, makes_room
from .store import Entry, Store, together

STOOD_STILL = 3_000
"""A gap of more than so many ms between two reclaims: the machine or a server slept, or the clock jumped; no lease
can be judged until the next reclaim, which lets them all begin again.
"""
UNJUDGED = 1_000
"""ms: until a lease is looked at again that could not be judged."""
POLL_MIN, POLL_MAX = 0.02, 0.1
"""Seconds between looks at a store that does not wake anybody."""


class Held(msgspec.Struct):
    """A claimed job and the delivery that it came with."""

    lease: Lease
    delivery: Delivery


class Hand(msgspec.Struct):
    """What one incarnation holds through this process.

    `loose`: deliveries (with their queues) of a claim that is not through.
    """

    last: int = 0
    held: dict[str, Held] = {}
    loose: list[tuple[str, Delivery]] = []
    cancels: set[str] = set()

    def deliveries(self) -> list[Delivery]:
        """All of them. A twin asks from another thread, so it looks at copies."""
        return [held.delivery for held in self.held.copy().values()] + [one for _, one in self.loose.copy()]


class Holder(NamedTuple):
    """Who has a job, by its record: gone (why; or retired, which is no death), or there until `deadline`."""

    id: str
    gone: bool
    retired: bool
    cause: str
    deadline: int


class Wake:
    """Wakes who waits on this engine object.

    At once for what it did itself; others' doings are found by whoever comes back after a pause, and looks again.
    """

    def __init__(self) -> None:
        self.stamp = 0
        """Grows with each `set`: take it before you look, and give it to `sleep`."""
        self._event = asyncio.Event()
        self._pause = POLL_MIN

    def set(self) -> None:
        """There may be something."""
        self.stamp += 1
        self._event.set()
        self._event = asyncio.Event()
        self.hurry()

    def hurry(self) -> None:
        """There was something: look again soon."""
        self._pause = POLL_MIN

    async def event(self, since: int) -> None:
        """Until a `set` after `since`."""
        if self.stamp == since:
            await self._event.wait()

    async def sleep(self, limit: float, since: int) -> None:
        """Until a `set` after `since`; at most `limit` seconds, and a pause that is longer each time."""
        pause = min(self._pause, limit)
        self._pause = min(self._pause * 2, POLL_MAX)
        if self.stamp != since:
            return
        try:
            async with asyncio.timeout(pause):
                await self._event.wait()
        except TimeoutError:
            return


class Base(Engine):
    """State and the ways to store something new; the parts build on it."""

    def __init__(self, store: Store, ports: Ports) -> None:
        self._store = store
        self._ports = ports
        self._hands: dict[str, Hand] = {}
        self._parked: dict[str, tuple[str, Delivery]] = {}
        """By job: the nonce and the delivery of what this process parked; its lease lasts as long as the parking."""
        self._work = Wake()
        self._looked = 0
        """The stamp of `_work` at the last claim."""
        self._ends = Wake()

    async def now(self) -> int:
        """The broker's clock when it offers one (an optional `now()`, seconds), else the machine's."""
        ask = getattr(self._store.broker, "now", None)
        return int(1000 * (self._ports.now() if ask is None else await self._store.ask(ask())))

    def _nonce(self) -> str:
        return self._ports.bits(8).hex()

    def _hand(self, worker: str) -> Hand:
        return self._hands.setdefault(worker, Hand())

    async def _insert(self, jobs: Sequence[Job], now: int, *, anew: bool = False) -> None:
        """Store those whose ids are new, ready ones with their message first.

        A tombstone counts as new only when `anew`: what a user submits under its id is, and so are the members of
        another link; what follows from an end is never new again.
        """
        entries = await self._store.jobs([job.id for job in jobs])
        fresh: list[tuple[Job, Entry[Job] | None]] = []
        seen: set[str] = set()
        for job, entry in zip(jobs, entries, strict=True):
            if job.id not in seen and _is_new(job, entry, now, anew):
                seen.add(job.id)
                fresh.append((job, entry))
        if not fresh:
            return
        orders: list[tuple[Order, Job]] = []
        for job, entry in fresh:
            job.nonce = self._nonce()
            if job.state is not State.HELD:
                of = entry.doc.nonce if entry is not None and entry.doc is not None else None
                orders.append((Order(VERSION, OrderKind.NEW, job.id, job.nonce, of, job=job), job))
        await self._store.add("jobs", [job.id for job, _ in fresh], now)
        await self._note_due([job for job, _ in fresh])
        # Held ones first: once the first step of a chain can run, the next one is there to be readied.
        await self._put_new([one for one in fresh if one[0].state is State.HELD], now)
        await self._store.send(orders)
        if faults.active and fresh[0][0].link:
            faults.point("G2.members_written")
        await self._put_new([one for one in fresh if one[0].state is not State.HELD], now)
        self._work.set()

    async def _put_new(self, fresh: Iterable[tuple[Job, Entry[Job] | None]], now: int) -> None:
        """False answers: somebody was first; then the message is stale, and dropped when it comes."""
        await together(self._store.put(job, entry and entry.revision, now) for job, entry in fresh)

    async def _carry_out(self, orders: Sequence[tuple[Order, Job]], now: int) -> list[Job | None]:
        """Send orders for these records and apply them; the records after it, None where another change came first.

        Whoever is handed such a message first does the same: it is as good.
        """
        planned = [(order, job) for order, old in orders if (job := apply(order, old, now)) is not None]
        await self._store.send(planned)
        await self._note_due(job for _, job in planned)
        done = await together(self._apply(order, job, now) for order, job in planned)
        self._work.set()
        by_id = {order.id: job for (order, _), job in zip(planned, done, strict=True)}
        return [by_id.get(order.id) for order, _ in orders]

    async def _apply(self, order: Order, planned: Job, now: int) -> Job | None:
        while True:
            entry = (await self._store.jobs([order.id]))[0]
            if entry is None or entry.doc is None:
                return None
            if entry.doc.nonce == order.nonce:
                return planned
            new = apply(order, entry.doc, now)
            if new is None or await self._store.put(new, entry.revision, now):
                return new

    # -- due dates: members of an index, "<due>:<id>", so that the earliest is found without a look at records -------

    async def _note_due(self, jobs: Iterable[Job]) -> None:
        members: dict[tuple[str, int], list[str]] = {}
        for job in jobs:
            if job.due is not None and job.state is not State.HELD:
                for index in ("due", f"due:{job.queue}"):
                    members.setdefault((index, job.due), []).append(f"{job.due}:{job.id}")
        await together(self._store.add(index, ids, -due) for (index, due), ids in members.items())

    async def _forget_due(self, jobs: Iterable[Job]) -> None:
        members: dict[str, list[str]] = {}
        for job in jobs:
            if job.due is not None and job.state is not State.HELD:
                for index in ("due", f"due:{job.queue}"):
                    members.setdefault(index, []).append(f"{job.due}:{job.id}")
        await together(self._store.remove(index, ids) for index, ids in members.items())

    async def _next_due(self, index: str, now: int) -> int | None:
        """The earliest due date in an index that is still to come; those past are dropped from it."""
        while members := await self._store.page(index, 100):
            dues = [int(member.partition(":")[0]) for member in members]
            await self._store.remove(index, [m for m, due in zip(members, dues, strict=True) if due <= now])
            for due in dues:
                if due > now:
                    return due
        return None

    async def _holders(self, workers: Collection[str], now: int) -> dict[str, Holder]:
        """Those who hold something: are they still there?"""
        names = sorted(workers)
        tick = await self._last_tick() if names else None  # first: what a reclaim extends, it extends before it says so
        found = await self._store.workers(names)
        slept = tick is not None and now - tick > STOOD_STILL
        return {name: _holder(name, worker, now, slept) for name, worker in zip(names, found, strict=True)}

    async def _last_tick(self) -> int | None:
        """When somebody last looked for expired leases."""
        entry = (await self._store.get(["tick"]))[0]
        return int(entry[0]) if entry else None


def _holder(name: str, worker: Worker | None, now: int, slept: bool) -> Holder:
    if worker is None:
        return Holder(name, True, False, "its worker is unknown", now)
    if worker.gone:
        return Holder(name, True, worker.retired, worker.cause, now)
    over = now - worker.deadline
    if over >= 0 and slept:
        return Holder(name, False, False, "", now + UNJUDGED)
    return Holder(name, over >= 0, False, f"its lease ended {over} ms ago", worker.deadline)


def _is_new(job: Job, entry: Entry[Job] | None, now: int, anew: bool) -> bool:
    if entry is None:
        return True
    old = entry.doc
    return anew and old is not None and makes_room(old, job, now)
