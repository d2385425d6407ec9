"""Settling: the record first, as one compare-and-set on the token; then what follows; the broker last.

A step is accepted when the record says `running` under (worker, claim), and also when it shows that this very step was
applied before; then, too, the rest is done (again). Whatever goes back keeps its message: the broker is asked to
release it, so between record and broker nothing can be lost: a message that comes back too early is sent back by its
record.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ... import faults
from ...core.record import Kind, Step
from ...core.status import State
from ...interfaces import Delivery
from .base import Hand
from .claim import Claiming
from .docs import VERSION, Fleet, Job, Order, OrderKind, died, ended, new_job
from .store import SOON, together

REMEMBERED = 10_000
"""Parked messages whose old places are remembered."""


class Settling(Claiming):
    """See `Engine`."""

    async def settle(self, worker: str, steps: Sequence[Step]) -> list[bool]:
        now = await self.now()
        parking = [step for step in steps if step.kind is Kind.PARK]
        known = await self._announce_parking(parking, now) if parking else set[str]()
        stored = await self._write_steps(worker, steps, now)
        done = [(step, job) for step, job in zip(steps, stored, strict=True) if job is not None]
        over = [job for step, job in done if step.kind is Kind.END]
        if over:
            await self._follow(over, now)
        await self._note_due(job for _, job in done)
        if parking:
            await self._unpark_known(parking, known, now)
        await self._let_go(self._hands.get(worker), done, now)
        if faults.active:
            faults.point("W9.settled")
            if any(step.kind is Kind.RETRY for step in steps):
                faults.point("R2.rescheduled")
        return [job is not None for job in stored]

    async def _write_steps(self, worker: str, steps: Sequence[Step], now: int) -> list[Job | None]:
        """The record after each step; None: refused."""
        stored: list[Job | None] = [None] * len(steps)
        open_ = list(range(len(steps)))
        me = (await self._store.workers([worker]))[0]
        here = me is not None and not me.gone
        while open_:
            entries = await self._store.jobs([steps[i].id for i in open_])
            writes: list[tuple[int, Job, object]] = []
            waiting: list[int] = []
            seen: set[str] = set()
            for i, entry in zip(open_, entries, strict=True):
                step = steps[i]
                if step.id in seen:
                    waiting.append(i)
                    continue
                seen.add(step.id)
                job = entry and entry.doc
                if entry is None or job is None or (job.worker, job.claim) != (worker, step.claim):
                    continue
                if job.state is not State.RUNNING:
                    stored[i] = job if _applied(step, job) else None
                elif here:
                    writes.append((i, after(step, job, worker, now), entry.revision))
            accepted = await together(self._store.put(job, revision, now) for _, job, revision in writes)
            for (i, job, _), ok in zip(writes, accepted, strict=True):
                if ok:
                    stored[i] = job
                else:  # a request to cancel, progress, or another owner: look again
                    waiting.append(i)
            open_ = waiting
        return stored

    async def _let_go(self, hand: Hand | None, done: Sequence[tuple[Step, Job]], now: int) -> None:
        """The broker's part: acknowledge what has ended, give back the rest."""
        if hand is None:
            return
        once = {job.id: (step, job) for step, job in done}
        ours = [(step, job, hand.held[job.id]) for step, job in once.values() if job.id in hand.held]
        ours = [one for one in ours if one[2].lease.claim == one[0].claim]
        await self._store.ack([held.delivery for step, _, held in ours if step.kind is Kind.END])
        parked = [(job, held.delivery) for step, job, held in ours if step.kind is Kind.PARK]
        for job, delivery in parked:
            self._parked[job.id] = (job.nonce, Delivery(delivery.handle, delivery.id, b""))
            if len(self._parked) > REMEMBERED:
                self._parked.pop(next(iter(self._parked)))
        await self._store.extend((delivery, max(1, (job.due or now) - now)) for job, delivery in parked)
        await self._store.release(
            (held.delivery, _delay(step, job, now))
            for step, job, held in ours
            if step.kind not in (Kind.END, Kind.PARK)
        )
        for _, job, _ in ours:
            hand.held.pop(job.id, None)
            hand.cancels.discard(job.id)
        if ours:
            self._work.set()

    # -- parking -----------------------------------------------------------------------------------------------------

    async def _announce_parking(self, steps: Sequence[Step], now: int) -> set[str]:
        """List what is about to be parked, so that whoever announces its task finds it.

        Which keys are announced already.
        """
        keys = {step.key for step in steps}
        for key in keys:
            await self._store.add(f"parked:{key}", [step.id for step in steps if step.key == key], now)
        fleet = await self._store.fleet()
        if not keys.issubset(fleet.parked):
            fleet = await self._store.change_fleet(lambda doc: _add_keys(doc, keys))
        return {key for key in keys if unparks(key, fleet)}

    async def _unpark_known(self, steps: Sequence[Step], known: set[str], now: int) -> None:
        """Somebody may have announced it after we looked and before it was parked."""
        fleet = await self._store.fleet()
        for key in {step.key for step in steps} - known:
            if unparks(key, fleet):
                await self._unpark(key, now)

    async def _unpark(self, key: str, now: int) -> None:
        """Ready whatever is parked under this key; the message that waited for the end of the parking is stale then."""
        ids = await self._store.all(f"parked:{key}")
        docs = [entry and entry.doc for entry in await self._store.jobs(ids)]
        jobs = [job for job in docs if job is not None and job.state is State.PARKED and job.park_key == key]
        jobs.sort(key=lambda job: job.born)
        await self._carry_out(
            [(Order(VERSION, OrderKind.UNPARK, job.id, self._nonce(), job.nonce), job) for job in jobs], now
        )
        await self._forget_due(jobs)
        # What was parked by this process: its first message returns to its old place, ahead of the second.
        parked = [(job, *self._parked.pop(job.id)) for job in jobs if job.id in self._parked]
        await self._store.release((delivery, 0.0) for job, nonce, delivery in parked if nonce == job.nonce)
        await self._store.remove(f"parked:{key}", ids)


