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

Taken is: one compare-and-set to (worker, claim number, running). Until a delivery has been sorted it is `loose`: a claim that is
repeated after an error goes on with those, and a worker that retires gives them back.
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
from .store import SOON, Entry, together

NEWER_LATER = 5.0
"""Seconds after which a message that only a newer library can read is offered again."""


class Sorted(msgspec.Struct):
    """What becomes of some deliveries. `taken` are to be written; `redo` are ended ones."""

    taken: list[tuple[Delivery, str, Job, Entry[Job] | None, Order]] = []
    redo: list[Job] = []
    done: list[Delivery] = []
    back: list[tuple[Delivery, float]] = []
    expand: list[Order] = []
    adopted: list[tuple[Delivery, str, Job]] = []


class Claiming(Producing):
    """See `Engine`."""

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        me = (await self._store.workers([worker]))[0]
        if me is None or me.gone:
            raise WorkerGone(f"worker {worker!r} was reclaimed, retired or never registered")
        hand = self._hand(worker)
        again = number <= hand.last
        hand.last = max(hand.last, number)
        self._work.clear()
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
        now = await self.now()
        dues = await together(self._next_due(f"due:{queue}", now) for queue in open_)
        if faults.active:
            faults.point("W2.claimed")
        return Claim(leases, min((due for due in dues if due is not None), default=None))

    async def _consume(self, hand: Hand, queue: str, limit: int, lease: int) -> int:
        deliveries = await self._store.consume(queue, limit, lease)
        hand.loose.extend((queue, delivery) for delivery in deliveries)
        return len(deliveries)

    async def _sort_loose(self, me: Worker, number: int, hand: Hand) -> None:
        """Sort what is loose, one delivery per job; those whose record changed meanwhile stay loose."""
        now = await self.now()
        found = await self._sorted(me, number, hand, now)
        for order in found.expand:
            await self._expand([order], order.members, now)
        fresh = [job for _, _, job, entry, _ in found.taken if entry is None]
        await self._store.add("jobs", [job.id for job in fresh], now)
        written = await together(
            self._store.put(job, entry and entry.revision, now) for _, _, job, entry, _ in found.taken
        )
        if found.redo:
            await self._follow(found.redo, now)
        await self._store.ack(found.done)
        await self._store.release(found.back)
        through = {id(delivery) for delivery in found.done} | {id(delivery) for delivery, _ in found.back}
        for (delivery, queue, job, _, order), ok in zip(found.taken, written, strict=True):
            if ok:
                through.add(id(delivery))
                self._take(hand, delivery, queue, job)
                if order.kind is OrderKind.REOPEN and job.link:
                    await self._link_reopened(job, now)
        for delivery, queue, job in found.adopted:
            through.add(id(delivery))
            self._take(hand, delivery, queue, job)
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
        )
        hand.held[job.id] = Held(lease, delivery)
        if job.cancel:
            hand.cancels.add(job.id)

    async def _sorted(self, me: Worker, number: int, hand: Hand, now: int) -> Sorted:
        found = Sorted()
        orders: dict[str, tuple[Delivery, str, Order]] = {}
        for queue, delivery in hand.loose:
            order = _order(delivery, queue, now)
            if order is None:
                found.back.append((delivery, NEWER_LATER))
            elif order.kind is OrderKind.EXPAND:
                found.expand.append(order)
                found.done.append(delivery)
            elif order.id not in orders:
                orders[order.id] = (delivery, queue, order)
        entries = dict(zip(orders, await self._store.jobs(list(orders)), strict=True))
        docs = [entry.doc for entry in entries.values() if entry is not None and entry.doc is not None]
        others = {job.worker for job in docs if job.state is State.RUNNING} - {me.id}
        holders = await self._holders(others, now)
        for id_, (delivery, queue, order) in orders.items():
            entry = entries[id_]
            if entry is not None and entry.newer:
                found.back.append((delivery, NEWER_LATER))
                continue
            job = entry and entry.doc
            if (
                entry is not None and job is None
            ):  # kept for whoever looks: its tail cannot be read, so it will be failed
                job = replace(_foreign(id_, queue, b"", now, order.nonce), tail=entry.raw)
            if job is None or job.nonce != order.nonce:
                job = apply(order, job, now)
            if job is None:
                found.done.append(delivery)
            elif job.final:
                found.redo.append(job)
                found.done.append(delivery)
            else:
                self._sort_open(found, (delivery, queue, order), job, entry, me, number, hand, holders, now)
        return found

    def _sort_open(
        self,
        found: Sorted,
        what: tuple[Delivery, str, Order],
        job: Job,
        entry: Entry[Job] | None,
        me: Worker,
        number: int,
        hand: Hand,
        holders: Mapping[str, Holder],
        now: int,
    ) -> None:
        """A delivery that speaks for a job that has not ended."""
        delivery, queue, order = what
        if job.state is State.RUNNING and job.worker == me.id:
            if job.id in hand.held or job.claim == number:
                found.adopted.append((delivery, queue, job))
                return
        elif job.state is State.RUNNING:
            holder = holders[job.worker]
            if not holder.gone:
                found.back.append((delivery, max(SOON, (holder.deadline - now) / 1000)))
                return
            if not holder.retired:
                job = died(job, holder.id, holder.cause)
        elif job.due is not None and job.due > now:
            found.back.append((delivery, (job.due - now) / 1000))
            return
        taken = replace(
            job,
            state=State.RUNNING,
            worker=me.id,
            claim=number,
            claimed_at=now,
            due=None,
            park_key="",
            parked="",
            progress=None,
        )
        found.taken.append((delivery, queue, taken, entry, order))


def _order(delivery: Delivery, queue: str, now: int) -> Order | None:
    """What a message asks for; None: only a newer library can tell. Bytes that are no order become a job that will be failed."""
    try:
        return decode_order(delivery.body)
    except NewerVersion:
        return None
    except Undecodable:
        name = hashlib.sha256(delivery.id.encode(errors="surrogatepass") + b"\0" + delivery.body).hexdigest()[:32]
        job = _foreign(f"undecodable~{name}", queue, delivery.body, now, name)
        return Order(VERSION, OrderKind.NEW, job.id, name, job=job)


def _foreign(id: str, queue: str, spec: bytes, now: int, nonce: str) -> Job:
    return Job(VERSION, id, queue, "", spec, 0, State.READY, now, nonce)
