"""rq: `SimpleWorker`, which runs in its own process instead of forking for each job: the fastest worker it documents.

A worker runs one job at a time, whatever the concurrency asked for. A started job is in a registry until its success,
result and finish are stored by one pipeline; `result_ttl` is 500 s by default, as here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mark import URL, began, late
from redis import Redis
from rq import Queue, SimpleWorker

SETTINGS = "SimpleWorker (no fork per job), one job at a time, result_ttl 500 s; started jobs are in a registry"
JOBS = 500
SCENARIOS = ["drain_10", "latency"]
DONE = [("ZCARD", "rq:finished:default")]


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
    yield lambda task, *args: queue.enqueue(f"adapters.rq.{task}", *args)
