"""streaq: streams with a consumer group; a job is acknowledged by the transaction that stores its result.

`ttl` of results is 5 minutes by default, as here; `silent` tasks log nothing. uvloop is chosen by `anyio_kwargs`. Its
`then` is used for chains, in which each step gets the result before; it has no group.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mark import FASTEST, URL, began, late
from streaq import Worker

SETTINGS = {
    "": "Worker(concurrency=N), silent tasks, results 5 min in the transaction that acknowledges, coroutines, uvloop",
    "fastest": "the same with ttl=0: no results; prefetch=1000; acknowledges after running, which is its only mode",
}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "enqueue_100", "enqueue_many", "latency", "sleeps", "chains"]
JOBS = 2_000
DONE = None if FASTEST else [("ZCARD", "streaq:default:index:results")]
OPTIONS: dict[str, Any] = {"silent": True, **({"ttl": 0} if FASTEST else {})}


def _worker(concurrency: int) -> tuple[Worker, dict[str, Any]]:
    prefetch = 1000 if FASTEST else None
    worker = Worker(redis_url=URL, concurrency=concurrency, prefetch=prefetch, anyio_kwargs={"use_uvloop": True})

    @worker.task(name="noop", **OPTIONS)
    async def noop(a: int, b: int) -> int:
        began()
        return a + b

    @worker.task(name="sleep", **OPTIONS)
    async def sleep(seconds: float) -> float:
        began()
        await asyncio.sleep(seconds)
        return seconds

    @worker.task(name="stamp", **OPTIONS)
    async def stamp(sent: float) -> None:
        late(sent)

    @worker.task(name="step", **OPTIONS)
    async def step(before: int) -> int:
        began()
        return before

    return worker, {"noop": noop, "sleep": sleep, "stamp": stamp, "step": step}


def work(concurrency: int) -> None:
    logging.getLogger("streaq").setLevel(logging.WARNING)
    _worker(concurrency)[0].run_sync()


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    worker, tasks = _worker(1)
    async with worker:

        async def put(task: str, *args: Any) -> None:
            await tasks[task].enqueue(*args)

        yield put


@asynccontextmanager
async def bulk() -> AsyncIterator[Any]:
    worker, tasks = _worker(1)
    async with worker:
        yield lambda task, many: worker.enqueue_many([tasks[task].enqueue(*args) for args in many])


@asynccontextmanager
async def links() -> AsyncIterator[Any]:
    worker, tasks = _worker(1)
    async with worker:

        async def put_ten(kind: str) -> None:
            last = tasks["step"].enqueue(9)
            for _ in range(9):
                last = last.then(tasks["step"])
            await last

        yield put_ten
