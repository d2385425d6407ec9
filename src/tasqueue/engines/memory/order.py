"""The orders that a store keeps. Each hands out its first, and any one that is asked for, in O(log n) or better."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, merge
from operator import itemgetter
from typing import Generic, Protocol, TypeVar


class Placed(Protocol):
    """What a Line needs to know of a job."""

    priority: int
    ord: int


J = TypeVar("J", bound=Placed)
K = TypeVar("K", int, tuple[int, int])
V = TypeVar("V")


class Pile(Generic[K, V]):
    """Values by a key that sorts: the smallest first, and any can be taken out.

    Keys taken out stay in the heap until they surface or until they outnumber the others.
    """

    __slots__ = ("_heap", "_values")

    def __init__(self) -> None:
        self._heap: list[K] = []
        self._values: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(sorted(self._values.items(), key=itemgetter(0)))

    def add(self, key: K, value: V) -> None:
        heappush(self._heap, key)
        self._values[key] = value

    def remove(self, key: K) -> None:
        del self._values[key]
        if len(self._heap) > 2 * len(self._values) + 64:
            self._heap = list(self._values)
            heapify(self._heap)

    def first(self) -> K | None:
        """The smallest key; None when empty."""
        while self._heap and self._heap[0] not in self._values:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def peek(self) -> V:
        """The first; LookupError when empty."""
        key = self.first()
        if key is None:
            raise LookupError("empty")
        return self._values[key]

    def pop(self) -> V:
        """Take out the first; LookupError when empty."""
        value = self.peek()
        del self._values[heappop(self._heap)]
        return value


class Lane(Generic[J]):
    """The ready jobs of one queue and priority, by `ord`.

    New ones have the largest `ord` there is, so they go to the end of `tail`, sorted by itself; the few that come
    back to an old place are kept apart in `back`.
    """

    __slots__ = ("back", "tail")

    def __init__(self) -> None:
        self.tail: OrderedDict[int, J] = OrderedDict()
        self.back: Pile[int, J] = Pile()

    def take(self, n: int) -> list[J]:
        pop = self.tail.popitem
        if not self.back:
            return [pop(last=False)[1] for _ in range(min(n, len(self.tail)))]
        taken: list[J] = []
        while len(taken) < n:
            old = self.back.first()
            if self.tail and (old is None or next(iter(self.tail)) < old):
                taken.append(pop(last=False)[1])
            elif old is not None:
                taken.append(self.back.pop())
            else:
                break
        return taken


class Line(Generic[J]):
    """The ready jobs of one queue: by priority, higher first, then by `ord`."""

    __slots__ = ("_lanes", "_priorities")

    def __init__(self) -> None:
        self._lanes: dict[int, Lane[J]] = {}
        self._priorities: list[int] = []  # negated, so that they sort as they are served

    def lane(self, priority: int) -> Lane[J]:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = Lane()
            insort(self._priorities, -priority)
        return lane

    def append(self, job: J) -> None:
        """At a new place: `job.ord` is larger than any that was ever used."""
        self.lane(job.priority).tail[job.ord] = job

    def put_back(self, job: J) -> None:
        """At an old place."""
        self.lane(job.priority).back.add(job.ord, job)

    def remove(self, job: J) -> None:
        lane = self._lanes[job.priority]
        if lane.tail.pop(job.ord, None) is None:
            lane.back.remove(job.ord)

    def take(self, n: int) -> list[J]:
        """Take out the first n."""
        taken: list[J] = []
        for negated in self._priorities:
            taken += self._lanes[-negated].take(n - len(taken))
            if len(taken) >= n:
                break
        return taken

    def __iter__(self) -> Iterator[J]:
        for negated in self._priorities:
            lane = self._lanes[-negated]
            for _, job in merge(lane.back, lane.tail.items(), key=itemgetter(0)):
                yield job

    def __len__(self) -> int:
        return sum(len(lane.tail) + len(lane.back) for lane in self._lanes.values())


class Ledger(Generic[V]):
    """What has ended, newest first. Entries are numbered, so that a page is found without reading those before it."""

    __slots__ = ("_entries", "_last")

    def __init__(self) -> None:
        self._entries: dict[int, V] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, value: V) -> int:
        self._last += 1
        self._entries[self._last] = value
        return self._last

    def remove(self, number: int) -> None:
        del self._entries[number]

    def page(self, limit: int, before: int | None) -> list[V]:
        """At most `limit`, newest first, older than `before`."""
        found: list[V] = []
        oldest = next(iter(self._entries), 1)
        for number in range(self._last if before is None else before - 1, oldest - 1, -1):
            if len(found) >= limit:
                break
            if number in self._entries:
                found.append(self._entries[number])
        return found


class Retention:
    """What is to be forgotten, and when. A bucket for each span, in which the first to be added is the first to go."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, dict[str, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, name: str, ttl: int, now: int) -> None:
        bucket = self._buckets.get(ttl)
        if bucket is None:
            bucket = self._buckets[ttl] = {}
        bucket[name] = now + ttl

    def remove(self, name: str, ttl: int) -> None:
        bucket = self._buckets[ttl]
        del bucket[name]
        if not bucket:
            del self._buckets[ttl]

    def over(self, now: int, limit: int) -> list[tuple[str, int]]:
        """Names, with their spans, whose time is over; they stay until they are removed."""
        found: list[tuple[str, int]] = []
        for ttl, bucket in self._buckets.items():
            for name, at in bucket.items():
                if at > now or len(found) >= limit:
                    break
                found.append((name, ttl))
        return found
