"""huey: `RedisHuey`, N threads in one process, results stored.

It has no acknowledgement after running: a job is taken by a blocking pop, and lost when the worker dies with it. This
is its only mode, so its figures are those of a weaker promise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huey import RedisHuey
from mark import URL, began, late

SETTINGS = "RedisHuey, consumer with N threads, results; NO acknowledgement after running: it has none"
JOBS = 3_000
SCENARIOS = ["drain_10", "drain_100", "latency"]
DONE = [("HLEN", "huey.results.bench")]

huey = RedisHuey("bench", url=URL)


@huey.task()
def noop(a: int, b: int) -> int:
    began()
    return a + b


@huey.task()
def stamp(sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    logging.getLogger("huey").setLevel(logging.WARNING)
    huey.create_consumer(workers=concurrency, worker_type="thread", periodic=False).run()


@contextmanager
def producer() -> Iterator[Any]:
    tasks = {"noop": noop, "stamp": stamp}
    yield lambda task, *args: tasks[task](*args)
