"""saq: a worker acknowledges by the pipeline that stores the job's result and takes it off the active list.

Its one mode is at-least-once: a job stays on `active` until it is finished. `ttl` is how long a result is kept (600 s
by default, as here; -1 stores none). Everything else by default; uvloop's loop is ours to choose, since
`Worker.start()` is a coroutine. It has no bulk enqueue, chain or group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from child import run
from mark import FASTEST, URL, began, late
from saq import Queue, Worker

SETTINGS = {
    "": "Worker(concurrency=N), defaults (finish and result in one pipeline, ttl 600 s), coroutines, uvloop",
    "fastest": "the same with ttl=-1: no results; acknowledges after running, which is its only mode",
}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "enqueue_100", "latency", "sleeps"]
JOBS = 2_000
LEFT = [("ZCARD", "saq:default:incomplete")]


async def noop(ctx: Any, *, a: int, b: int) -> int:
    began()
    return a + b


async def sleep(ctx: Any, *, a: float) -> float:
    began()
    await asyncio.sleep(a)
    return a


async def stamp(ctx: Any, *, a: float) -> None:
    late(a)


def work(concurrency: int) -> None:
    async def start() -> None:
        await Worker(Queue.from_url(URL), [noop, sleep, stamp], concurrency=concurrency).start()

    run(start())


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    queue = Queue.from_url(URL)
    await queue.connect()
    options = {"ttl": -1} if FASTEST else {}
    yield lambda task, *args: queue.enqueue(task, **dict(zip("ab", args, strict=False)), **options)
    await queue.disconnect()
