"""Halves of a pair in memory, and the example of a broker and results of one's own: two classes that know nothing of
jobs, for one event loop of one process.

    srv = Server(broker=MemoryBroker(), results=MemoryResults())
    srv = Server(broker="memory://", results="redis://localhost:6379/0")

Written after `tasqueue.interfaces` alone. `now` gives UNIX seconds, so that a test can move the time.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from itertools import count

from ...clock import SYSTEM
from ...interfaces import Conflict, Delivery, Message


class _Held:
    """A message where it is: waiting since `place`, or not to be had before `until` (due later, or leased)."""

    __slots__ = ("leased", "message", "place", "until")

    def __init__(self, message: Message, place: int, until: int) -> None:
        self.message = message
        self.place = place
        self.until = until
        self.leased = False


class MemoryBroker:
    """Messages by queue. A delivery's handle is its queue and a number that the message keeps while it exists."""

    def __init__(self, now: Callable[[], float] = SYSTEM.now) -> None:
        self._now = now
        self._numbers = count(1)
        self._places = count(1)
        self._all: dict[str, dict[int, _Held]] = {}
        self._ready: dict[str, list[tuple[int, int, int]]] = {}
        """Per queue: (-priority, place, number), sorted."""
        self._later: dict[str, list[tuple[int, int]]] = {}
        """Per queue: (until, number), sorted; what has changed meanwhile is found out when its time comes."""

    async def enqueue(self, queue: str, messages: Sequence[Message]) -> None:
        self._ripen(queue)
        for message in messages:
            number = next(self._numbers)
            held = _Held(message, next(self._places), message.due_at or 0)
            self._all.setdefault(queue, {})[number] = held
            self._wait(queue, number, held)

    async def consume(self, queue: str, limit: int, lease: float) -> Sequence[Delivery]:
        self._ripen(queue)
        ready = self._ready.get(queue, [])
        taken, ready[:limit] = ready[:limit], []
        deliveries: list[Delivery] = []
        for _, _, number in taken:
            held = self._all[queue][number]
            held.leased = True
            self._delay(queue, number, held, lease)
            deliveries.append(Delivery((queue, number), held.message.id, held.message.body))
        return deliveries

    async def extend(self, deliveries: Sequence[Delivery], lease: float) -> None:
        for queue, number, held in self._found(deliveries):
            if held.leased:
                self._delay(queue, number, held, lease)

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for queue, number, held in self._found(deliveries):
            self._unready(queue, number, held)
            self._all[queue].pop(number, None)

    async def release(self, deliveries: Sequence[Delivery], delay: float = 0) -> None:
        for queue, number, held in self._found(deliveries):
            self._unready(queue, number, held)
            held.leased = delay == 0  # the old place, as when a lease ends
            self._delay(queue, number, held, delay)

    async def get_pending(self, queue: str, limit: int, after: str | None) -> Sequence[Message]:
        self._ripen(queue)
        messages = [self._all[queue][number].message for _, _, number in self._ready.get(queue, [])]
        start = next((i + 1 for i, message in enumerate(messages) if message.id == after), 0)
        return messages[start : start + limit]

    def _found(self, deliveries: Sequence[Delivery]) -> list[tuple[str, int, _Held]]:
        """Those that still exist: a late handle is no error."""
        handles = [delivery.handle for delivery in deliveries]
        return [(queue, number, held) for queue, number in handles if (held := self._all.get(queue, {}).get(number))]

    def _ms(self) -> int:
        return int(self._now() * 1000)

    def _delay(self, queue: str, number: int, held: _Held, seconds: float) -> None:
        held.until = int((self._now() + seconds) * 1000)
        self._wait(queue, number, held)

    def _wait(self, queue: str, number: int, held: _Held) -> None:
        insort(self._later.setdefault(queue, []), (held.until, number))

    def _ripen(self, queue: str) -> None:
        """What is due gets a new place; what was leased has kept its own."""
        later, ready = self._later.get(queue, []), self._ready.setdefault(queue, [])
        over = bisect_left(later, (self._ms() + 1, 0))
        come, later[:over] = later[:over], []
        for until, number in come:
            held = self._all[queue].get(number)
            if held is None or held.until != until:
                continue
            if not held.leased and until:
                held.place = next(self._places)
            held.leased, held.until = False, -1
            insort(ready, (-held.message.priority, held.place, number))

    def _unready(self, queue: str, number: int, held: _Held) -> None:
        if held.until == -1:
            self._ready[queue].remove((-held.message.priority, held.place, number))


class MemoryResults:
    """Values with revisions, and indexes kept sorted."""

    def __init__(self, now: Callable[[], float] = SYSTEM.now) -> None:
        self._now = now
        self._revisions = count(1)
        self._values: dict[str, tuple[bytes, int, float | None]] = {}
        self._ends: list[tuple[float, str]] = []
        self._indexes: dict[str, tuple[list[tuple[float, int, str]], dict[str, tuple[float, int, str]]]] = {}

    async def get(self, keys: Sequence[str]) -> Sequence[tuple[bytes, int] | None]:
        self._expire()
        return [item and item[:2] for item in map(self._values.get, keys)]

    async def set(self, key: str, value: bytes, *, expect: int | None, ttl: float | None) -> int:
        self._expire()
        old = self._values.get(key)
        if (old and old[1]) != expect:
            raise Conflict(f"{key!r} has revision {old and old[1]}, not {expect}")
        revision = next(self._revisions)
        end = None if ttl is None else self._now() + ttl
        self._values[key] = (value, revision, end)
        if end is not None:
            insort(self._ends, (end, key))
        return revision

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._values.pop(key, None)

    async def index_add(self, index: str, ids: Sequence[str], at: float) -> None:
        await self.index_remove(index, ids)
        ordered, entries = self._indexes.setdefault(index, ([], {}))
        for id in dict.fromkeys(ids):
            entries[id] = (at, next(self._revisions), id)
            insort(ordered, entries[id])

    async def index_page(self, index: str, limit: int, after: str | None) -> Sequence[str]:
        ordered, entries = self._indexes.get(index, ([], {}))
        end = bisect_left(ordered, entries[after]) if after in entries else len(ordered)
        return [id for _, _, id in reversed(ordered[max(0, end - limit) : end])]

    async def index_remove(self, index: str, ids: Sequence[str]) -> None:
        ordered, entries = self._indexes.get(index, ([], {}))
        for id in ids:
            if id in entries:
                del ordered[bisect_left(ordered, entries.pop(id))]

    def _expire(self) -> None:
        while self._ends and self._ends[0][0] <= self._now():
            end, key = self._ends.pop(0)
            if key in self._values and self._values[key][2] == end:
                del self._values[key]
