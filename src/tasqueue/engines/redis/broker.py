"""A broker on Redis: messages in order of priority and place, leased by the server's clock. `lua/broker.lua` has the
keys.

Invariant: a message is in exactly one of three sets, ready, due or leased, and moves between them in one step. A handle
is the queue and the message's spot there, so that any object for the same keys can act on a delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from ...interfaces import Delivery, Message
from .base import keys
from .half import Half
from .layout import key, text

SPOT = 20
"""The length of a spot, in front of the id."""
PRIORITY = 1 << 44
AT_ONCE = 1_000
"""Deliveries in one call."""
NAP = 5.0
"""Seconds: `wait` returns of itself after that, so that what a frozen process was woken for is found."""


class RedisBroker(Half):
    """See `Broker`. A message whose id is in its queue already is dropped."""

    within = b"B:"
    _nap = NAP

    async def now(self) -> float:
        """The server's clock."""
        return await self._time() / 1000

    async def enqueue(self, queue: str, messages: Sequence[Message]) -> None:
        if not messages:
            return
        args: list[object] = [key(queue)]
        for message in messages:
            due = "" if message.due_at is None else message.due_at
            args += (due, message.priority, key(message.id), message.body)
        await self._client().run("broker_enqueue", args, durable=True)

    async def consume(self, queue: str, limit: int, lease: float) -> Sequence[Delivery]:
        self._nap = min(NAP, lease)  # nobody tells a sleeper of the leases that begin after it fell asleep
        self._listener().news.discard(queue)
        now, *found = await self._run("broker_consume", key(queue), limit, _ms(lease))
        self._moment = (self._ports.mono(), now)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [Delivery((queue, member), text(member[SPOT:]), body) for member, body in pairs]

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> None:
        await self._each("broker_extend", deliveries, _ms(lease))

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._each("broker_ack", deliveries)

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0) -> None:
        await self._each("broker_release", deliveries, 1000 * delay if delay > 0 else "")

    async def get_pending(self, queue: str, limit: int, after: str | None) -> Sequence[Message]:
        found = await self._run("broker_pending", key(queue), limit, key(after or ""))
        rows = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [Message(text(id), body, -(int(float(score)) // PRIORITY)) for id, score, body in rows]

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Woken by the server, at the latest when a message is due or a lease ends."""
        listener = self._listener()
        if listener.news.intersection(queues):
            return
        if not listener.stands:
            await listener.ready()
        ready, now, earliest = await self._run("broker_idle", listener.name, *keys(queues))
        self._moment = (self._ports.mono(), now)
        if ready:
            return
        listener.note(queues)
        seconds = min(timeout, self._nap)
        if earliest is not None:
            seconds = min(seconds, (earliest - now) / 1000)
        await listener.sleep_for_work(queues, seconds)

    async def _each(self, script: str, deliveries: Iterable[Delivery], *args: object) -> None:
        queues: dict[str, list[bytes]] = {}
        for delivery in deliveries:
            queue, member = delivery.handle
            queues.setdefault(queue, []).append(member)
        calls = [
            self._run(script, key(queue), *args, *members[at : at + AT_ONCE])
            for queue, members in queues.items()
            for at in range(0, len(members), AT_ONCE)
        ]
        await asyncio.gather(*calls)


def _ms(seconds: float) -> int:
    return int(1000 * seconds)
