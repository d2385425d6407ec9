"""What the client's tests share: a Server on a private memory engine, a worker beside a test, a worker by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tasqueue import DEFAULT_QUEUE, Server
from tasqueue.core.record import Kind, Lease, Record, Step
from tasqueue.core.status import State
from tasqueue.interfaces import Engine


@asynccontextmanager
async def working(srv: Server) -> AsyncIterator[None]:
    """A worker of `srv` runs inside."""
    task = asyncio.create_task(srv.start())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        await srv.stop()
        await task


async def engine_of(srv: Server) -> Engine:
    """Its open engine."""
    return (await srv.parts()).engine


class Hand:
    """A worker by hand: it holds what it claims until it is told what becomes of it."""

    def __init__(self, engine: Engine, name: str = "w1") -> None:
        self.engine = engine
        self.name = name
        self.number = 0

    async def register(self, tasks: dict[str, str], lease: int = 60_000) -> None:
        """Begin, serving these tasks and their queues with a concurrency of 10 each."""
        info = msgspec.msgpack.encode({"queues": dict.fromkeys(tasks.values(), 10), "tasks": list(tasks), "busy": 0})
        await self.engine.register(self.name, lease, info, tasks, 1)

    async def claim(self, queue: str = DEFAULT_QUEUE, limit: int = 10) -> list[Lease]:
        """What is ready."""
        self.number += 1
        return list((await self.engine.claim(self.name, self.number, {queue: limit})).leases)

    async def end(
        self, lease: Lease, state: State, result: bytes | None = None, tail: bytes = b"", ttl: int = 60_000
    ) -> None:
        """Settle it."""
        step = Step(
            lease.id,
            lease.claim,
            Kind.END,
            state,
            tail,
            result,
            ttl=ttl,
            link=lease.link,
            pos=lease.pos,
            ref=lease.ref,
        )
        assert await self.engine.settle(self.name, [step]) == [True]


class Spy:
    """Counts what reaches an engine's `submit`, and passes it on."""

    def __init__(self, engine: Engine) -> None:
        self.calls: list[Sequence[Record]] = []
        self.error: Exception | None = None
        self._submit = engine.submit
        engine.submit = self  # type: ignore[method-assign]

    async def __call__(self, records: Sequence[Record], links: Sequence[Any] = ()) -> None:
        self.calls.append(list(records))
        if self.error is not None:
            raise self.error
        await self._submit(records, links)
