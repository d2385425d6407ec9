"""taskiq on Redis streams: `RedisStreamBroker` and `RedisAsyncResultBackend`.

`--ack-type when_saved`, its default, acknowledges once the result is stored. One worker process, N tasks at once; the
command line uses uvloop where it is installed. Its fastest broker is a list, which has no acknowledgement. It has no
bulk enqueue; pipelines are a package of their own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mark import FASTEST, URL, began, late
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

SETTINGS = {
    "": "RedisStreamBroker, taskiq worker --workers 1 --max-async-tasks N --ack-type when_saved, results, uvloop",
    "fastest": "ListQueueBroker, no results, no acknowledgement, --max-prefetch 1000, --no-parse, uvloop",
}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "enqueue_100", "latency", "sleeps"]
JOBS = 2_000
DONE = None if FASTEST else [("DBSIZE",)]

broker: Any
if FASTEST:
    broker = ListQueueBroker(URL)
else:
    broker = RedisStreamBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=86_400))


@broker.task(task_name="noop")
async def noop(a: int, b: int) -> int:
    began()
    return a + b


@broker.task(task_name="sleep")
async def sleep(seconds: float) -> float:
    began()
    await asyncio.sleep(seconds)
    return seconds


@broker.task(task_name="stamp")
async def stamp(sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    options = ["--workers", "1", "--max-async-tasks", str(concurrency)]
    options += ["--max-prefetch", "1000", "--no-parse"] if FASTEST else ["--ack-type", "when_saved"]
    command = [sys.executable, "-m", "taskiq", "worker", "adapters.taskiq:broker", "--log-level", "WARNING", *options]
    os.execv(sys.executable, command)


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    tasks = {"noop": noop, "sleep": sleep, "stamp": stamp}
    await broker.startup()
    yield lambda task, *args: tasks[task].kiq(*args)
    await broker.shutdown()
