"""celery: `task_acks_late`, so a message is acknowledged after the task has run, and the Redis result backend.

One process of N threads (`--pool threads`), as its guide has it for short tasks that wait; no gossip, mingle and
heartbeat. `worker_prefetch_multiplier` is 4 by default, as here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from mark import URL, began, late

SETTINGS = "task_acks_late, Redis results, --pool threads --concurrency N, without gossip, mingle, heartbeat"
JOBS = 1_000
SCENARIOS = ["drain_10", "drain_100", "latency"]
LEFT = [("LLEN", "celery"), ("HLEN", "unacked")]

app = Celery("adapters.celery", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)


@app.task(name="noop")
def noop(a: int, b: int) -> int:
    began()
    return a + b


@app.task(name="stamp")
def stamp(sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    options = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR")
    app.worker_main(["worker", "--pool", "threads", "--concurrency", str(concurrency), *options])


@contextmanager
def producer() -> Iterator[Any]:
    tasks = {"noop": noop, "stamp": stamp}
    yield lambda task, *args: tasks[task].delay(*args)
