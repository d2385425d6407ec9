"""Results on JetStream: a value is the last message of a subject, its revision that message's sequence.

Invariants: a write carries the sequence that it expects, and the stream refuses it otherwise; so of two writers one
wins. In front of each value stands a mark that only this write has: one that is refused finds out whether it was itself
the one that was stored, its answer having been lost. A key that was deleted, or has expired, leaves nothing behind.

A value that the server would not take in one message is stored in parts, before the message that names them; whoever
replaces or deletes it purges them. A crash in between leaves parts that nobody names, until the key is deleted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from ...interfaces import Conflict, Durability
from .connection import Connection
from .durability import examine
from .errors import ServerUnusable
from .index import Indexes
from .names import token
from .records import EXPECTED, TTL, Stored
from .session import Call

MARK = 16
"""Random bytes in front of each value. After them: 0 and the value, or how many parts it has (two bytes)."""
HEAD = MARK + 2
LONGEST = 100 * 365 * 86_400
"""Seconds: a later date overflows in the server, which counts nanoseconds in 64 bits, and is over at once."""
MOST_BYTES = 4 << 20
"""Of values in one flight, unless there is only one."""
GRACE = 60
"""Seconds by which parts outlive the message that names them."""


class Parted(int):
    """The revision of a value that is kept in parts; `parts` are their subjects."""

    parts: str = ""


class _Writes:
    """Those that have met in this turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.size = 0
        self.waiting: list[tuple[Call, asyncio.Future[int | None]]] = []

    def add(self, call: Call) -> asyncio.Future[int | None]:
        done: asyncio.Future[int | None] = self.loop.create_future()
        self.waiting.append((call, done))
        self.size += len(call.payload)
        return done


class NatsResults(Indexes):
    """See `Results`. Writes that meet travel in one flight."""

    shared = True
    durable = True
    _writes: _Writes | None = None

    def __init__(self, connection: Connection, namespace: str) -> None:
        super().__init__(connection, namespace)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect, and create the stream if it is missing. EngineUnavailable, ServerUnusable."""
        await self._connection.open()

    async def close(self) -> None:
        """Whatever nobody waits for any more is given up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    def twin(self) -> NatsResults:
        """Another, for another event loop; they share the connection object, which has a connection for each."""
        other = NatsResults(self._connection, self._namespace)
        self._connection.setups.remove(other._ensure)
        return other

    async def durability(self) -> Durability:
        """By the settings of the stream and the server as they are now."""
        return await examine(self._connection, self._stream)

    async def get(self, keys: Sequence[str]) -> Sequence[tuple[bytes, int] | None]:
        stored = await self._last([self._key(key) for key in keys])
        found: list[tuple[bytes, int] | None] = []
        for key, one in zip(keys, stored, strict=True):
            if one is None or one.data[MARK:HEAD] == bytes(2):
                found.append(one and (one.data[HEAD:], one.revision))
            else:
                found.append(await self._put_together(key, one))
        return found

    async def set(self, key: str, value: bytes, *, expect: int | None, ttl: float | None) -> int:
        """`ttl` is rounded up to whole seconds."""
        mark = self._connection.ports.bits(MARK)
        seconds = None if ttl is None else max(1, math.ceil(min(ttl, LONGEST)))
        if len(value) > self._connection.room - HEAD:
            revision = await self._set_parts(key, value, mark, expect, seconds)
        else:
            revision = await self._set(key, mark + bytes(2) + value, expect, seconds)
        if isinstance(expect, Parted):
            await self._purge({expect.parts: None})
        return revision

    async def _set(self, key: str, data: bytes, expect: int | None, seconds: int | None) -> int:
        subject = self._key(key)
        headers = {EXPECTED: str(int(expect or 0))}
        if seconds is not None:
            headers[TTL] = str(seconds)
        revision = await self._soon(Call(subject, data, headers))
        if revision is not None:
            return revision
        stored = (await self._last([subject]))[0]
        if stored is None or stored.data[:MARK] != data[:MARK]:
            raise Conflict(f"{key!r} has another revision than {expect}, or is gone")
        return stored.revision

    async def delete(self, keys: Sequence[str]) -> None:
        subjects = [self._key(key) for key in keys]
        await self._purge(dict.fromkeys([*subjects, *(f"{self._root}.b.{token(key)}.>" for key in keys)]))

    # -- large values -------------------------------------------------------------------------------------------------

    async def _set_parts(self, key: str, value: bytes, mark: bytes, expect: int | None, seconds: int | None) -> int:
        headers = None if seconds is None else {TTL: str(seconds + GRACE)}
        room = self._connection.room
        pieces = [value[at : at + room] for at in range(0, len(value), room)]
        parts = self._parts(key, mark)
        names = _numbered(parts, len(pieces))
        await self._write([Call(name, piece, headers) for name, piece in zip(names, pieces, strict=True)])
        try:
            return _parted(await self._set(key, mark + len(pieces).to_bytes(2), expect, seconds), parts)
        except Conflict:
            await self._purge({parts: None})
            raise

    async def _put_together(self, key: str, stored: Stored) -> tuple[bytes, int] | None:
        while True:
            parts = self._parts(key, stored.data[:MARK])
            pieces = await self._last(_numbered(parts, int.from_bytes(stored.data[MARK:HEAD])))
            if None not in pieces:
                return b"".join(piece.data for piece in pieces if piece is not None), _parted(stored.revision, parts)
            now = (await self._last([self._key(key)]))[0]
            if now is None or now.data[MARK:HEAD] == bytes(2):
                return now and (now.data[HEAD:], now.revision)
            if now.revision == stored.revision:
                raise ServerUnusable(f"{self._connection.url}: parts of {key!r} are gone: somebody has purged them")
            stored = now  # it was replaced meanwhile

    def _parts(self, key: str, mark: bytes) -> str:
        return f"{self._root}.b.{token(key)}.{mark.hex()}.*"

    # -- writing together ---------------------------------------------------------------------------------------------

    def _soon(self, call: Call) -> asyncio.Future[int | None]:
        loop = asyncio.get_running_loop()
        writes = self._writes
        if writes is None or writes.loop is not loop or writes.size + len(call.payload) > MOST_BYTES:
            writes = self._writes = _Writes(loop)
            loop.call_soon(self._send, writes)
        return writes.add(call)

    def _send(self, writes: _Writes) -> None:
        if self._writes is writes:
            self._writes = None
        task = writes.loop.create_task(self._settle(writes.waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, waiting: list[tuple[Call, asyncio.Future[int | None]]]) -> None:
        try:
            sequences = await self._write([call for call, _ in waiting])
        except asyncio.CancelledError:
            for _, done in waiting:
                done.cancel()
            raise
        except Exception as error:  # it is everybody's
            for _, done in waiting:
                if not done.done():
                    done.set_exception(error)
        else:
            for (_, done), sequence in zip(waiting, sequences, strict=True):
                if not done.done():
                    done.set_result(sequence)

    def _key(self, key: str) -> str:
        return f"{self._root}.k.{token(key)}"


def _numbered(parts: str, many: int) -> list[str]:
    return [f"{parts.removesuffix('*')}{number}" for number in range(many)]


def _parted(revision: int, parts: str) -> Parted:
    one = Parted(revision)
    one.parts = parts
    return one
