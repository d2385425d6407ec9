"""streaq: streams with a consumer group; a job is acknowledged by the transaction that stores its result.

`ttl` of results is 5 minutes by default, as here; `silent` tasks log nothing. uvloop is chosen by `anyio_kwargs`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mark import URL, began, late
from streaq import Worker

SETTINGS = "Worker(concurrency=N), silent tasks, results 5 min in the transaction that acknowledges, coroutines, uvloop"
JOBS = 2_000
DONE = [("ZCARD", "streaq:default:index:results")]


def _worker(concurrency: int) -> tuple[Worker, dict[str, Any]]:
    worker = Worker(redis_url=URL, concurrency=concurrency, anyio_kwargs={"use_uvloop": True})

    @worker.task(name="noop", silent=True)
    async def noop(a: int, b: int) -> int:
        began()
        return a + b

    @worker.task(name="sleep", silent=True)
    async def sleep(seconds: float) -> float:
        began()
        await asyncio.sleep(seconds)
        return seconds

    @worker.task(name="stamp", silent=True)
    async def stamp(sent: float) -> None:
        late(sent)

    return worker, {"noop": noop, "sleep": sleep, "stamp": stamp}


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
