"""Claiming: messages are consumed, then sorted by what their records say.

    record                                   what becomes of the delivery
    ---------------------------------------  -------------------------------------------------------------
    absent, and the order brings it          stored and taken
    ready, due or parked and the time is up  taken
    due or parked, too early                 back until then
    taken by a worker that is gone           a death is counted, taken
    taken by a worker that lives             back until that one's lease ends: a copy, or a late extension
    ended                                    what follows is done again, acknowledged
    another message's (stale order)          acknowledged

Taken is: one compare-and-set to (worker, claim number, running). Until a delivery has been sorted it is `loose`: a
claim that is repeated after an error goes on with those, and a worker that retires gives them back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from ... import faults
from ...core.codec import NewerVersion, Undecodable
from ...core.record import Lease
from ...core.status import State
from ...interfaces import Claim, Delivery, WorkerGone
from .base import Hand, Held, Holder
from .docs import VERSION, Job, Order, OrderKind, Worker, apply, decode_order, died
from .produce import Producing
from .store import Entry, together

NEWER_LATER = 5.0
"""Seconds after which a message that only a newer library can read is offered again."""


class Sorting(msgspec.Struct):
    """For whom deliveries are sorted, and what becomes of them.

    `taken` are to be written, `redo` are ended; `back` come later at a new place, `keep` at the old one.
    """

    me: Worker
    number: int
    hand: Hand
    now: int
    taken: list[tuple[Delivery, str, Job, Entry[Job] | None, Order]] = []
    adopted: list[tuple[Delivery, str, Job]] = []
    redo: list[Job] = []
    done: list[Delivery] = []
    back: list[tuple[Delivery, float]] = []
    keep: list[tuple[Delivery, int]] = []
    early: list[Job] = []
    expand: list[Order] = []

    def not_ended(
        self,
        delivery: Delivery,
        queue: str,
        order: Order,
        job: Job,
        entry: Entry[Job] | None,
        holder: Holder | None,
    ) -> None:
        """A delivery that speaks for a job that has not ended; `holder`: somebody else who has it, by its record."""
        if holder is not None:
            if not holder.gone:
                self.keep.append((delivery, max(1, holder.deadline - self.now)))
                return
            if not holder.retired:
                job = died(job, holder.id, holder.cause)
        elif job.state is State.RUNNING:
            if job.id in self.hand.held or job.claim == self.number:
                self.adopted.append((delivery, queue, job))
                return
        elif job.due is not None and job.due > self.now:
            self.early.append(job)
            if job.state is State.PARKED:
                self.keep.append((delivery, job.due - self.now))
            else:
                self.back.append((delivery, (job.due - self.now) / 1000))
            return
        taken = replace(
            job,
            state=State.RUNNING,
            nonce=order.nonce,
            also="",
            worker=self.me.id,
            claim=self.number,
            claimed_at=self.now,
            due=None,
            park_key="",
            parked="",
            progress=None,
        )
        self.taken.append((delivery, queue, taken, entry, order))

    def through(self) -> set[int]:
        """The deliveries that need no second look, by identity."""
        return {id(delivery) for delivery in self.done} | {id(delivery) for delivery, _ in (*self.back, *self.keep)}


class Claiming(Producing):
    """See `Engine`."""

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        me = (await self._store.workers([worker]))[0]
        if me is None or me.gone:
            raise WorkerGone(f"worker {worker!r} was reclaimed, retired or never registered")
        hand = self._hand(worker)
        again = number <= hand.last
        hand.last = max(hand.last, number)
        self._looked = self._work.stamp
        paused = (await self._store.fleet()).paused
        open_ = [queue for queue in wants if queue not in paused]
        room = [] if again else open_
        while True:
            while hand.loose:
                await self._sort_loose(me, number, hand)
            taken = [held.lease.queue for held in hand.held.values() if held.lease.claim == number]
            asks = {queue: most for queue in room if (most := wants[queue] - taken.count(queue)) > 0}
            if not asks:
                break
            found = await together(self._consume(hand, queue, most, me.lease) for queue, most in asks.items())
            room = [queue for (queue, most), got in zip(asks.items(), found, strict=True) if got >= most]
        leases = [held.lease for held in hand.held.values() if held.lease.claim == number]
        if leases:
            self._work.hurry()
            after = await self._store.change_worker(worker, lambda doc: _holding(doc, len(hand.held)))
            if after is None or after.gone:  # who reclaimed it meanwhile may not have seen these deliveries
                self._hands[worker] = hand
                await self._hand_back(worker, None)  # nobody has begun them, so nobody died of them
                raise WorkerGone(f"worker {worker!r} was reclaimed or retired while it claimed")
        now = await self.now()
        dues = await together(self._next_due(f"due:{queue}", now) for queue in open_)
        if faults.active:
            faults.point("W2.claimed")
        return Claim(leases, min((due for due in dues if due is not None), default=None))

    async def _hand_back(self, worker: str, dead: Worker | None) -> int:
        """Give back what this object holds for a worker, counting a death if it is dead. How many jobs it held."""
        hand = self._hands.pop(worker, None)
        if hand is None:
            return 0
        now = await self.now()
        open_ = list(hand.held)
        while open_:
            entries = await self._store.jobs(open_)
            again: list[tuple[Job, object]] = []
            for entry in entries:
                job = entry and entry.doc
                if entry is not None and job is not None and _is_held(job, worker, hand):
                    job = replace(job, state=State.READY, claim=0, progress=None)
                    again.append((died(job, worker, dead.cause) if dead else job, entry.revision))
            written = await together(self._store.put(job, revision, now) for job, revision in again)
            open_ = [job.id for (job, _), ok in zip(again, written, strict=True) if not ok]
        await self._store.release((delivery, 0) for delivery in hand.deliveries())
        self._work.set()
        return len(hand.held)

    async def _consume(self, hand: Hand, queue: str, limit: int, lease: int) -> int:
        deliveries = await self._store.consume(queue, limit, lease)
        hand.loose.extend((queue, delivery) for delivery in deliveries)
        return len(deliveries)

    async def _sort_loose(self, me: Worker, number: int, hand: Hand) -> None:
        """Sort what is loose, one delivery per job; those whose record changed meanwhile stay loose."""
        now = await self.now()
        found = Sorting(me, number, hand, now)
        await self._sort(found)
        for order in found.expand:
            await self._expand([order], order.members, now)
        await self._store.add("jobs", [job.id for _, _, job, entry, _ in found.taken if entry is None], now)
        written = await together(
            self._store.put(job, entry and entry.revision, now) for _, _, job, entry, _ in found.taken
        )
        if found.redo:
            await self._follow(found.redo, now)
        await self._note_due(found.early)  # its settler may have died before
        await self._store.ack(found.done)
        await self._store.release(found.back)
        await self._store.extend(found.keep)
        through = found.through()
        for (delivery, queue, job, _, order), ok in zip(found.taken, written, strict=True):
            if ok:
                if order.kind is OrderKind.REOPEN and job.link:
                    await self._link_reopened(job, now)
                found.adopted.append((delivery, queue, job))
        for delivery, queue, job in found.adopted:
            self._take(hand, delivery, queue, job)
            through.add(id(delivery))
        hand.loose[:] = [one for one in hand.loose if id(one[1]) not in through]

    def _take(self, hand: Hand, delivery: Delivery, queue: str, job: Job) -> None:
        lease = Lease(
            job.id,
            queue,
            job.claim,
            job.spec,
            job.tail,
            job.prev,
            job.deaths,
            job.died_with,
            job.death_cause,
            job.parked_at,
            job.link,
            job.pos,
            asked=job.cancel,
        )
        hand.held[job.id] = Held(lease, delivery)
        if job.cancel:
            hand.cancels.add(job.id)
        self._parked.pop(job.id, None)

    async def _sort(self, found: Sorting) -> None:
        orders: dict[str, tuple[Delivery, str, Order]] = {}
        loose = list(found.hand.loose)
        bodies = await self._store.bodies([delivery for _, delivery in loose])
        for (queue, delivery), body in zip(loose, bodies, strict=True):
            if body is None:
                found.done.append(delivery)
                continue
            order = _order(delivery.id, body, queue, found.now)
            if order is None:
                found.back.append((delivery, NEWER_LATER))
            elif order.kind is OrderKind.EXPAND:
                found.expand.append(order)
                found.done.append(delivery)
            elif order.id not in orders:
                orders[order.id] = (delivery, queue, order)
        entries = await self._store.jobs(list(orders))
        docs = [entry.doc for entry in entries if entry is not None and entry.doc is not None]
        others = {job.worker for job in docs if job.state is State.RUNNING} - {found.me.id}
        holders = await self._holders(others, found.now)
        for (delivery, queue, order), entry in zip(orders.values(), entries, strict=True):
            if entry is not None and entry.newer:
                found.back.append((delivery, NEWER_LATER))
                continue
            job = entry and entry.doc
            if entry is not None and job is None:  # kept as a tail that cannot be read: so it will be failed
                job = replace(_foreign(order.id, queue, b"", found.now, order.nonce), tail=entry.raw)
            if job is None or not job.speaks(order.nonce):
                job = apply(order, job, found.now)
            if job is None:
                found.done.append(delivery)
            elif job.final:
                found.redo.append(job)
                found.done.append(delivery)
            else:
                holder = holders.get(job.worker) if job.state is State.RUNNING else None
                found.not_ended(delivery, queue, order, job, entry, holder)


def holds(hand: Hand, id: str, claim: int) -> bool:
    """Whether the job is still held under that claim."""
    held = hand.held.get(id)
    return held is not None and held.lease.claim == claim


def _is_held(job: Job, worker: str, hand: Hand) -> bool:
    return job.state is State.RUNNING and job.worker == worker and holds(hand, job.id, job.claim)


def _holding(doc: Worker | None, held: int) -> Worker | None:
    return None if doc is None or doc.gone or doc.held == held else replace(doc, held=held)


def _order(id: str, body: bytes, queue: str, now: int) -> Order | None:
    """What a message asks for; None: only a newer library can tell.

    Bytes that are no order become a job that will be failed.
    """
    try:
        return decode_order(body)
    except NewerVersion:
        return None
    except Undecodable:
        name = hashlib.sha256(id.encode(errors="surrogatepass") + b"\0" + body).hexdigest()[:32]
        job = _foreign(f"undecodable~{name}", queue, body, now, name)
        return Order(VERSION, OrderKind.NEW, job.id, name, job=job)


def _foreign(id: str, queue: str, spec: bytes, now: int, nonce: str) -> Job:
    return Job(VERSION, id, queue, "", spec, 0, State.READY, now, nonce)
