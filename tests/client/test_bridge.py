"""The blocking bridge: the same calls from any thread, never on one whose loop is running."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.client.support import working

from tasqueue import Chain, Group, InvalidJob, Job, JobFailed, NotFound, Server, Status
from tasqueue.client.bridge import SyncHandle, SyncServer


@pytest.fixture
def blocking() -> Iterator[Server]:
    srv = Server("memory://")
    yield srv
    srv.sync.close()


def bridges() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tasqueue-sync"]


def test_every_call_of_the_server_has_its_twin() -> None:
    not_calls = {"start", "stop", "work", "parts", "close"}
    asynchronous = {name for name, fn in vars(Server).items() if inspect.iscoroutinefunction(fn)}
    twins = {name for name in vars(SyncServer) if not name.startswith("_")}
    assert {name for name in asynchronous if not name.startswith("_")} - not_calls <= twins


def test_the_calls_block(blocking: Server) -> None:
    sync = blocking.sync
    assert sync.enqueue(Job("t", id="a")) == "a"
    assert sync.enqueue_many([Job("t", id="b"), Job("t", id="c")]) == ["b", "c"]
    assert sync.enqueue_chain(Chain([Job("t"), Job("t")], id="ch")) == "ch"
    assert sync.enqueue_group(Group([Job("t")], id="g")) == "g"
    assert [m.meta.id for m in sync.get_pending(limit=3)] == ["a", "b", "c"]
    assert sync.get_job("a").meta.status is Status.QUEUED
    assert sync.get_chain("ch").job_id == "ch~c0"
    assert sync.get_group("g").status is Status.PROCESSING
    assert sync.cancel("a") is True
    assert sync.wait("a", timeout=1).meta.status is Status.CANCELLED
    assert sync.retry("a") is True
    assert sync.explain("b").code == "no-worker"
    with pytest.raises(NotFound):
        sync.get_result("nope")
    with pytest.raises(TimeoutError):
        sync.wait("a", timeout=0)
    assert sync.get_tasks() == []
    assert len(bridges()) == 1


def test_tasks_and_handles_block(blocking: Server) -> None:
    @blocking.task
    async def add(a: int, b: int) -> int:
        return a + b

    handle = add.sync.enqueue(5, 4)
    assert isinstance(handle, SyncHandle)
    assert repr(handle) == f"SyncHandle({handle.id!r})"
    assert handle.status() is Status.QUEUED
    assert handle.message().job.task == "add"
    assert add.sync.job(5, 4) == add.job(5, 4)
    assert add.options(id="mine").sync.enqueue(5, 4).id == "mine"
    assert handle.cancel() is True
    with pytest.raises(InvalidJob):
        add.sync.enqueue("5", 4)  # type: ignore[arg-type]


async def test_results_arrive_in_threads_beside_a_running_loop(srv: Server) -> None:
    @srv.task
    async def divide(a: int, b: int) -> float:
        return a / b

    def use() -> list[Any]:
        good, bad = divide.sync.enqueue(6, 3), divide.sync.enqueue(6, 0)
        with pytest.raises(JobFailed, match="ZeroDivisionError"):
            bad.result(timeout=5)
        return [good.result(timeout=5), srv.sync.handle(good.id, float).result(), good.id]

    async with working(srv):
        two, again, id = await asyncio.to_thread(use)
        assert (two, again) == (2.0, 2.0)
        assert await srv.get_result(id) == b"\xcb@\x00\x00\x00\x00\x00\x00\x00"


async def test_a_sync_handler_may_block_on_it(srv: Server) -> None:
    @srv.task
    async def inner(n: int) -> int:
        return n + 1

    @srv.task
    def outer(n: int) -> int:
        return inner.sync.enqueue(n).result(timeout=5) + 1

    async with working(srv):
        assert await (await outer.enqueue(1)).result(timeout=5) == 3


async def test_on_a_running_loop_it_names_what_to_await(srv: Server) -> None:
    @srv.task
    async def add(a: int) -> int:
        return a

    for call, awaitable in (
        (lambda: srv.sync.enqueue(Job("t")), r"await srv\.enqueue\(\.\.\.\)"),
        (lambda: srv.sync.get_job("x"), r"await srv\.get_job\(\.\.\.\)"),
        (lambda: add.sync.enqueue(1), r"await add\.enqueue\(\.\.\.\)"),
        (lambda: add.options(queue="q").sync.enqueue(1), r"await add\.enqueue\(\.\.\.\)"),
        (lambda: srv.sync.handle("x").result(), r"await handle\.result\(\.\.\.\)"),
    ):
        with pytest.raises(RuntimeError, match=awaitable):
            call()
    assert bridges() == []


def test_many_threads_share_one_bridge(blocking: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda i: blocking.sync.enqueue(Job("t", id=f"j{i}")), range(100)))
    assert len(ids) == 100
    assert len(bridges()) == 1


def test_hooks_see_the_context_of_the_caller(blocking: Server) -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="")
    blocking.before_enqueue(lambda job: job.replace(headers={"trace": trace.get()}))
    trace.set("mine")
    id = blocking.sync.enqueue(Job("t"))
    assert blocking.sync.get_job(id).job.headers == {"trace": "mine"}


async def test_closing_the_server_ends_the_thread() -> None:
    srv = Server("memory://")
    async with srv:
        await asyncio.to_thread(srv.sync.enqueue, Job("t", id="a"))
        assert len(bridges()) == 1
    assert bridges() == []
    assert (await asyncio.to_thread(srv.sync.get_job, "a")).meta.id == "a"
    await srv.close()
    assert bridges() == []


def test_a_server_that_is_dropped_takes_its_thread_along() -> None:
    srv = Server("memory://")
    srv.sync.enqueue(Job("t"))
    gone = weakref.ref(srv)
    del srv
    gc.collect()
    assert gone() is None
    assert bridges() == []


def test_the_process_ends_though_nobody_closed_it(tmp_path: Any) -> None:
    code = (
        "from tasqueue import Job, Server\n"
        f"srv = Server('sqlite:///{tmp_path}/q.db')\n"
        "print(srv.sync.enqueue(Job('t', id='a')))\n"
    )
    command = [sys.executable, "-X", "dev", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")
