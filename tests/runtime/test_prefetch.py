"""What a worker holds beyond its slots: nothing with slow jobs, and nothing for long while its loop is blocked (G9,
G13)."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tasqueue import Job, JobCtx, Server, Status
from tasqueue.core.status import State

from .conftest import Make
from .helpers import Elsewhere, engine_of, until, worker_of, working


async def running(srv: Server) -> int:
    counts = await (await engine_of(srv)).counts()
    return counts.queues["tasqueue:tasks"].get(State.RUNNING, 0)


async def test_with_slow_jobs_no_more_than_the_slots(make: Make) -> None:
    first, second = make(default_concurrency=3), make(default_concurrency=3)
    entered: dict[str, list[str]] = {"first": [], "second": []}
    release = asyncio.Event()

    def register(srv: Server, name: str) -> None:
        async def handler(payload: bytes, ctx: JobCtx) -> None:
            entered[name].append(ctx.meta.id)
            await release.wait()

        srv.register_task("t", handler)

    register(first, "first")
    register(second, "second")
    ids = await first.enqueue_many([Job("t") for _ in range(8)])
    async with working(first):
        await until(lambda: len(entered["first"]) == 3)
        assert await running(first) == 3
        async with working(second):
            await until(lambda: len(entered["second"]) == 3)
            assert await running(first) == 6
            release.set()
            for id in ids:
                assert (await first.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_quick_jobs_then_a_slow_one_give_the_prefetched_back(make: Make) -> None:
    srv, other = make(default_concurrency=1), make(default_concurrency=1)
    release, slow = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if payload:
            slow.set()
            await release.wait()

    async def elsewhere(payload: bytes, ctx: JobCtx) -> None:
        pass

    srv.register_task("t", handler)
    other.register_task("t", elsewhere)
    async with working(srv):
        warm = await srv.enqueue_many([Job("t") for _ in range(50)])
        await srv.wait(warm[-1], 10)
        jobs = await srv.enqueue_many([Job("t", b"slow"), *(Job("t") for _ in range(20))])
        await slow.wait()
        async with working(other):
            for id in jobs[1:]:
                await srv.wait(id, 10)
        release.set()
        await srv.wait(jobs[0], 10)


@pytest.mark.parametrize("leases", [4])
async def test_a_blocked_loop_keeps_its_lease_and_its_neighbours_run_elsewhere(make: Make, leases: int) -> None:
    srv, other = make(default_concurrency=1, lease=0.5), make(default_concurrency=1, lease=0.5)
    blocked = threading.Event()
    runs: list[tuple[str, str, float]] = []
    blocked_until = 0.0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal blocked_until
        runs.append(("here", ctx.meta.id, time.monotonic()))
        if payload:
            blocked.set()
            time.sleep(0.5 * leases)  # noqa: ASYNC251  (what it is about)
            blocked_until = time.monotonic()

    async def elsewhere(payload: bytes, ctx: JobCtx) -> None:
        runs.append(("there", ctx.meta.id, time.monotonic()))

    srv.register_task("t", handler)
    other.register_task("t", elsewhere)
    async with Elsewhere(other, after=blocked), worker_of(srv) as worker:
        await srv.wait(await srv.enqueue(Job("t")), 10)
        runs.clear()
        worker.crew.lanes["tasqueue:tasks"].mean = 0.0001  # as after many quick jobs: one claim takes all of these
        ids = await srv.enqueue_many([Job("t", b"block"), *(Job("t") for _ in range(10))])
        for id in ids:
            meta = (await srv.wait(id, 10)).meta
            assert (meta.status, meta.deaths) == (Status.SUCCESSFUL, 0)
    assert [(where, id) for where, id, _ in runs] == [("here", ids[0]), *(("there", id) for id in ids[1:])]
    assert all(at < blocked_until for _, _, at in runs)
