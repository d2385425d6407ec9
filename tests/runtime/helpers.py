"""Small instruments for the tests of the runtime."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tasqueue import Server
from tasqueue.interfaces import Engine
from tasqueue.runtime.worker import Worker

SOON = 10.0
"""Seconds that nothing here takes, unless it hangs."""


@contextlib.asynccontextmanager
async def working(*servers: Server) -> AsyncIterator[None]:
    """Their workers run inside, and are stopped after it."""
    tasks = [asyncio.create_task(server.start()) for server in servers]
    await asyncio.sleep(0)  # they begin: to stop what has not begun is nothing
    try:
        yield
    finally:
        for server in servers:
            await server.stop()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def worker_of(server: Server, **options: Any) -> AsyncIterator[Worker]:
    """A Worker with options that `start` does not have."""
    worker = Worker(await server.parts(), **options)
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await task


async def soon(awaitable: Awaitable[Any]) -> Any:
    """Its result, unless it hangs."""
    async with asyncio.timeout(SOON):
        return await awaitable


async def until(holds: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> Any:
    """Ask again and again, for what gives no signal; what it said when it was true."""
    async with asyncio.timeout(SOON):
        while True:
            said = holds()
            if asyncio.iscoroutine(said):
                said = await said
            if said:
                return said
            await asyncio.sleep(0.01)


async def engine_of(server: Server) -> Engine:
    """The engine that this Server works with."""
    return (await server.parts()).engine


class Elsewhere:
    """A Server that works in a thread, on a loop of its own; it begins when `after` is set."""

    def __init__(self, server: Server, after: threading.Event | None = None) -> None:
        self.server = server
        self._after = after
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)

    def _main(self) -> None:
        if self._after is not None:
            self._after.wait(SOON)

        async def work() -> None:
            self.loop.call_soon(self._ready.set)
            await self.server.start()
            await self.server.close()

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(work())

    async def __aenter__(self) -> Elsewhere:
        self._thread.start()
        if self._after is None:
            await asyncio.to_thread(self._ready.wait)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop)
        await asyncio.to_thread(self._thread.join, SOON)
        assert not self._thread.is_alive()
