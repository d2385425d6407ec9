"""dramatiq: messages are acknowledged after the actor has run; `Results` with `RedisBackend` stores what it returned.

One process of N threads (`--processes 1 --threads N`). A message leaves `dramatiq:default.msgs` when it is
acknowledged, which is after its result was stored. Its pipelines and groups are used for chains and groups; the
messages of a pipeline ignore the result before. It has no bulk enqueue.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from mark import FASTEST, URL, began, late

SETTINGS = {
    "": "RedisBroker, Results(RedisBackend, store_results), --processes 1 --threads N; acknowledges after running",
    "fastest": "no results, else the same; a deeper prefetch is slower",
}
JOBS = 3_000
SCENARIOS = ["drain_10", "drain_100", "enqueue", "latency", "chains", "groups"]
LEFT = None if FASTEST else [("HLEN", "dramatiq:default.msgs")]

broker = RedisBroker(url=URL)
if not FASTEST:
    broker.add_middleware(Results(backend=RedisBackend(url=URL), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(a: int, b: int) -> int:
    began()
    return a + b


@dramatiq.actor
def stamp(sent: float) -> None:
    late(sent)


def work(concurrency: int) -> None:
    options = ("--processes", "1", "--threads", str(concurrency))
    os.execv(sys.executable, [sys.executable, "-m", "dramatiq", "adapters.dramatiq", *options])


@contextmanager
def producer() -> Iterator[Any]:
    tasks = {"noop": noop, "stamp": stamp}
    yield lambda task, *args: tasks[task].send(*args)


@contextmanager
def links() -> Iterator[Any]:
    def put_ten(kind: str) -> None:
        messages = [noop.message_with_options(args=(5, 4), pipe_ignore=True) for _ in range(10)]
        (dramatiq.pipeline(messages) if kind == "chain" else dramatiq.group(messages)).run()

    yield put_ten
