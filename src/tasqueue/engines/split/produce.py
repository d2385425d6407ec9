"""Storing jobs, chains and groups.

A chain or group is all there or not at all though it is many writes: the first is one message, the expander, whose
body is the whole of it, in the queue of its first job and ahead of that. After it the link, the steps held back, then
the rest, each if absent. When the producer dies in between, whichever worker is handed the expander completes what is
missing; when it does not, the worker finds the link marked complete and drops the message.
"""

from __future__ import annotations

from collections.abc import Sequence

from ... import faults
from ...core.record import Link, Record
from ...errors import EngineUnavailable, Unsupported
from .docs import VERSION, Job, LinkDoc, Order, OrderKind, new_job
from .follow import Following
from .store import Entry, together


class Producing(Following):
    """Submit and expanders."""

    async def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        """See `Engine`. Raises Unsupported for a chain or group over `capabilities.max_link`."""
        for link in links:
            if link.n > self.capabilities.max_link:
                raise Unsupported(
                    f"{link.key[2:]!r} has {link.n:,} jobs, {self._store} takes {self.capabilities.max_link:,} at most"
                )
        try:
            await self._submit(records, links)
        except ConnectionError as error:
            text = str(error) if isinstance(error, EngineUnavailable) else f"{self._store}: {error}"
            raise EngineUnavailable(text, ids=[record.id for record in records]) from error

    async def _submit(self, records: Sequence[Record], links: Sequence[Link]) -> None:
        now = await self.now()
        new: dict[str, tuple[Link, Entry[LinkDoc] | None, str]] = {}
        torn: dict[str, LinkDoc] = {}
        for link, entry in zip(links, await together(self._store.link(link.key) for link in links), strict=True):
            if entry is None or (entry.doc is not None and entry.doc.gone(now)):
                new.setdefault(link.key, (link, entry, self._nonce()))
            elif entry.doc is not None and not entry.doc.complete:
                torn[link.key] = entry.doc
        nonces = {key: nonce for key, (_, _, nonce) in new.items()} | {key: doc.nonce for key, doc in torn.items()}
        jobs: list[Job] = []
        members: dict[str, list[Job]] = {key: [] for key in nonces}
        for record in records:
            if not record.link:
                jobs.append(new_job(record, now))
            elif record.link in nonces:
                jobs.append(new_job(record, now, nonces[record.link]))
                members[record.link].append(jobs[-1])
        orders = [_expander(*new[key], members[key], now) for key in new]
        if faults.active:
            faults.point("E2.before_write")
        await self._store.expand(orders)
        orders += [  # what an earlier call has left undone; its message is on its way already
            Order(VERSION, OrderKind.EXPAND, key, doc.nonce, link=doc, members=tuple(members[key]))
            for key, doc in torn.items()
        ]
        await self._expand(orders, jobs, now)
        if faults.active:
            faults.point("E3.written")

    async def _expand(self, orders: Sequence[Order], jobs: Sequence[Job], now: int) -> None:
        """Complete chains and groups: what their producer does, and again whoever is handed an expander.

        `jobs`: theirs, and plain ones among them, in the order in which they are to stand.
        """
        planted = await together(self._plant(order, now) for order in orders)
        going = {link.key: link for link in planted if link is not None and not link.complete}
        if faults.active and going:
            faults.point("G1.record_written")
        wanted = [job for job in jobs if not job.link or (job.link in going and not _over(going[job.link], job.pos))]
        await self._insert(wanted, now, anew=True)
        if faults.active and going:
            faults.point("G2.members_written")
        await together(
            self._store.change_link(key, lambda doc, nonce=link.nonce: _complete(doc, nonce), now)
            for key, link in going.items()
        )

    async def _plant(self, order: Order, now: int) -> LinkDoc | None:
        """The stored link of this expander; None when another one's stands there."""
        new = order.link
        assert new is not None
        while True:
            entry = await self._store.link(new.key)
            old = entry and entry.doc
            if old is not None and old.nonce == order.nonce:
                return old
            over = old is not None and old.nonce == order.of and old.gone(now)
            if not over and not (entry is None and order.of is None):
                return None
            if await self._store.put_link(new, entry and entry.revision, now):
                if old is not None:
                    await self._forget_results(old)
                return new


def _expander(link: Link, old: Entry[LinkDoc] | None, nonce: str, jobs: Sequence[Job], now: int) -> Order:
    doc = LinkDoc(
        VERSION,
        link.key,
        nonce,
        link.n,
        tuple(job.id for job in sorted(jobs, key=lambda job: job.pos)),
        tuple(new_job(record, now) for record in link.on_success),
        tuple(new_job(record, now) for record in link.on_error),
        link.result_ttl,
        link.failed_ttl,
        link.max_prev,
    )
    of = old.doc.nonce if old is not None and old.doc is not None else None
    return Order(VERSION, OrderKind.EXPAND, link.key, nonce, of, link=doc, members=tuple(jobs))


def _over(link: LinkDoc, pos: int) -> bool:
    """Whether that job has ended already, so that its record may even be gone."""
    return pos < link.pos or pos in link.members


def _complete(link: LinkDoc, nonce: str) -> bool:
    changed = link.nonce == nonce and not link.complete
    link.complete = link.complete or link.nonce == nonce
    return changed
