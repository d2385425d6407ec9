"""Ours: `srv.run()`, one process, typed coroutines, everything else by default.

A job is acknowledged by the finish, which stores status and result in the same atomic step, if the worker's token still
holds it. Results are kept for a day. Drains are filled by `enqueue_many`; `enqueue` is one by one as everybody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from mark import URL, began, late

from tasqueue import Server, __version__

SETTINGS = "srv.run(), one process, coroutines; finish, acknowledgement and result are one atomic step (the only mode)"
VERSIONS = {"tasqueue": __version__}  # which need not be installed
JOBS = 50_000
DONE = [("HGET", "{tasqueue}:n", "4")]


def _server(concurrency: int) -> tuple[Server, dict[str, Any]]:
    srv = Server(URL, default_concurrency=concurrency)

    @srv.task
    async def noop(a: int, b: int) -> int:
        began()
        return a + b

    @srv.task
    async def sleep(seconds: float) -> float:
        began()
        await asyncio.sleep(seconds)
        return seconds

    @srv.task
    async def stamp(sent: float) -> None:
        late(sent)

    return srv, {"noop": noop, "sleep": sleep, "stamp": stamp}


def work(concurrency: int) -> None:
    _server(concurrency)[0].run()


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    srv, tasks = _server(1)
    async with srv:
        yield lambda task, *args: tasks[task].enqueue(*args)


async def fill(n: int, task: str, *args: Any) -> float:
    """In batches of 1,000; jobs/s, making them counted."""
    srv, tasks = _server(1)
    async with srv:
        start_at = monotonic()
        for start in range(0, n, 1000):
            await srv.enqueue_many([tasks[task].job(*args) for _ in range(min(1000, n - start))])
        return n / (monotonic() - start_at)
