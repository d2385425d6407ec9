"""Server and configuration: V1 to V8 of docs/original.md; each test fails if we do as the original does.

V9, a README that says what is not so, is `tests/docs/test_examples.py`, which runs each of its examples.
"""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Make
from tests.runtime.helpers import soon, working

from tasqueue import DEFAULT_QUEUE, InvalidJob, Job, JobCtx, Server, TasqueueError, Unsupported

from .helpers import all_succeed, flaky, nothing

MANY = 500
"""Jobs, enough for a leak of one thing per job to show."""


def contexts() -> int:
    """How many job contexts live."""
    gc.collect()
    return sum(type(one) is JobCtx for one in gc.get_objects())


async def test_V1_a_span_per_run_ends_with_it_and_nothing_is_left(srv: Server) -> None:
    parent: ContextVar[str] = ContextVar("parent", default="")
    parents: set[str] = set()
    open_now: set[str] = set()
    most = 0

    @srv.around
    async def traced(ctx: JobCtx, call_next: Any) -> None:
        nonlocal most
        parents.add(parent.get())
        token = parent.set(ctx.meta.id)
        open_now.add(ctx.meta.id)
        most = max(most, len(open_now))
        try:
            await call_next(ctx)
        finally:
            open_now.remove(ctx.meta.id)
            parent.reset(token)

    srv.register_task("t", nothing)
    before = contexts()
    async with working(srv):
        await all_succeed(srv, await srv.enqueue_many([Job("t") for _ in range(MANY)]))
        assert contexts() - before < MANY / 5
    assert parents == {""}  # none is nested in the one before
    assert open_now == set()
    assert most <= 4  # as many as run side by side


async def test_V2_a_timeout_leaves_nothing_behind(make: Make) -> None:
    """Also beside a job that runs all the time, whose own deadline comes first."""
    srv = make(default_concurrency=2, default_timeout=3600)
    entered, go = asyncio.Event(), asyncio.Event()

    async def waits(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await go.wait()

    srv.register_task("waits", waits)
    srv.register_task("t", nothing)
    before = contexts()
    async with working(srv):
        slow = await srv.enqueue(Job("waits"))
        await soon(entered.wait())
        await all_succeed(srv, await srv.enqueue_many([Job("t") for _ in range(MANY)]))
        left = contexts() - before
        go.set()
        await all_succeed(srv, [slow])
    assert left < MANY / 5


async def test_V3_a_second_task_may_share_a_queue_without_naming_its_concurrency(srv: Server) -> None:
    now = most = 0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    srv.register_task("a", handler, queue="q", concurrency=5)
    srv.register_task("b", handler, queue="q")
    async with working(srv):
        await all_succeed(srv, await srv.enqueue_many([Job(task) for _ in range(30) for task in ("a", "b")]))
    assert most == 5


async def test_V4_a_job_goes_to_its_tasks_queue(make: Make) -> None:
    worker, producer = make(), make()
    worker.register_task("t", nothing, queue="qa")
    async with working(worker):
        mine = await worker.enqueue(Job("t", on_success=Job("t")))
        await all_succeed(worker, [mine])
        theirs = await producer.enqueue(Job("t", on_success=Job("t")))  # of a process that does not know the task
        await all_succeed(producer, [theirs, f"{mine}~s0", f"{theirs}~s0"])
        for id in (mine, theirs, f"{mine}~s0", f"{theirs}~s0"):
            assert (await producer.get_job(id)).meta.queue == "qa"


async def test_V5_a_task_registered_after_the_start_is_served(make: Make) -> None:
    srv = make()
    srv.register_task("first", nothing)
    async with working(srv):
        await all_succeed(srv, [await srv.enqueue(Job("first"))])
        early = await srv.enqueue(Job("later", queue="new"))
        await asyncio.to_thread(srv.register_task, "later", nothing, queue="new")
        await all_succeed(srv, [early, await srv.enqueue(Job("later"))])


async def test_V6_there_is_no_job_without_a_queue(srv: Server) -> None:
    with pytest.raises(InvalidJob, match="queue ''"):
        Job("t", queue="")
    with pytest.raises(InvalidJob, match="task ''"):
        Job("")
    srv.register_task("t", nothing)
    id = await srv.enqueue(Job("t"))
    assert (await srv.get_job(id)).meta.queue == DEFAULT_QUEUE
    async with working(srv):
        await all_succeed(srv, [id])


async def test_V7_waiting_for_forty_queues_takes_nothing_from_producers(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine)
    for i in range(40):
        srv.register_task(f"t{i}", nothing, queue=f"q{i}")

    async def one_after_another() -> None:
        """With 1.2 s for each this takes 48 s."""
        for i in range(40):
            await all_succeed(srv, [await srv.enqueue(Job(f"t{i}"))])

    async with working(srv):
        await soon(one_after_another())
    waits = engine.weather.made("wait")
    assert max(len(queues) for queues, _ in waits) == 40  # one wait for all of them


async def test_V8_a_store_that_cannot_be_used_is_named_at_once(tmp_path: Path) -> None:
    nowhere = Server(f"sqlite:///{tmp_path}/no/such/folder/jobs.db", timeout=0.5)
    nowhere.register_task("t", nothing)
    for call in (nowhere.start, nowhere.__aenter__, lambda: nowhere.enqueue(Job("t"))):
        with pytest.raises(TasqueueError, match="no/such/folder does not exist"):
            await call()
    await nowhere.close()
    for url in ("sqlite:///jobs.db?tls=1", "memory://?user=me", "amqp://me:secret@host/"):
        with pytest.raises(Unsupported) as caught:
            Server(url)
        assert "secret" not in str(caught.value)
