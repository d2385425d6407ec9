"""Indexes by time: which ids, in which order, without reading the whole.

What is stored (`<root>` is the stream's, `<index>` and `<id>` are tokens):

    <root>.i.<index>.<id>                the place of a member: where in `c` it is listed; the only truth. Empty: it
                                         was removed just now (it expires after `REMEMBERED`)
    <root>.c.<index>.<place>             what one call has added: its ids, as a msgpack array
    <root>.f.<index>.<hour>.<second>     there is something in `c` under this hour and second
    <root>.h.<index>.<hour>              there is something in `f` under this hour

A place is `<hour>.<second>.<rest>-<stamp>-<how many>`: the number `at` (a float64, as an integer that sorts as it does,
in three tokens), then the moment of adding. So the server lists what there is by names alone, in a microsecond each,
and a page is five requests: hours, seconds, places, their ids, and whether these are still there. With UNIX
milliseconds or seconds an "hour" is 17 minutes and a "second" is one; other numbers are served as well.

Invariants: whoever adds stores `c`, then `f`, `h`, then each `i`, in this order; so a member whose place is stored is
found. A place that no member is at any more is purged by whoever took the last one away, from `c` to `h`, each only up
to the sequence that it had before the look that found it empty. Nothing is ever changed in place: workers that add at
the same time never meet.

Chosen over one record per period with compare-and-set, on which all workers would meet, and over a subject per member
with its time in it, which costs a second message for each member, and a third to move it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

import msgspec

from .connection import Connection
from .names import token
from .records import EXPECTED, TTL, Records, Stored, parts
from .session import Call, timestamp

REMEMBERED = 60
"""Seconds, or four times what a call may take: what was added so long ago was added completely."""
WIDE = 64
"""Requests for names in one flight."""
LEAST = 16
"""Members that are looked at together, however few are wanted."""
CHUNKS = 100
"""Places read together."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[str]).decode


