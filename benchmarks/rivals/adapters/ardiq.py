"""ardiq (a Rust core): streams with a consumer group; "a task is acknowledged only after it terminates".

Results are stored for their default time. `concurrency=N`; the rest by default; uvloop runs the coroutines. It has no
chain or group; `enqueue_many` is its bulk enqueue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ardiq import Ardiq
from child import run
from mark import FASTEST, URL, began, late

SETTINGS = {
    "": "Ardiq(concurrency=N), one process, acknowledges after running, results by default, coroutines, uvloop",
    "fastest": "the same with result_ttl_ms=0: no results; prefetch=1000",
}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "enqueue_100", "enqueue_many", "latency", "sleeps"]
JOBS = 20_000
DONE = None if FASTEST else [("ZCARD", "ardiq:bench:index:results")]
OPTIONS = {"result_ttl_ms": 0, "prefetch": 1000} if FASTEST else {}


def _app(concurrency: int) -> tuple[Ardiq, dict[str, Any]]:
    app = Ardiq(redis_url=URL, queue_name="bench", concurrency=concurrency, **OPTIONS)

    @app.task(name="noop")
    async def noop(a: int, b: int) -> int:
        began()
        return a + b

    @app.task(name="sleep")
    async def sleep(seconds: float) -> float:
        began()
        await asyncio.sleep(seconds)
        return seconds

    @app.task(name="stamp")
    async def stamp(sent: float) -> None:
        late(sent)

    return app, {"noop": noop, "sleep": sleep, "stamp": stamp}


def work(concurrency: int) -> None:
    async def start() -> None:
        await _app(concurrency)[0].run()

    run(start())


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    _, tasks = _app(1)
    yield lambda task, *args: tasks[task].enqueue(*args)


@asynccontextmanager
async def bulk() -> AsyncIterator[Any]:
    app, tasks = _app(1)
    yield lambda task, many: app.enqueue_many([tasks[task].prepare(*args) for args in many])
