"""taskiq on Redis streams: `RedisStreamBroker` and `RedisAsyncResultBackend`.

`--ack-type when_saved`, its default, acknowledges once the result is stored. One worker process, N tasks at once;
the command line uses uvloop where it is installed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mark import URL, began, late
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

SETTINGS = "RedisStreamBroker, taskiq worker --workers 1 --max-async-tasks N --ack-type when_saved, results, uvloop"
JOBS = 2_000
DONE = [("DBSIZE",)]

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
    options = ("--workers", "1", "--max-async-tasks", str(concurrency), "--ack-type", "when_saved")
    command = [sys.executable, "-m", "taskiq", "worker", "adapters.taskiq:broker", "--log-level", "WARNING", *options]
    os.execv(sys.executable, command)


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    tasks = {"noop": noop, "sleep": sleep, "stamp": stamp}
    await broker.startup()
    yield lambda task, *args: tasks[task].kiq(*args)
    await broker.shutdown()
