"""rq: `SimpleWorker`, which runs in its own process instead of forking for each job: the fastest worker it documents.

A worker runs one job at a time, whatever the concurrency asked for. A started job is in a registry until its success,
result and finish are stored by one pipeline; `result_ttl` is 500 s by default, as here; 0 stores none. Chains are jobs
that depend on each other, groups its `Group`; `enqueue_many` is its bulk enqueue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mark import FASTEST, URL, began, late
from redis import Redis
from rq import Queue, SimpleWorker
from rq.group import Group

SETTINGS = {
    "": "SimpleWorker (no fork per job), one job at a time, result_ttl 500 s; started jobs are in a registry",
    "fastest": "the same with result_ttl=0: no results",
}
JOBS = 500
SCENARIOS = ["drain_10", "enqueue", "enqueue_many", "latency", "chains", "groups"]
DONE = None if FASTEST else [("ZCARD", "rq:finished:default")]
OPTIONS = {"result_ttl": 0} if FASTEST else {}


def noop(a: int, b: int) -> int:
    began()
    return a + b


def stamp(sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    connection = Redis.from_url(URL)
    SimpleWorker([Queue(connection=connection)], connection=connection).work(logging_level="WARNING")


@contextmanager
def producer() -> Iterator[Any]:
    queue = Queue(connection=Redis.from_url(URL))
    yield lambda task, *args: queue.enqueue(f"adapters.rq.{task}", *args, **OPTIONS)


@contextmanager
def bulk() -> Iterator[Any]:
    queue = Queue(connection=Redis.from_url(URL))
    yield lambda task, many: queue.enqueue_many(
        [Queue.prepare_data(f"adapters.rq.{task}", args, **OPTIONS) for args in many]
    )


@contextmanager
def links() -> Iterator[Any]:
    connection = Redis.from_url(URL)
    queue = Queue(connection=connection)

    def put_ten(kind: str) -> None:
        if kind == "group":
            jobs = [Queue.prepare_data("adapters.rq.noop", (5, 4)) for _ in range(10)]
            Group.create(connection).enqueue_many(queue, jobs)
            return
        job = None
        for _ in range(10):
            job = queue.enqueue("adapters.rq.noop", 5, 4, depends_on=job)

    yield put_ten
