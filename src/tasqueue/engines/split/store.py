"""The pair behind its typed stub: keys and indexes, documents and messages, time limits. Nothing else calls a user's
code.

A call that raises an OSError (ConnectionError and TimeoutError are) or outlasts `timeout` becomes `EngineUnavailable`.
Every write is a compare-and-set; a conflict is an answer here, never an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from ...core.codec import NewerVersion, Undecodable
from ...core.status import State
from ...errors import EngineUnavailable, Unsupported
from ...interfaces import Broker, Conflict, Delivery, Message, Results, Revision
from .docs import KEEP, Fleet, Job, LinkDoc, Order, Worker, decoder, encode

D = TypeVar("D")
T = TypeVar("T")
S = TypeVar("S", int, float)

AT_ONCE = 500
"""Calls under way at the same time, and ids asked for in one."""
EXPANDER_PRIORITY = 101
"""Above all that users can ask for: what completes a chain or group comes before its jobs."""
SOON = 1e-7
"""Seconds: a delay that has no length, but means a new place."""
ASIDE = b"\xc1tasqueue:aside"
"""The body of a message whose order is kept in the results, under the message's id. Not msgpack, as all orders are."""


class Entry(NamedTuple, Generic[D]):
    """A stored document and its revision; `doc` is None when it cannot be read here: `raw` tells why not."""

    doc: D | None
    revision: Revision
    raw: bytes
    newer: bool = False


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they return, in order; all have ended when this returns or raises.

    They are begun a few hundred at a time.
    """
    rest = iter(calls)
    done: list[T] = []
    while chunk := list(islice(rest, AT_ONCE)):
        if len(chunk) == 1:
            done.append(await chunk[0])
            continue
        for outcome in await asyncio.gather(*chunk, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            done.append(outcome)
    return done


class Store:
    """A broker and results under one namespace."""

    def __init__(self, broker: Broker, results: Results, timeout: float, namespace: str) -> None:
        self.broker = broker
        self.results = results
        self.timeout = timeout
        self.namespace = namespace

    async def ask(self, call: Awaitable[T], limit: float | None = None) -> T:
        """A user's call under the time limit. EngineUnavailable."""
        limit = self.timeout if limit is None else limit
        try:
            async with asyncio.timeout(limit):
                return await call
        except TimeoutError as error:
            raise EngineUnavailable(f"no answer within {limit:g} s from {self}: {error}") from error
        except OSError as error:
            if isinstance(error, EngineUnavailable):
                raise
            raise EngineUnavailable(f"{self}: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{_shown(self.broker)} + {_shown(self.results)}"

    # -- documents ----------------------------------------------------------------------------------------------------

    async def jobs(self, ids: Sequence[str]) -> list[Entry[Job] | None]:
        """Records by id."""
        return await self.read([f"j:{id}" for id in ids], _job)

    async def link(self, key: str) -> Entry[LinkDoc] | None:
        """A chain's or group's record."""
        return (await self.read([f"l:{key}"], _link))[0]

    async def workers(self, ids: Sequence[str]) -> list[Worker | None]:
        """Workers by id."""
        return [entry and entry.doc for entry in await self.read([f"w:{id}" for id in ids], _worker)]

    async def fleet(self) -> Fleet:
        """The one record that all share. Unsupported when a newer library wrote it."""
        return _fleet_of((await self.read(["fleet"], _fleet))[0])

    async def get(self, keys: Sequence[str]) -> list[tuple[bytes, Revision] | None]:
        """Bytes by key."""
        found: list[tuple[bytes, Revision] | None] = []
        for at in range(0, len(keys), AT_ONCE):
            names = [f"{self.namespace}:{key}" for key in keys[at : at + AT_ONCE]]
            found.extend(await self.ask(self.results.get(names)))
        return found

    async def read(self, keys: Sequence[str], decode: Callable[[bytes], D]) -> list[Entry[D] | None]:
        """Documents by key."""
        return [item and _entry(item, decode) for item in await self.get(keys)] if keys else []

    async def set(self, key: str, value: bytes, expect: Revision | None, ttl: float | None = None) -> bool:
        """Write bytes; False when the revision is another."""
        try:
            await self.ask(self.results.set(f"{self.namespace}:{key}", value, expect=expect, ttl=ttl))
        except Conflict:
            return False
        return True

    async def put(self, job: Job, expect: Revision | None, now: int) -> bool:
        """Write a record; False when the revision is another."""
        return await self.set(f"j:{job.id}", encode(job), expect, _ttl(job.gone_at, now))

    async def put_link(self, link: LinkDoc, expect: Revision | None, now: int) -> bool:
        """Write a link; False when the revision is another."""
        return await self.set(f"l:{link.key}", encode(link), expect, _ttl(link.gone_at, now))

    async def change_link(self, key: str, change: Callable[[LinkDoc], bool], now: int) -> LinkDoc | None:
        """The link once `change` was applied to it (it says whether there was anything to change); None when there is
        none.
        """
        while True:
            entry = await self.link(key)
            if entry is None or entry.doc is None:
                return None
            if not change(entry.doc) or await self.put_link(entry.doc, entry.revision, now):
                return entry.doc

    async def change_worker(self, id: str, change: Callable[[Worker | None], Worker | None]) -> Worker | None:
        """The worker as `change` made it (None: leave it), or as it is."""
        while True:
            entry = (await self.read([f"w:{id}"], _worker))[0]
            doc = entry and entry.doc
            new = change(doc)
            if new is None:
                return doc
            ttl = (KEEP + 10 * new.lease) / 1000 if new.gone else None
            if await self.set(f"w:{id}", encode(new), entry and entry.revision, ttl):
                return new

    async def change_fleet(self, change: Callable[[Fleet], bool]) -> Fleet:
        """The fleet's record once `change` was applied to it (it says whether there was anything to change)."""
        while True:
            entry = (await self.read(["fleet"], _fleet))[0]
            doc = _fleet_of(entry)
            if not change(doc) or await self.set("fleet", encode(doc), entry and entry.revision):
                return doc

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget these."""
        for at in range(0, len(keys), AT_ONCE):
            await self.ask(self.results.delete([f"{self.namespace}:{key}" for key in keys[at : at + AT_ONCE]]))

    # -- indexes ------------------------------------------------------------------------------------------------------

    async def add(self, index: str, ids: Sequence[str], at: float) -> None:
        """Add to an index, or move within it; a due date sorts with `at` negative, so that "newest first" is earliest
        first.
        """
        for start in range(0, len(ids), AT_ONCE):
            await self.ask(self.results.index_add(f"{self.namespace}:{index}", ids[start : start + AT_ONCE], at))

    async def remove(self, index: str, ids: Sequence[str]) -> None:
        """Remove from an index."""
        for start in range(0, len(ids), AT_ONCE):
            await self.ask(self.results.index_remove(f"{self.namespace}:{index}", ids[start : start + AT_ONCE]))

    async def page(self, index: str, limit: int, after: str | None = None) -> Sequence[str]:
        """A page of an index."""
        return await self.ask(self.results.index_page(f"{self.namespace}:{index}", limit, after))

    async def all(self, index: str) -> list[str]:
        """All of an index."""
        ids: list[str] = []
        while page := await self.page(index, AT_ONCE, ids[-1] if ids else None):
            ids.extend(page)
            if len(page) < AT_ONCE:
                break
        return ids

    # -- messages -----------------------------------------------------------------------------------------------------

    def queue(self, name: str) -> str:
        """A queue as the broker knows it."""
        return f"{self.namespace}:{name}"

    async def send(self, orders: Sequence[tuple[Order, Job]]) -> None:
        """Store each order in its job's queue, due as the job is: one call per queue."""
        queues: dict[str, list[Message]] = {}
        for order, job in orders:
            queues.setdefault(job.queue, []).append(
                Message(message_id(order.id, order.nonce), encode(order), job.priority, job.due)
            )
        await together(self._enqueue(queue, batch) for queue, batch in queues.items())

    async def _enqueue(self, queue: str, messages: Sequence[Message]) -> None:
        messages = await self._put_aside(messages)
        for at in range(0, len(messages), AT_ONCE):
            await self.ask(self.broker.enqueue(self.queue(queue), messages[at : at + AT_ONCE]))

    async def _put_aside(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Of those that are larger than the broker takes, the order is stored first, in the results."""
        most = getattr(self.broker, "max_body", None)
        if most is None or all(len(message.body) <= most for message in messages):
            return messages
        large = [message for message in messages if len(message.body) > most]
        await together(self.set(f"o:{message.id}", message.body, None) for message in large)
        return [message if len(message.body) <= most else replace(message, body=ASIDE) for message in messages]

    async def bodies(self, messages: Sequence[Message] | Sequence[Delivery]) -> list[bytes | None]:
        """The order of each, encoded. None: it was put aside and is gone, so this is a copy of one that is done."""
        aside = [message.id for message in messages if message.body == ASIDE]
        found = dict(zip(aside, await self.get([f"o:{id}" for id in aside]), strict=True)) if aside else {}
        return [
            message.body if message.body != ASIDE else item[0] if (item := found[message.id]) else None
            for message in messages
        ]

    async def expand(self, orders: Sequence[Order]) -> None:
        """Store each expander in the queue of the first of its jobs that can start."""
        queues: dict[str, list[Message]] = {}
        for order in orders:
            first = next(job for job in order.members if job.state is not State.HELD)
            message = Message(message_id(order.id, order.nonce), encode(order), EXPANDER_PRIORITY)
            queues.setdefault(first.queue, []).append(message)
        await together(self._enqueue(queue, batch) for queue, batch in queues.items())

    async def pending(self, queue: str, after: str | None) -> Sequence[Message]:
        """A page of the messages that could be consumed now, in order."""
        return await self.ask(self.broker.get_pending(self.queue(queue), AT_ONCE, after))

    async def consume(self, queue: str, limit: int, lease: int) -> Sequence[Delivery]:
        """At most `limit` messages, leased for that many ms."""
        return await self.ask(self.broker.consume(self.queue(queue), limit, lease / 1000))

    async def extend(self, leases: Iterable[tuple[Delivery, int]]) -> None:
        """Hold on to each for so many ms more; then it comes back to its old place."""
        await self._by_span(leases, lambda batch, ms: self.broker.extend(batch, ms / 1000))

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these. What was put aside goes first: should they come back, there is nothing left to do."""
        if aside := [f"o:{delivery.id}" for delivery in deliveries if delivery.body == ASIDE]:
            await self.delete(aside)
        if deliveries:
            await self.ask(self.broker.ack(deliveries))

    async def release(self, delays: Iterable[tuple[Delivery, float]]) -> None:
        """Give each back, with its delay in seconds; 0 is its old place."""
        await self._by_span(delays, self.broker.release)

    async def _by_span(
        self, spans: Iterable[tuple[Delivery, S]], call: Callable[[Sequence[Delivery], S], Awaitable[None]]
    ) -> None:
        """One call for all deliveries of the same span."""
        batches: dict[S, list[Delivery]] = {}
        for delivery, span in spans:
            batches.setdefault(span, []).append(delivery)
        await together(self.ask(call(batch, span)) for span, batch in batches.items())


def _shown(half: Any) -> str:
    """Its URL, which has no password, where it has one."""
    return getattr(half, "url", type(half).__name__)


_job = decoder(Job)
_link = decoder(LinkDoc)
_worker = decoder(Worker)
_fleet = decoder(Fleet)


def message_id(id: str, nonce: str) -> str:
    """A message's id: another for each incarnation of a job, so that a broker that drops repeated ids drops only
    repetitions.
    """
    return f"{id}/{nonce}"


def _fleet_of(entry: Entry[Fleet] | None) -> Fleet:
    if entry is not None and entry.newer:
        raise Unsupported(
            "these results were used by a newer tasqueue, in a format that this one cannot read: upgrade it"
        )
    return (entry and entry.doc) or Fleet()


def _ttl(gone_at: int | None, now: int) -> float | None:
    return None if gone_at is None else (max(0, gone_at - now) + KEEP) / 1000


def _entry(item: tuple[bytes, Revision], decode: Callable[[bytes], D]) -> Entry[D]:
    data, revision = item
    try:
        return Entry(decode(data), revision, data)
    except Undecodable:
        return Entry(None, revision, data)
    except NewerVersion:
        return Entry(None, revision, data, newer=True)
