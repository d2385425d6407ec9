"""celery: `task_acks_late`, so a message is acknowledged after the task has run, and the Redis result backend.

One process of N threads (`--pool threads`), as its guide has it for short tasks that wait; no gossip, mingle and
heartbeat. `worker_prefetch_multiplier` is 4 by default, as here; its guide has 128 for many short tasks. It has no bulk
enqueue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, chain, group
from mark import FASTEST, URL, began, late

SETTINGS = {
    "": "task_acks_late, Redis results, --pool threads --concurrency N, without gossip, mingle, heartbeat",
    "fastest": "acknowledges before running, task_ignore_result, worker_prefetch_multiplier 128, else the same",
}
JOBS = 1_000
SCENARIOS = ["drain_10", "drain_100", "enqueue", "latency", "chains", "groups"]
LEFT = None if FASTEST else [("LLEN", "celery"), ("HLEN", "unacked")]

app = Celery("adapters.celery", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
if FASTEST:
    app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=128)
else:
    app.conf.update(task_acks_late=True)


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


@contextmanager
def links() -> Iterator[Any]:
    def put_ten(kind: str) -> None:
        steps = [noop.si(5, 4) for _ in range(10)]
        (chain(*steps) if kind == "chain" else group(steps)).apply_async()

    yield put_ten