def after(step: Step, job: Job, worker: str, now: int) -> Job:
    """The record once this step of its holder is applied."""
    if step.died:
        job = died(job, worker, step.reason)
    if step.kind is Kind.RELEASE:
        return replace(job, state=State.READY, progress=None)
    tail = job.tail if step.tail is None else step.tail
    if step.kind is Kind.END:
        follow = tuple(new_job(record, now) for record in step.follow)
        return ended(replace(job, tail=tail, result=step.result, follow=follow), step.state, now, step.ttl)
    job = replace(job, tail=tail, cancel=False, progress=None)
    if step.kind is Kind.PARK:
        since = now if job.parked_at is None else job.parked_at
        return replace(
            job, state=State.PARKED, parked_at=since, due=since + step.delay, park_key=step.key, parked=step.reason
        )
    if step.delay <= 0:
        return replace(job, state=State.READY, due=None)
    return replace(job, state=State.DUE, due=now + step.delay)


def _applied(step: Step, job: Job) -> bool:
    """Whether such a step was the last thing that this token did, so that the answer to it was lost (G14)."""
    return job.state is step.state if step.kind is Kind.END else not job.final


def _delay(step: Step, job: Job, now: int) -> float:
    if step.kind is Kind.RELEASE:
        return 0
    return SOON if job.due is None else max(SOON, (job.due - now) / 1000)


def unparks(key: str, fleet: Fleet) -> bool:
    """Whether what is parked under this key can run somewhere by now."""
    what, _, name = key.partition(":")
    return (
        name in fleet.tasks if what == "task" else what == "version" and name.isdecimal() and int(name) <= fleet.reads
    )


def _add_keys(fleet: Fleet, keys: set[str]) -> bool:
    new = sorted(keys.difference(fleet.parked))
    fleet.parked = (*fleet.parked, *new)
    return bool(new)
