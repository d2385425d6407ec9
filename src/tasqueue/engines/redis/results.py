"""Results on Redis: values with a revision, and indexes by time. `lua/results.lua` has the keys.

Invariants: a revision is 8 random bytes that the writer chooses, in front of the value. So a write that is repeated
because its answer was lost is known again, and no revision comes back after a deletion, an expiry or a failover. Writes
that meet share a round trip; nothing returns before its own is decided.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple

from ...interfaces import Conflict
from .half import Half
from .layout import key as encoded
from .layout import text

REVISION = 8
AT_ONCE = 500
"""Writes in one call."""
MOST_BYTES = 4 << 20
"""Of values in one call, unless there is only one."""


class _Write(NamedTuple):
    args: tuple[object, ...]
    size: int
    done: asyncio.Future[bool]


class _Batch:
    """The writes that have met in this turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.writes: list[_Write] = []
        self.tasks: list[asyncio.Task[None]] = []

    def chunks(self) -> list[list[_Write]]:
        """What goes in one call each."""
        chunks: list[list[_Write]] = []
        size = 0
        for write in self.writes:
            size += write.size
            if not chunks or len(chunks[-1]) == AT_ONCE or size > MOST_BYTES:
                chunks.append([])
                size = write.size
            chunks[-1].append(write)
        return chunks


class RedisResults(Half):
    """See `Results`."""

    within = b"R:"
    _batch: _Batch | None = None

    async def get(self, keys: Sequence[str]) -> Sequence[tuple[bytes, bytes] | None]:
        if not keys:
            return []
        found = await self._client().command("MGET", *(self._value(name) for name in keys))
        return [None if raw is None else (raw[REVISION:], raw[:REVISION]) for raw in found]

    async def set(self, key: str, value: bytes, *, expect: bytes | None, ttl: float | None) -> bytes:
        loop = asyncio.get_running_loop()
        revision = self._ports.bits(REVISION)
        life: object = "" if ttl is None else max(1, math.ceil(1000 * ttl))
        args = (encoded(key), expect or b"", life, revision + value)
        batch = self._batch
        if batch is None or batch.loop is not loop:
            batch = self._batch = _Batch(loop)
            loop.call_soon(self._write, batch)
        write = _Write(args, len(value), loop.create_future())
        batch.writes.append(write)
        if not await write.done:
            raise Conflict(f"{key!r} has another revision than the expected one, or is gone")
        return revision

    def _write(self, batch: _Batch) -> None:
        if self._batch is batch:
            self._batch = None
        batch.tasks += [batch.loop.create_task(self._write_chunk(chunk)) for chunk in batch.chunks()]

    async def _write_chunk(self, chunk: Sequence[_Write]) -> None:
        args = [arg for write in chunk for arg in write.args]
        try:
            answers = await self._client().run("results_set", args, durable=True)
        except asyncio.CancelledError:
            for write in chunk:
                write.done.cancel()
            raise
        except Exception as error:  # it is everybody's
            for write in chunk:
                if not write.done.done():
                    write.done.set_exception(error)
        else:
            for write, accepted in zip(chunk, answers, strict=True):
                if not write.done.done():
                    write.done.set_result(bool(accepted))

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self._client().command("UNLINK", *(self._value(name) for name in keys))

    async def index_add(self, index: str, ids: Sequence[str], at: float) -> None:
        if ids:
            await self._run("results_add", encoded(index), repr(float(at)), *map(encoded, dict.fromkeys(ids)))

    async def index_page(self, index: str, limit: int, after: str | None) -> Sequence[str]:
        return list(map(text, await self._run("results_page", encoded(index), limit, encoded(after or ""))))

    async def index_remove(self, index: str, ids: Sequence[str]) -> None:
        if ids:
            await self._run("results_remove", encoded(index), *map(encoded, ids))

    def _value(self, name: str) -> bytes:
        return self._prefix + b"v:" + encoded(name)
