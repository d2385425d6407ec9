"""One handler per name, one concurrency per queue; `auto` resolved by what the handler is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec import UNSET

from tasqueue import DEFAULT_QUEUE, InvalidJob, QueueConflict
from tasqueue.client.registry import Registry, define


def sync_handler(payload: bytes, ctx: Any) -> bytes:
    return payload


async def async_handler(payload: bytes, ctx: Any) -> bytes:
    return payload


class AsyncCallable:
    async def __call__(self, payload: bytes, ctx: Any) -> None: ...

    async def method(self, payload: bytes, ctx: Any) -> None: ...


class SyncCallable:
    def __call__(self, payload: bytes, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "executor"),
    [
        (sync_handler, "thread"),
        (async_handler, "loop"),
        (functools.partial(async_handler, ctx=None), "loop"),
        (functools.partial(functools.partial(AsyncCallable()), ctx=None), "loop"),
        (functools.partial(sync_handler, ctx=None), "thread"),
        (AsyncCallable(), "loop"),
        (AsyncCallable().method, "loop"),
        (SyncCallable(), "thread"),
        (lambda payload, ctx: None, "thread"),
    ],
)
def test_auto_is_resolved(handler: Callable[..., Any], executor: str) -> None:
    task = define("t", handler)
    assert task.executor == executor
    assert task.handler is handler


async def test_a_sync_handler_that_asks_for_the_loop_is_awaitable() -> None:
    task = define("t", sync_handler, executor="loop")
    assert task.executor == "loop"
    assert await task.handler(b"x", None) == b"x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "green"}, "'green'"),
        ({"executor": "thread", "handler": async_handler}, "an async function runs on the loop"),
        ({"handler": 5}, "5 is not callable"),
        ({"failed_cb": 5}, "5 is not callable"),
        ({"name": "a b"}, "'a b'"),
        ({"queue": ""}, "queue ''"),
        ({"max_retries": -1}, "max_retries -1"),
        ({"timeout": 0}, "timeout 0"),
        ({"backoff": []}, "backoff"),
        ({"result_ttl": -1}, "result_ttl -1"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"name": "t", "handler": sync_handler, **options}
    with pytest.raises(InvalidJob, match=message.replace("(", r"\(")):
        define(**arguments)


@pytest.mark.parametrize(
    ("ttl", "stored"), [(None, None), (0, 0), (1.5, 1500), (timedelta(minutes=1), 60_000), (UNSET, UNSET)]
)
def test_result_ttl_is_kept_in_ms(ttl: Any, stored: Any) -> None:
    assert define("t", sync_handler, result_ttl=ttl).result_ttl == stored


def test_a_second_handler_under_a_name_is_refused_and_changes_nothing() -> None:
    registry = Registry()
    registry.add(define("t", sync_handler), None)
    with pytest.raises(InvalidJob, match=r"'t' is registered already, with .*sync_handler.*async_handler"):
        registry.add(define("t", async_handler, queue="new"), None)
    assert registry.tasks["t"].handler is sync_handler
    assert registry.queues == {DEFAULT_QUEUE: None}


def test_the_first_task_that_names_a_concurrency_sets_it() -> None:
    registry = Registry()
    registry.add(define("a", sync_handler, queue="q"), None)
    registry.add(define("b", sync_handler, queue="q"), 5)
    registry.add(define("c", sync_handler, queue="q"), None)
    registry.add(define("d", sync_handler, queue="q"), 5)
    assert registry.queues == {"q": 5}
    with pytest.raises(QueueConflict, match=r"concurrency 6 of queue 'q', which has 5"):
        registry.add(define("e", sync_handler, queue="q"), 6)
    assert "e" not in registry.tasks


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "5"])
def test_a_concurrency_is_a_whole_number_from_one(concurrency: Any) -> None:
    with pytest.raises(InvalidJob, match="a whole number from 1"):
        Registry().add(define("t", sync_handler), concurrency)


def test_the_worker_learns_of_each_addition() -> None:
    registry = Registry()
    seen: list[list[str]] = []
    registry.changed = lambda: seen.append(list(registry.tasks))
    registry.add(define("a", sync_handler), None)
    registry.add(define("b", sync_handler), None)
    with pytest.raises(InvalidJob):
        registry.add(define("b", sync_handler), None)
    assert seen == [["a"], ["a", "b"]]


def test_queue_of() -> None:
    registry = Registry()
    registry.add(define("a", sync_handler, queue="q"), None)
    assert registry.queue_of("a") == "q"
    assert registry.queue_of("unknown") == DEFAULT_QUEUE
