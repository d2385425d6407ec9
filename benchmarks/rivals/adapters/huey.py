"""huey: `RedisHuey`, N threads in one process, results stored.

It has no acknowledgement after running: a job is taken by a blocking pop, and lost when the worker dies with it. This
is its only mode, so its figures are those of a weaker promise. Its `then` and `group` are used for chains and groups;
each step gets the result before. It has no bulk enqueue.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huey import RedisHuey, group
from mark import FASTEST, URL, began, late

SETTINGS = {
    "": "RedisHuey, consumer with N threads, results; NO acknowledgement after running: it has none",
    "fastest": "the same with results=False",
}
ACKNOWLEDGES = False
JOBS = 3_000
SCENARIOS = ["drain_10", "drain_100", "enqueue", "latency", "chains", "groups"]
DONE = None if FASTEST else [("HLEN", "huey.results.bench")]

huey = RedisHuey("bench", url=URL, results=not FASTEST)


@huey.task()
def noop(a: int, b: int) -> int:
    began()
    return a + b


@huey.task()
def step(*args: int) -> int:
    began()
    return sum(args)


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


@contextmanager
def links() -> Iterator[Any]:
    def put_ten(kind: str) -> None:
        if kind == "group":
            huey.enqueue(group([noop.s(5, 4) for _ in range(10)]))
            return
        first = step.s(5, 4)
        for _ in range(9):
            first.then(step)
        huey.enqueue(first)

    yield put_ten