class Indexes(Records):
    """See `Results`. Adding n ids is n + 3 messages in one flight; a page of 100 takes some ms, whatever the size."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        super().__init__(connection, namespace)
        self._stamp = 0
        self._remembered = max(REMEMBERED, math.ceil(4 * connection.timeout))
        self._me = connection.ports.bits(4).hex()

    async def index_add(self, index: str, ids: Sequence[str], at: float) -> None:
        """Members that are there already, at this very time, stay where they are."""
        name = token(index)
        when = _time(at)
        # An id that is given twice is last where it comes last.
        for part in parts(list(reversed(dict.fromkeys(reversed(ids))))):
            place = f"{when}-{self._next_stamp()}-{len(part):x}"
            hour, second, _ = place.split(".")
            members = [self._member(name, id) for id in part]
            calls = [
                Call(f"{self._root}.c.{name}.{place}", _encode(part)),
                Call(f"{self._root}.f.{name}.{hour}.{second}"),
                Call(f"{self._root}.h.{name}.{hour}"),
                *(Call(member, place.encode(), {EXPECTED: "0"}) for member in members),
            ]
            while not _in_order(stored := await self._write(calls)):
                pass  # some were stored late, after an interruption: once more
            there = [member for member, sequence in zip(members, stored[3:], strict=True) if sequence is None]
            if there:
                await self._move(name, there, place)

    async def _move(self, name: str, members: Sequence[str], place: str) -> None:
        """Those of these members that are somewhere else come to this place, where they are listed already."""
        when = place.partition("-")[0].encode()
        left: set[str] = set()
        open_: list[str] = list(members)
        while open_:
            found = dict(zip(open_, await self._last(open_), strict=True))
            moves = {member: one for member, one in found.items() if one is None or not one.data.startswith(when)}
            stored = await self._write(
                [
                    Call(member, place.encode(), {EXPECTED: str(one.revision if one else 0)})
                    for member, one in moves.items()
                ]
            )
            moved = [one for one, sequence in zip(moves.values(), stored, strict=True) if sequence is not None]
            left.update(one.data.decode() for one in moved if one is not None and one.data)
            open_ = [member for member, sequence in zip(moves, stored, strict=True) if sequence is None]
        await self._sweep(name, {*left, place}, mine=place)

    async def index_remove(self, index: str, ids: Sequence[str]) -> None:
        name = token(index)
        open_: list[str] = [self._member(name, id) for id in dict.fromkeys(ids)]
        left: set[str] = set()
        while open_:
            found = await self._last(open_)
            there = {subject: one for subject, one in zip(open_, found, strict=True) if one is not None and one.data}
            calls = [
                Call(subject, b"", {TTL: str(self._remembered), EXPECTED: str(one.revision)})
                for subject, one in there.items()
            ]
            stored = await self._write(calls) if calls else []
            left.update(one.data.decode() for one, done in zip(there.values(), stored, strict=True) if done is not None)
            open_ = [subject for subject, done in zip(there, stored, strict=True) if done is None]  # moved meanwhile
        await self._sweep(name, left)

    async def index_page(self, index: str, limit: int, after: str | None) -> Sequence[str]:
        name = token(index)
        start = None
        if after is not None:
            found = (await self._last([self._member(name, after)]))[0]
            start = found.data.decode() if found is not None and found.data else None
        page: list[str] = []
        batch: list[str] = []
        many = 0
        async for place in self._places(name, start):
            batch.append(place)
            many += int(place.rpartition("-")[2], 16)
            if len(page) + many >= limit or len(batch) == CHUNKS:
                page += await self._members(name, batch, start, after, limit - len(page))
                batch, many = [], 0
                if len(page) >= limit:
                    return page
        return page + await self._members(name, batch, start, after, limit - len(page))

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _places(self, name: str, start: str | None) -> AsyncIterator[str]:
        """The places of an index from this one on, newest first; names are read ahead, more each time."""
        hours = await self._under([f"{self._root}.h.{name}.*"], 1, start)
        for some in _wider(hours, 1):
            seconds = await self._under([f"{self._root}.f.{name}.{hour}.*" for hour in some], 2, start)
            for more in _wider(seconds, len(some)):
                for place in await self._under([f"{self._root}.c.{name}.{second}.*" for second in more], 3, start):
                    yield place

    async def _under(self, filters: Sequence[str], depth: int, start: str | None) -> list[str]:
        """The last `depth` tokens of the subjects in use, the greatest first, from `start` on."""
        found = [".".join(one.split(".")[-depth:]) for some in await self._names(filters) for one in some]
        if start is not None:
            limit = ".".join(start.split(".")[:depth])
            found = [one for one in found if one <= limit]
        return sorted(found, reverse=True)

    async def _members(
        self, name: str, places: Sequence[str], start: str | None, after: str | None, limit: int
    ) -> list[str]:
        """What is still at these places, in order."""
        listed: list[tuple[str, str]] = []
        bodies = await self._last([f"{self._root}.c.{name}.{place}" for place in places])
        for place, body in zip(places, bodies, strict=True):
            ids = [] if body is None else _decode(body.data)
            if place == start and after in ids:
                ids = ids[: ids.index(after)]
            listed += [(id, place) for id in reversed(ids)]
        page: list[str] = []
        done = 0
        while done < len(listed) and len(page) < limit:
            some = listed[done : done + max(LEAST, limit - len(page))]
            done += len(some)
            found = await self._last([self._member(name, id) for id, _ in some])
            page += [id for (id, place), one in zip(some, found, strict=True) if _is_at(one, place)]
        return page[:limit]

    # -- sweeping -----------------------------------------------------------------------------------------------------

    async def _sweep(self, name: str, places: Iterable[str], mine: str = "") -> None:
        """Forget those of these places where nobody is any more. `mine`: the one that was added by this call, which is
        through with it.
        """
        left = sorted(places)
        chunks = await self._last([f"{self._root}.c.{name}.{place}" for place in left])
        empty = {
            place: chunk
            for place, chunk in zip(left, chunks, strict=True)
            if chunk is not None and await self._is_empty(name, place, chunk, place == mine)
        }
        if not empty:
            return
        await self._purge({f"{self._root}.c.{name}.{place}": chunk.revision for place, chunk in empty.items()})
        for kind, below, depth in (("f", "c", 2), ("h", "f", 1)):
            above = sorted({".".join(place.split(".")[:depth]) for place in empty})
            marks = await self._last([f"{self._root}.{kind}.{name}.{one}" for one in above])
            under = await self._names([f"{self._root}.{below}.{name}.{one}.*" for one in above])
            await self._purge(
                {
                    f"{self._root}.{kind}.{name}.{one}": mark.revision
                    for one, mark, some in zip(above, marks, under, strict=True)
                    if mark is not None and not some
                }
            )

    async def _is_empty(self, name: str, place: str, chunk: Stored, complete: bool) -> bool:
        """Whether all that were added there have been taken away. A member without a place may be one whose place is
        just being written; that is over when the chunk is old, and until then a removed one is remembered.
        """
        ids = _decode(chunk.data)
        complete = complete or await self._connection.now(self._stream) > timestamp(chunk.at) + self._remembered
        # From both ends first: most have somebody left.
        for some in (ids[:2] + ids[2:][-2:], ids[2:-2]):
            for one in await self._last([self._member(name, id) for id in some]):
                if _is_at(one, place) or not (complete or (one is not None and one.revision > chunk.revision)):
                    return False
        return True

    def _member(self, name: str, id: str) -> str:
        return f"{self._root}.i.{name}.{token(id)}"

    def _next_stamp(self) -> str:
        self._stamp = max(self._stamp + 1, int(1e6 * self._connection.ports.now()))
        return f"{self._stamp:014x}{self._me}"


def _wider(names: Sequence[str], width: int) -> Iterator[Sequence[str]]:
    """The names in groups, each twice as large as the one before."""
    done = 0
    while done < len(names):
        yield names[done : done + width]
        done += width
        width = min(2 * width, WIDE)


def _time(at: float) -> str:
    """A float64 in three tokens that sort as it does."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", at + 0.0))
    order = bits ^ (0xFFFF_FFFF_FFFF_FFFF if bits >> 63 else 1 << 63)
    return f"{order >> 32:08x}.{order >> 22 & 0x3FF:03x}.{order & 0x3F_FFFF:06x}"


def _is_at(member: Stored | None, place: str) -> bool:
    return member is not None and member.data == place.encode()


def _in_order(sequences: Sequence[int | None]) -> bool:
    known = [sequence for sequence in sequences if sequence is not None]
    return known == sorted(known)
