"""A broker in a file: one row for each message, which is ready, due later or leased. Leases are judged by the machine's
clock. A handle is the number of the row, which is never used twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...interfaces import Delivery, Message
from .half import Half
from .lane import Tx
from .sql import BROKER


class SqliteBroker(Half):
    """See `Broker`. A message whose id is in its queue already is dropped."""

    layout = BROKER

    async def enqueue(self, queue: str, messages: Sequence[Message]) -> None:
        if messages:
            await self._write(partial(_enqueue, queue, messages))

    async def consume(self, queue: str, limit: int, lease: float) -> Sequence[Delivery]:
        self._open().poller.mark()
        return await self._write(partial(_consume, queue, limit, int(1000 * lease)), durable=False)

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> None:
        def extend(tx: Tx) -> None:
            tx.run("extend", tx.now + int(1000 * lease), _numbers(deliveries))

        await self._write(extend, durable=False)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._write(lambda tx: tx.run("ack", _numbers(deliveries)), durable=False)

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0) -> None:
        def release(tx: Tx) -> None:
            if delay > 0:
                tx.run("release_later", tx.now + int(1000 * delay), _numbers(deliveries))
            else:
                tx.run("release_now", _numbers(deliveries))
            tx.news = True

        await self._write(release, durable=False)

    async def get_pending(self, queue: str, limit: int, after: str | None) -> Sequence[Message]:
        return await self._write(partial(_pending, queue, limit, after), durable=False)

    async def wait(self, queues: Sequence[str], timeout: float) -> None:
        """Woken as the engine's sleepers are; also when a message is due or a lease ends."""
        await self._open().poller.wait(queues, timeout)


def _numbers(deliveries: Sequence[Delivery]) -> str:
    return str([delivery.handle for delivery in deliveries])


def _enqueue(queue: str, messages: Sequence[Message], tx: Tx) -> None:
    _ripen(tx, queue)  # what is due stands before what is new
    values: list[object] = []
    for nr, message in enumerate(messages, tx.place(len(messages))):
        due = message.due_at if message.due_at is not None and message.due_at > tx.now else None
        values += (nr, message.id, queue, -message.priority, nr, due, message.body)
    tx.bulk("insert", 7, values)
    tx.news = True


def _ripen(tx: Tx, queue: str) -> None:
    """What was leased and is no longer goes back to its old place; what is due takes a new one."""
    tx.run("leases_over", queue, tx.now)
    due = tx.value("how_many_due", queue, tx.now)
    if due:
        tx.run("make_ready", tx.place(due) - 1, queue, tx.now)


def _consume(queue: str, limit: int, lease: int, tx: Tx) -> list[Delivery]:
    _ripen(tx, queue)
    deliveries = [Delivery(nr, id, body) for nr, id, body in tx.run("first", queue, limit)]
    if deliveries:
        tx.run("lease", tx.now + lease, _numbers(deliveries))
    return deliveries


def _pending(queue: str, limit: int, after: str | None, tx: Tx) -> list[Message]:
    _ripen(tx, queue)
    place = None if after is None else tx.run("place_of", queue, after).fetchone()
    rows = tx.run("first_messages", queue, limit) if place is None else tx.run("next_messages", queue, *place, limit)
    return [Message(id, body, -rank) for id, body, rank in rows]
