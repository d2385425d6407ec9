"""Messages in a JetStream work queue (`interfaces.Broker`). `names` has the layout, `lanes` the consumers.

What is one step, what is ordered, and what a crash leaves:

    enqueue         one flight of publishes; each is stored, or not, by itself, in order. It returns when all are
                    acknowledged by the stream (with replicas: by most of them). A crash, or a lost reply: some are
                    stored. Asked again (by the connection, after a loss, or by the caller), a message that could start
                    is stored a second time (a copy, which the record tells); one that is due later takes the place of
                    its earlier self, since it has a subject of its own.
    first use       of a priority in a queue: a mark is stored first, and told to every worker. A crash after it leaves
                    a mark, which costs a worker one consumer.
    due messages    stand on their own subject with `Nats-Schedule: @at`; the server puts each at the end of its queue
                    when it is due (one step of its own), never early, and late by 0.25 s at most. So that this does not
                    show with short delays, what is due in less than NEAR stands in its queue at once, with its date:
                    whoever is handed it too early gives it back for the rest of the time, and whoever is handed it in
                    time moves it behind those that wait (stored anew, then acknowledged).
    consume         a pull without waiting, priority by priority, higher first. A lost reply or a crash: what was
                    handed out comes back to its old place when its lease ends. Redelivered messages come first, but
                    among each other in the order in which they came back: so when a pull brings any, more of them are
                    looked at (LOOK), the lowest places are kept, and the others go back.
                    A consumer's own lease is the longest that anybody has asked for; a shorter one is set with a nak
                    just after the pull, so a crash between the two costs the longer one. Whoever raises it lengthens,
                    once, what is under way. An empty answer takes 1.5 ms: what was stored just before is not
                    overlooked.
    extend          `+WPI`, or for another span than the consumer's own a nak with that delay, which keeps the place.
                    Not awaited: the server reads it in order.
    ack             `+ACK`, likewise. One that is lost with the connection: the message comes back, and its record says
                    that it is done.
    release         at once: a nak, which has taken effect when this returns. With a delay: the same message is stored
                    anew, behind the others (due later, if the delay is not over), then the old one is acknowledged. A
                    crash in between leaves both, with the same id.

JetStream does not fence: a handle of an earlier delivery acts on the message wherever it is by then. The record in the
results does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from ...interfaces import Delivery, Durability, Message
from .connection import PATIENCE, Connection
from .durability import examine
from .lanes import MOMENT, Consumer, create
from .names import Lane, Place, due_of, fingerprint, pack, place, token, unpack
from .pending import Pending
from .queues import Queue, Queues
from .session import Call, Lost
from .streams import ensure

T = TypeVar("T")
S = TypeVar("S")

LOOK = 100
"""Redelivered messages that a pull looks at beyond what was asked for, to find those with the oldest places."""
CLOSE = 0.02
"""Parts of the consumer's lease by which another one may differ and count as the same."""
NEAR = 1.0
"""Seconds: what is due sooner stands in its queue already."""
FAR = 5.0
"""Seconds: what is earlier than that comes from a clock that was set, or is no message of ours; its record knows."""
INSTANT = 0.001
"""Seconds: a shorter delay is over when the message has come back."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Found(NamedTuple):
    handle: str
    data: bytes
    place: Place
    due: float
    """UNIX seconds; 0: at once."""


def _since(one: _Found) -> tuple[float, int]:
    """Since when it could start: its place among the others."""
    return one.due or one.place.at, one.place.sequence


class NatsBroker:
    """See `interfaces.Broker`, and `engines.split` for what is optional there."""

    shared = True
    durable = True
    max_link = 1_000
    """A chain or group travels as one message."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace
        self._lease = 10.0
        """Seconds: of the last delivery; for a consumer that is watched before anything is consumed."""
        self._subjects = token(namespace)
        self._stream = f"{token(namespace)}_Q"
        self._marked: set[Lane] = set()
        self._queues = Queues(connection, self._stream, self._subjects)
        self._pending = Pending(connection, self._stream, self._subjects)
        connection.setups.append(self._setup)

    @property
    def max_body(self) -> int:
        """Bytes, less what stands in front of them."""
        return self._connection.room - 4_096

    async def open(self) -> None:
        """EngineUnavailable, ServerUnusable."""
        await self._connection.open()

    async def close(self) -> None:
        """What was acknowledged or released has been read by the server."""
        await self._queues.end()
        await self._connection.close()

    def twin(self) -> NatsBroker:
        """Handles are subjects, so it can do all to the deliveries of this one."""
        other = NatsBroker(self._connection, self._namespace)
        self._connection.setups.remove(other._setup)
        other._queues.leases = self._queues.leases
        return other

    async def now(self) -> float:
        return await self._connection.now(self._stream)

    async def durability(self) -> Durability:
        return await examine(self._connection, self._stream)

    async def _setup(self) -> None:
        """The stream, and the consumers that are known here. They may have been deleted."""
        info = await ensure(
            self._connection,
            {
                "name": self._stream,
                "subjects": [f"{self._subjects}.{kind}.>" for kind in "qdp"],
                "retention": "workqueue",
                "storage": "file",
                "allow_msg_schedules": True,
                "allow_direct": True,
            },
        )
        if info.get("did_create"):
            self._marked.clear()
        for lane, lease in self._queues.leases.copy().items():
            await create(self._connection, self._stream, self._subjects, lane, lease, setup=True)

    # -- producing ----------------------------------------------------------------------------------------------------

    async def enqueue(self, queue: str, messages: Sequence[Message]) -> None:
        name = token(queue)
        await self._mark({Lane(name, message.priority) for message in messages} - self._marked)
        now = await self.now() if any(message.due_at is not None for message in messages) else 0.0
        calls = [
            self._call(Lane(name, message.priority), message.id, message.body, message.due_at or 0, now)
            for message in messages
        ]
        await self._connection.stored(calls)

    async def _mark(self, lanes: set[Lane]) -> None:
        """Before a priority is used for the first time: so that every worker finds it, whoever was away."""
        if lanes:
            first = {"Nats-Expected-Last-Subject-Sequence": "0"}
            await self._connection.stored([Call(f"{self._subjects}.p.{lane.tail}", b"", first) for lane in lanes])
            self._marked |= lanes

    def _call(self, lane: Lane, id: str, body: bytes, due: int, now: float) -> Call:
        """What stores a message; `due` in ms."""
        ready = f"{self._subjects}.q.{lane.tail}"
        left = due / 1000 - now
        if left <= 0:
            return Call(ready, pack(id, body))
        if left <= NEAR:
            return Call(ready, pack(id, body, due))
        at = (EPOCH + timedelta(milliseconds=due)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        schedule = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": ready}
        return Call(f"{self._subjects}.d.{lane.tail}.{fingerprint(id)}", pack(id, body, due), schedule)

    # -- consuming ----------------------------------------------------------------------------------------------------

    async def consume(self, queue: str, limit: int, lease: float) -> Sequence[Delivery]:
        async with self._connection.limit():
            while True:
                self._lease = lease
                try:
                    known = await self._queues.known(token(queue), lease)
                    told = len(known.told)
                    found = await self._take(known, limit)
                except Lost:
                    continue
                if len(known.told) == told:
                    break
                await self._nak([one.handle for one in found])  # a higher priority may have come meanwhile
            await self._trim(found, lease)
        return [Delivery(one.handle, *unpack(one.data)) for one in found]

    async def _take(self, known: Queue, limit: int) -> list[_Found]:
        """Of the highest priorities that have any, in the order of their places. Lost."""
        consumers = known.consumers()
        for consumer in consumers:
            consumer.look()
        if len(consumers) == 1:
            return await self._pull(consumers[0], limit)
        full = await self._full(consumers)
        if not full:
            full = await self._full(consumers, MOMENT)
        found: list[_Found] = []
        while full and len(found) < limit:
            first = full.pop(0)
            above = consumers[: consumers.index(first)] if not found else []
            late, more = await self._together(self._full(above), self._pull(first, limit - len(found)))
            if late:  # stored just before we asked, and not shown at once
                await self._nak([one.handle for one in more])
                full = [*late, first, *full]
                continue
            found += more
        return found

    async def _full(self, consumers: Sequence[Consumer], seconds: float = 0) -> list[Consumer]:
        """Those that have something."""
        calls = [consumer.peek(seconds) for consumer in consumers]
        answers = await self._connection.requests(calls, patience=PATIENCE)
        return [one for one, answer in zip(consumers, answers, strict=True) if answer.status == "409"]

    async def _together(self, first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, S]) -> tuple[T, S]:
        task = asyncio.ensure_future(first)
        try:
            done = await second
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        return await task, done

    async def _pull(self, consumer: Consumer, limit: int) -> list[_Found]:
        found: list[_Found] = []
        while len(found) < limit:
            more, whole = await self._look(consumer, limit - len(found))
            found += more
            if whole:
                break
        return found

    async def _look(self, consumer: Consumer, limit: int) -> tuple[list[_Found], bool]:
        """The first ones, fewer where some are not due yet; and whether nothing else waits. Lost."""
        found, most = await self._pulled(consumer, limit), limit
        if len(found) == limit and found[-1].place.delivered > 1:
            # All that came before were redelivered, too, and there may be more of them, with older places.
            found += await self._pulled(consumer, LOOK)
            most += LOOK
        whole = len(found) < most
        if any(one.due for one in found):
            found = await self._sift(found, whole)
        found.sort(key=_since)
        if len(found) > limit:
            await self._nak([one.handle for one in found[limit:]])
        return found[:limit], whole

    async def _sift(self, found: Sequence[_Found], whole: bool) -> list[_Found]:
        """Without those that are too early, and those that belong behind others that wait."""
        now = await self.now()
        early = [one for one in found if now < one.due < now + FAR]
        for one in early:
            await self._say([one.handle], _nak(one.due - now))
        ripe = [one for one in found if one not in early]
        if whole:
            return ripe
        moved = sorted((one for one in ripe if one.place.at < one.due <= now), key=_since)
        await self._move([(one.handle, unpack(one.data), 0) for one in moved], now)
        return [one for one in ripe if one not in moved]

    async def _pulled(self, consumer: Consumer, limit: int) -> list[_Found]:
        while True:
            got = await consumer.pull(limit)
            if got is not None:
                return [_Found(handle, data, place(handle), due_of(data)) for handle, data in got]
            await self._connection.cure(f"consumer {self._stream} is gone")

    async def _trim(self, found: Sequence[_Found], lease: float) -> None:
        """The lease of those whose consumer has a longer one: a fleet with another one uses this queue, too."""
        longer = {lane for lane in {one.place.lane for one in found} if not self._is_own(lane, lease)}
        if longer:
            await self._say([one.handle for one in found if one.place.lane in longer], _nak(lease))

    def _is_own(self, lane: Lane, lease: float) -> bool:
        own = self._queues.leases.get(lane, 0.0)
        return abs(own - lease) <= own * CLOSE

    # -- deliveries ---------------------------------------------------------------------------------------------------

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> None:
        handles = [delivery.handle for delivery in deliveries]
        own = {handle for handle in handles if self._is_own(place(handle).lane, lease)}
        await self._say([handle for handle in handles if handle in own], b"+WPI")
        await self._say([handle for handle in handles if handle not in own], _nak(lease))

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._say([delivery.handle for delivery in deliveries], b"+ACK")

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0) -> None:
        if delay <= 0:
            await self._nak([delivery.handle for delivery in deliveries])
            return
        now = await self.now()
        due = math.ceil(1000 * (now + delay)) if delay > INSTANT else 0
        await self._move([(delivery.handle, (delivery.id, delivery.body), due) for delivery in deliveries], now)

    async def _move(self, what: Sequence[tuple[str, tuple[str, bytes], int]], now: float) -> None:
        """Store (handle, (id, body), due) anew, behind the others; then the old ones are done with."""
        await self._connection.stored(
            [self._call(place(handle).lane, *message, due, now) for handle, message, due in what]
        )
        await self._say([handle for handle, _, _ in what], b"+ACK")

    async def _nak(self, handles: Sequence[str]) -> None:
        """In the order of their places; they can be consumed again when this returns."""
        ordered = sorted(handles, key=lambda handle: place(handle).sequence)
        await self._connection.requests([Call(handle, b"-NAK") for handle in ordered], deaf=True)

    async def _say(self, handles: Sequence[str], what: bytes) -> None:
        if handles:
            await self._connection.publish([(handle, what) for handle in handles])

    # -- waiting and looking ------------------------------------------------------------------------------------------

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Woken by the server as soon as there is something to consume, new, given back or due. Returns, too, when the
        connection is lost. What nobody consumes though we were woken for it does not wake again.
        """
        self._queues.woken.clear()
        async with self._connection.limit():
            try:
                known = [await self._queues.known(token(queue), self._lease) for queue in queues]
            except Lost:
                return
        consumers = [consumer for one in known for consumer in one.lanes.values()]
        if not any(consumer.said and not consumer.heard for consumer in consumers):
            for consumer in consumers:
                consumer.watch(self._queues.woken)
            try:
                async with asyncio.timeout(timeout):
                    await self._queues.woken.wait()
            except TimeoutError:
                pass
        for consumer in consumers:
            consumer.heard = consumer.said

    async def get_pending(self, queue: str, limit: int, after: str | None) -> Sequence[Message]:
        """Also those that are under way: the broker cannot tell, their records can."""
        return await self._pending.page(token(queue), limit, after, await self.now())


def _nak(delay: float) -> bytes:
    return b'-NAK {"delay": %d}' % max(1, int(delay * 1e9))
