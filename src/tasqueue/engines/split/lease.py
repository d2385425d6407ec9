"""Incarnations and their leases: a worker's record has the deadline, the broker a lease for each delivery; a beat
renews both.

What dies with a process comes back by the broker's lease alone; nobody else knows the deliveries (`instant_handback`
is False). Where this very object (or its twin) holds them, `retire` and `reclaim` give them back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from ... import faults
from ...core.status import State
from ...interfaces import Beat
from .base import STOOD_STILL
from .claim import holds
from .docs import VERSION, Fleet, Job, Worker
from .schedule import Scheduling
from .settle import Settling, unparks
from .store import together

WAIT_MAX = 5.0
"""Seconds: a lease may have ended, which no broker tells."""
MOST = 1_000
"""Jobs that one call makes ready."""


class Leasing(Settling, Scheduling):
    """See `Engine`."""

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        now = await self.now()
        await self._store.add("workers", [worker], now)

        def begin(doc: Worker | None) -> Worker:
            if doc is None or doc.gone:
                return Worker(VERSION, worker, lease, now + lease, info)
            return replace(doc, lease=lease, deadline=now + lease, info=info)

        await self._store.change_worker(worker, begin)
        fleet = await self._store.change_fleet(lambda doc: _announce(doc, tasks, version))
        mine = Fleet(tasks=dict(tasks), reads=version)
        # The task is announced first: who parks a job for it after we have looked here finds that out.
        for key in fleet.parked:
            if unparks(key, mine):
                await self._unpark(key, now)

    async def beat(self, worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]] = ()) -> Beat:
        now = await self.now()
        hand = self._hands.get(worker)
        held = {} if hand is None else hand.held.copy()
        if hand is not None:
            await self._store.extend((delivery, lease) for delivery in hand.deliveries())

        def renew(doc: Worker | None) -> Worker | None:
            if doc is None or doc.gone:
                return None
            cancels = {id: claim for id, claim in doc.cancels.items() if hand is None or holds(hand, id, claim)}
            return replace(
                doc,
                lease=lease,
                deadline=now + lease,
                info=info or doc.info,
                held=len(held) if hand else doc.held,
                cancels=cancels,
            )

        me = await self._store.change_worker(worker, renew)
        paused = sorted((await self._store.fleet()).paused)
        if me is None or me.gone:
            self._hands.pop(worker, None)
            return Beat(lost=True, paused=paused)
        if progress:
            await self._note_progress(worker, progress, now)
        asked = set(me.cancels) | ({id for id in hand.cancels.copy() if id in held} if hand else set[str]())
        return Beat(False, sorted(asked), paused, me.drain)

    async def _note_progress(self, worker: str, progress: Sequence[tuple[str, int, bytes]], now: int) -> None:
        """One try: a note that meets another write is not worth a second."""
        entries = await self._store.jobs([id for id, _, _ in progress])
        await together(
            self._store.put(replace(entry.doc, progress=note), entry.revision, now)
            for (_, claim, note), entry in zip(progress, entries, strict=True)
            if entry is not None
            and entry.doc is not None
            and entry.doc.state is State.RUNNING
            and (entry.doc.worker, entry.doc.claim) == (worker, claim)
        )

    async def retire(self, worker: str) -> int:
        if not await self._bury(worker, "", retired=True):
            return 0
        return await self._hand_back(worker, None)

    async def reclaim(self, worker: str = "", cause: str = "") -> list[str]:
        if worker:
            dead = [worker] if await self._bury(worker, cause) else []
        else:
            dead = await self._reclaim_expired(cause)
        for name in dead:
            await self._hand_back(name, (await self._store.workers([name]))[0])
        if faults.active and dead:
            faults.point("P2.offered")
        return dead

    async def _reclaim_expired(self, cause: str) -> list[str]:
        last = await self._last_tick()
        names = await self._store.all("workers")
        found = [doc for doc in await self._store.workers(names) if doc is not None and not doc.gone]
        now = await self.now()  # last: what was asked may have waited for its answer
        if last is None or now - last > STOOD_STILL:
            for doc in found:  # before the tick, from which on leases are judged again
                await self._store.change_worker(doc.id, lambda doc: _extended(doc, now))
            await self._tick(now)
            return []
        await self._tick(now)
        expired = [doc for doc in found if doc.deadline < now]
        if faults.active and expired:
            faults.point("P1.expired_read")
        dead: list[str] = []
        for doc in expired:
            why = cause or f"its lease ended {now - doc.deadline} ms ago"
            if await self._bury(doc.id, why, before=now):
                dead.append(doc.id)
        return dead

    async def _tick(self, now: int) -> None:
        """Somebody has looked for expired leases."""
        while True:
            entry = (await self._store.get(["tick"]))[0]
            if await self._store.set("tick", str(now).encode(), entry and entry[1]):
                return

    async def _bury(self, worker: str, cause: str, *, retired: bool = False, before: int | None = None) -> bool:
        """End the incarnation, if it lives (and its lease ended before that); whether it was us."""
        mine = False

        def end(doc: Worker | None) -> Worker | None:
            nonlocal mine
            mine = doc is not None and not doc.gone and (before is None or doc.deadline < before)
            return replace(doc, gone=True, retired=retired, cause=cause) if mine and doc is not None else None

        await self._store.change_worker(worker, end)
        if mine:
            await self._store.remove("workers", [worker])
        return mine

    async def promote(self) -> int | None:
        """The broker itself hands out what is due; this is for the readers, so that what could start shows as ready."""
        now = await self.now()
        members = [member for member in await self._store.page("due", MOST) if _date(member) <= now]
        if members:
            if faults.active:
                faults.point("M1.due_read")
            entries = await self._store.jobs([member.partition(":")[2] for member in members])
            await together(
                self._store.put(replace(entry.doc, state=State.READY, due=None), entry.revision, now)
                for entry in entries
                if entry is not None and entry.doc is not None and _is_due(entry.doc, now)
            )
            await self._store.remove("due", members)
            self._work.set()
            if faults.active:
                faults.point("M2.moved")
        dates = [_date(member) for member in await self._store.page("due", 1)]
        dates.extend(entry.next_at for entry in await self._entries() if not entry.paused)
        return min(dates, default=None)

    async def wait(self, queues: Sequence[str], until: int | None) -> None:
        """Woken by what this object does itself, and by a broker's `wait(queues, timeout)`; without one, a poll."""
        if self._work.stamp != self._looked:
            return
        limit = WAIT_MAX if until is None else max(0.0, (until - await self.now()) / 1000)
        ask = getattr(self._store.broker, "wait", None)
        if ask is None:
            await self._work.sleep(limit, self._looked)
            return
        limit = min(limit, WAIT_MAX)
        names = [self._store.queue(name) for name in queues]
        asked = asyncio.ensure_future(self._store.ask(ask(names, limit), limit + self._store.timeout))
        woken = asyncio.ensure_future(self._work.event(self._looked))
        try:
            done, _ = await asyncio.wait((asked, woken), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if asked in done:
                asked.result()
        finally:
            asked.cancel()
            woken.cancel()
            await asyncio.gather(asked, woken, return_exceptions=True)


def _extended(doc: Worker | None, now: int) -> Worker | None:
    return None if doc is None or doc.gone else replace(doc, deadline=now + doc.lease)


def _announce(fleet: Fleet, tasks: Mapping[str, str], version: int) -> bool:
    if version <= fleet.reads and tasks.items() <= fleet.tasks.items():
        return False
    fleet.tasks = {**fleet.tasks, **tasks}
    fleet.reads = max(fleet.reads, version)
    return True


def _date(member: str) -> int:
    return int(member.partition(":")[0])


def _is_due(job: Job, now: int) -> bool:
    return job.state in (State.DUE, State.PARKED) and job.due is not None and job.due <= now
