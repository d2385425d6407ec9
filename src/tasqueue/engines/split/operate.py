"""Operators' verbs. Each is a compare-and-set on one record, then what follows from it; repeated, it finishes what an
earlier one left undone.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ...core.status import ENDED, State, Status
from ...interfaces import Cancelled, PauseRow
from .docs import VERSION, Fleet, Job, LinkDoc, Order, OrderKind, Worker, ended, reopened
from .lease import Leasing
from .links import end_link
from .store import Entry, together

MOST = 1_000
"""What one call forgets."""


class Operating(Leasing):
    """See `Engine`."""

    async def cancel(self, ids: Sequence[str], ttl: int | None) -> list[Cancelled]:
        now = await self.now()
        answers = dict.fromkeys(ids, Cancelled())
        open_ = list(answers)
        while open_:
            entries = dict(zip(open_, await self._store.jobs(open_), strict=True))
            docs = [entry.doc for entry in entries.values() if entry is not None and entry.doc is not None]
            holders = await self._holders({job.worker for job in docs if job.state is State.RUNNING}, now)
            # An ended one is told again: its canceller may have died before it told the chain or group.
            await self._follow([job for job in docs if job.state is State.CANCELLED and not job.gone(now)], now)
            writes: list[tuple[Job, Entry[Job], Job]] = []
            for entry in entries.values():
                if entry is None or entry.doc is None or entry.doc.final:
                    continue
                job = entry.doc
                asked = job.state is State.RUNNING and not holders[job.worker].gone
                new = replace(job, cancel=True) if asked else ended(job, State.CANCELLED, now, ttl)
                writes.append((job, entry, new))
            # Nobody is ever handed a message of a held one, to do again what follows: so it is listed beforehand.
            await self._list([new for job, _, new in writes if job.state is State.HELD])
            written = await together(self._store.put(new, entry.revision, now) for _, entry, new in writes)
            done = [pair for pair, ok in zip(writes, written, strict=True) if ok]
            open_ = [job.id for (job, _, _), ok in zip(writes, written, strict=True) if not ok]
            over = [new for _, _, new in done if new.final]
            await self._forget_due(job for job, _, new in done if new.final)
            await self._follow(over, now)
            await together(self._ask_worker(new) for _, _, new in done if not new.final)
            for _, _, new in done:
                answers[new.id] = Cancelled(done=new.final, asked=not new.final)
        once: set[str] = set()
        return [Cancelled() if answers[id].done and (id in once or once.add(id)) else answers[id] for id in ids]

    async def _ask_worker(self, job: Job) -> None:
        def ask(doc: Worker | None) -> Worker | None:
            return None if doc is None else replace(doc, cancels={**doc.cancels, job.id: job.claim})

        await self._store.change_worker(job.worker, ask)

    async def cancel_link(self, key: str, ttl: int | None) -> bool:
        now = await self.now()
        entry = await self._store.link(key)
        link = entry and entry.doc
        if link is None or link.status is not Status.PROCESSING:
            return False
        if key.startswith("g:"):
            await self.cancel([id for pos, id in enumerate(link.ids) if pos not in link.members], ttl)
            return True
        # The step first, then the whole: who dies in between has left it open, and can be repeated.
        step = -1
        while link is not None and step != link.pos < link.n:
            step = link.pos
            await self.cancel([link.ids[step]], ttl)
            link = await self._store.change_link(key, lambda doc: _cancelled(doc, now), now)
        if link is not None:
            await self._link_ended(link, now)
        return True

    async def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        """Repeated, it is False, but completes what an earlier call has left undone in the chain or group."""
        now = await self.now()
        entry = (await self._store.jobs([id]))[0]
        job = _reopenable(entry, ended_at, now)
        if job is None:
            if entry is not None and entry.doc is not None and entry.doc.round and entry.doc.link:
                await self._tell_reopened(entry.doc, now)
            return False
        # In case that whoever ended it died on the way: nothing of this end may come later.
        await self._follow([job], now)
        found = await self._store.link(job.link) if job.link else None
        link = found and found.doc
        alive = link is not None and link.nonce == job.batch and not link.gone(now)
        if link is not None and alive and job.link.startswith("c:") and job.pos > link.pos:
            new = await self._reopen_held(id, ended_at, tail, now)
        else:
            order = Order(VERSION, OrderKind.REOPEN, id, self._nonce(), job.nonce, tail)
            (new,) = await self._carry_out([(order, job)], now)
        if new is not None and alive:
            await self._tell_reopened(new, now)
        return new is not None

    async def _tell_reopened(self, job: Job, now: int) -> None:
        await self._link_reopened(job, now)
        await self._go_on(job.link, now)

    async def _reopen_held(self, id: str, ended_at: int, tail: bytes, now: int) -> Job | None:
        while True:
            entry = (await self._store.jobs([id]))[0]
            job = _reopenable(entry, ended_at, now)
            if entry is None or job is None:
                return None
            new = reopened(job, self._nonce(), tail)
            if await self._store.put(new, entry.revision, now):
                return new

    async def _go_on(self, key: str, now: int) -> None:
        """Ready the step that a chain is at if it is held: the chain may have come there while it was not going on."""
        entry = await self._store.link(key)
        link = entry and entry.doc
        if link is None or key.startswith("g:") or link.status is not Status.PROCESSING or link.pos >= link.n:
            return
        found = (await self._store.jobs([link.ids[link.pos]]))[0]
        step = found and found.doc
        if step is not None and step.state is State.HELD and step.batch == link.nonce:
            order = Order(VERSION, OrderKind.NEXT, step.id, self._nonce(), step.nonce, step.prev)
            await self._carry_out([(order, step)], now)

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        now = await self.now()
        deleted: set[str] = set()
        open_ = list(dict.fromkeys(ids))
        while open_:
            entries = await self._store.jobs(open_)
            jobs = [
                (entry.doc, entry)
                for entry in entries
                if entry is not None and entry.doc is not None and entry.doc.final and not entry.doc.gone(now)
            ]
            await self._follow([job for job, _ in jobs], now)
            written = await together(self._store.put(_stripped(job, now), entry.revision, now) for job, entry in jobs)
            open_ = [job.id for (job, _), ok in zip(jobs, written, strict=True) if not ok]
            gone = [job for (job, _), ok in zip(jobs, written, strict=True) if ok]
            await self._unlist(gone)
            deleted.update(job.id for job in gone)
        return [id in deleted and not deleted.discard(id) for id in ids]

    async def _unlist(self, jobs: Sequence[Job]) -> None:
        """Out of every index: a reopened job is still in that of its first end, since readers look at the record."""
        ids = [job.id for job in jobs]
        for index in ("jobs", *(f"ended:{int(state)}" for state in ENDED)):
            await self._store.remove(index, ids)
        await self._store.remove("gone", [f"{job.gone_at}:j:{job.id}" for job in jobs if job.gone_at is not None])
        self._ends.set()

    async def pause(self, queue: str, reason: str, by: str) -> None:
        now = await self.now()

        def add(doc: Fleet) -> bool:
            doc.paused[queue] = (reason, by, now)
            return True

        await self._store.change_fleet(add)

    async def resume(self, queue: str) -> None:
        await self._store.change_fleet(lambda doc: doc.paused.pop(queue, None) is not None)
        self._work.set()

    async def paused(self) -> list[PauseRow]:
        fleet = await self._store.fleet()
        return [PauseRow(queue, *fleet.paused[queue]) for queue in sorted(fleet.paused)]

    async def drain(self, worker: str) -> bool:
        def ask(doc: Worker | None) -> Worker | None:
            return None if doc is None or doc.gone else replace(doc, drain=True)

        doc = await self._store.change_worker(worker, ask)
        return doc is not None and not doc.gone

    async def prune(self) -> int:
        """Records stay behind as tombstones for an hour, by the ttl that they were written with."""
        now = await self.now()
        members = [m for m in await self._store.page("gone", MOST) if int(m.partition(":")[0]) <= now]
        names = [m.partition(":")[2] for m in members]
        jobs = [
            entry.doc
            for entry in await self._store.jobs([name[2:] for name in names if name.startswith("j:")])
            if entry is not None and entry.doc is not None and entry.doc.gone(now)
        ]
        await self._unlist(jobs)
        links = 0
        for name in names:
            entry = None if name.startswith("j:") else await self._store.link(name)
            if entry is not None and entry.doc is not None and entry.doc.gone(now):
                await self._forget_link(entry.doc)
                links += 1
        await self._store.remove("gone", members)
        self._ends.set()
        return len(jobs) + links


def _cancelled(link: LinkDoc, now: int) -> bool:
    if link.status is not Status.PROCESSING:
        return False
    end_link(link, Status.CANCELLED, now)
    return True


def _reopenable(entry: Entry[Job] | None, ended_at: int, now: int) -> Job | None:
    job = entry and entry.doc
    if job is None or job.state not in (State.FAILED, State.CANCELLED) or job.gone(now):
        return None
    return job if job.ended_at == ended_at else None


def _stripped(job: Job, now: int) -> Job:
    """A tombstone: what tells late messages apart, and nothing else."""
    return replace(job, gone_at=now, spec=b"", tail=b"", prev=None, result=None, follow=())
