"""What only reads, and `watch`. Listings page through an index and look at each record, so a stale entry is never
shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence

from ...core.codec import NewerVersion, Undecodable
from ...core.record import LinkRow, Row
from ...core.status import ENDED, State, Status
from ...interfaces import Counts, Filter, Key, Message, WorkerRow
from .base import POLL_MAX
from .docs import Job, LinkDoc, Order, OrderKind, apply, could_start, decode_order
from .operate import Operating
from .store import AT_ONCE, message_id


class Reading(Operating):
    """See `Engine`."""

    async def get(self, ids: Sequence[str]) -> list[Row | None]:
        now = await self.now()
        return [None if job is None else row(job) for job in await self._visible(ids, now)]

    async def _visible(self, ids: Sequence[str], now: int) -> list[Job | None]:
        entries = await self._store.jobs(ids)
        docs = [entry and entry.doc for entry in entries]
        return [None if job is None or job.gone(now) else job for job in docs]

    async def get_link(self, key: str) -> LinkRow | None:
        entry = await self._store.link(key)
        link = entry and entry.doc
        return None if link is None or link.gone(await self.now()) else link_row(link)

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        entry = await self._store.link(key)
        link = entry and entry.doc
        if link is None or link.gone(await self.now()) or key.startswith("c:"):
            return []
        saved = await self._saved(link, start, limit)
        return [item if start + i in link.members else None for i, item in enumerate(saved)]

    async def pending(self, queue: str, limit: int, after: str | None) -> list[Row]:
        now = await self.now()
        rows: list[Row] = []
        last = None
        if after is not None:
            job = (await self._visible([after], now))[0]
            if job is not None and job.queue == queue and could_start(job, now):
                last = message_id(job.id, job.nonce)
        while len(rows) < limit:
            messages = await self._store.pending(queue, last)
            rows.extend(await self._startable(messages, now))
            if len(messages) < AT_ONCE:
                break
            last = messages[-1].id
        return rows[:limit]

    async def _startable(self, messages: Sequence[Message], now: int) -> list[Row]:
        """Of these messages, those whose record (or the order, where it is still to be applied) says that it could
        start.
        """
        read = map(_order, await self._store.bodies(messages))
        orders = [order for order in read if order is not None and order.kind is not OrderKind.EXPAND]
        rows: dict[str, Row] = {}
        for order, entry in zip(orders, await self._store.jobs([order.id for order in orders]), strict=True):
            job = entry and entry.doc
            if job is None or not job.speaks(order.nonce):
                job = apply(order, job, now)
            if job is not None and could_start(job, now):
                rows.setdefault(job.id, row(job))
        return list(rows.values())

    async def ended(self, state: State, limit: int, after: str | None) -> list[str]:
        found: list[str] = []
        async for job in self._listed(f"ended:{int(state)}", after):
            if job.state is state:
                found.append(job.id)
                if len(found) == limit:
                    break
        return found

    async def jobs(self, which: Filter, limit: int, after: str | None) -> list[Row]:
        found: list[Row] = []
        async for job in self._listed("jobs", after):
            one = row(job)
            if (
                (which.states is None or one.state in which.states)
                and (which.queue is None or one.queue == which.queue)
                and (which.task is None or one.task == which.task)
            ):
                found.append(one)
                if len(found) == limit:
                    break
        return found

    async def _listed(self, index: str, after: str | None) -> AsyncIterator[Job]:
        """The jobs of an index that are still there, newest first, read a page ahead."""
        now = await self.now()
        while page := await self._store.page(index, AT_ONCE, after):
            for job in await self._visible(page, now):
                if job is not None:
                    yield job
            after = page[-1]

    async def counts(self) -> Counts:
        queues: defaultdict[str, Counter[State]] = defaultdict(Counter)
        ends: Counter[State] = Counter()
        async for job in self._listed("jobs", None):
            if job.final:
                ends[job.state] += 1
            else:
                queues[job.queue][row(job).state] += 1
        return Counts({name: dict(count) for name, count in queues.items()}, {state: ends[state] for state in ENDED})

    async def workers(self) -> list[WorkerRow]:
        found = await self._store.workers(sorted(await self._store.all("workers")))
        return [
            WorkerRow(doc.id, doc.deadline, doc.info, len(hand.held) if (hand := self._hands.get(doc.id)) else doc.held)
            for doc in found
            if doc is not None and not doc.gone
        ]

    async def tasks(self) -> dict[str, str]:
        return dict((await self._store.fleet()).tasks)

    async def watch(self, keys: Sequence[Key], until: int | None) -> None:
        """Woken by what this object does itself; else it returns, for nothing perhaps, after a pause that backs off."""
        looked = self._ends.stamp
        if await self._any_over(keys):
            return
        now = await self.now()
        await self._ends.sleep(POLL_MAX if until is None else max(0.0, (until - now) / 1000), looked)

    async def _any_over(self, keys: Sequence[Key]) -> bool:
        now = await self.now()
        jobs = await self._visible([id for kind, id in keys if kind == "job"], now)
        if any(job is None or job.final for job in jobs):
            return True
        for kind, id in keys:
            if kind != "job":
                entry = await self._store.link(f"{kind[0]}:{id}")
                link = entry and entry.doc
                if link is None or link.gone(now) or link.status is not Status.PROCESSING:
                    return True
        return False


def _order(body: bytes | None) -> Order | None:
    try:
        return None if body is None else decode_order(body)
    except (NewerVersion, Undecodable):
        return None


def row(job: Job) -> Row:
    """As readers see it."""
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
        job.worker if job.claim else job.died_with,
        job.claimed_at if job.claim else None,
        job.ended_at,
        job.deaths,
        job.parked if job.state is State.PARKED else "",
        job.progress,
        job.task,
        job.link,
        job.pos,
    )


def link_row(link: LinkDoc) -> LinkRow:
    """As readers see it."""
    return LinkRow(
        link.key,
        link.n,
        link.status,
        link.pos,
        link.generation,
        {pos: ENDED[State(state)] for pos, state in link.members.items()},
    )
