"""mayu (a Rust core): "acks after the task finishes"; `result_ttl=3600` stores results, as in its quick start.

`--mode thread --threads N`, so that one process has N jobs at once; on a build with the GIL its default is a process
for each CPU with one thread. The sleeps are a coroutine on its event loop. Its workflows are used for chains and
groups; it has no bulk enqueue.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mark import FASTEST, URL, began, late
from mayu import App

SETTINGS = {
    "": "App(result_ttl=3600), worker --mode thread --threads N, one process, acknowledges after running",
    "fastest": "no results, --prefetch-multiplier 32, else the same",
}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "latency", "chains", "groups"]
if not FASTEST:  # with a deep prefetch more coroutines are at work than it has threads
    SCENARIOS.append("sleeps")
JOBS = 20_000
LEFT = [("XLEN", "mayu:{default}:stream")]

app = App(broker=URL, result_ttl=None if FASTEST else 3600)


@app.task(name="noop")
def noop(a: int, b: int) -> int:
    began()
    return a + b


@app.task(name="sleep")
async def sleep(seconds: float) -> float:
    began()
    await asyncio.sleep(seconds)
    return seconds


@app.task(name="stamp")
def stamp(sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    options = ["--mode", "thread", "--threads", str(concurrency), "--log-level", "WARNING"]
    options += ["--prefetch-multiplier", "32"] if FASTEST else []
    os.execv(sys.executable, [sys.executable, "-m", "mayu", "worker", "adapters.mayu:app", *options])


@contextmanager
def producer() -> Iterator[Any]:
    tasks = {"noop": noop, "sleep": sleep, "stamp": stamp}
    yield lambda task, *args: tasks[task].delay(*args)


@contextmanager
def links() -> Iterator[Any]:
    def put_ten(kind: str) -> None:
        workflow = app.workflow(kind)
        before: Any = ()
        for _ in range(10):
            node = workflow.add(noop.s(5, 4), after=before)
            before = node if kind == "chain" else ()
        workflow.send()

    yield put_ten
