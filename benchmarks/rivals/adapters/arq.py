"""arq: "pessimistic execution": a job stays in the queue until it has finished; then its result is stored and it goes.

`keep_result` is 3,600 s by default, as here. A worker polls: every `poll_delay` (0.5 s by default, which would be the
latency, and the speed of a drain with few slots), so 10 ms here. No log line for each result (`log_results=False`). It
has no bulk enqueue, chain or group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import Worker, create_pool
from arq.connections import RedisSettings
from child import run
from mark import FASTEST, URL, began, late

SETTINGS = {
    "": "Worker(max_jobs=N, poll_delay=0.01), keep_result 3600 s, acknowledges after running, coroutines, uvloop",
    "fastest": "the same with keep_result=0: no results; acknowledges after running, which is its only mode",
}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "enqueue_100", "latency", "sleeps"]
JOBS = 2_000
LEFT = [("ZCARD", "arq:queue")]


async def noop(ctx: Any, a: int, b: int) -> int:
    began()
    return a + b


async def sleep(ctx: Any, seconds: float) -> float:
    began()
    await asyncio.sleep(seconds)
    return seconds


async def stamp(ctx: Any, sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    async def start() -> None:
        worker = Worker(
            [noop, sleep, stamp],
            redis_settings=RedisSettings.from_dsn(URL),
            queue_name="arq:queue",
            max_jobs=concurrency,
            poll_delay=0.01,
            keep_result=0 if FASTEST else 3600,
            log_results=False,
            handle_signals=False,
        )
        await worker.async_run()

    run(start())


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    pool = await create_pool(RedisSettings.from_dsn(URL))
    yield pool.enqueue_job
    await pool.aclose()
