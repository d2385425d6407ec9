"""What a worker holds beyond its slots: nothing with slow jobs, and nothing for long while its loop is blocked (G9, G13)."""

from __future__ import annotations

import asyncio
import time

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


async def test_a_blocked_loop_keeps_its_lease_and_its_neighbours_run_elsewhere(make: Make) -> None:
    srv, other = make(default_concurrency=2, lease=0.5), make(default_concurrency=2, lease=0.5)
    runs: list[tuple[str, str]] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(("here", ctx.meta.id))
        if payload:
            time.sleep(2.0)  # four leases

    async def elsewhere(payload: bytes, ctx: JobCtx) -> None:
        runs.append(("there", ctx.meta.id))

    srv.register_task("t", handler)
    other.register_task("t", elsewhere)
    async with working(srv):
        warm = await srv.enqueue_many([Job("t") for _ in range(100)])
        for id in warm:
            await srv.wait(id, 10)
        runs.clear()
        async with Elsewhere(other):
            ids = await srv.enqueue_many([Job("t", b"block"), *(Job("t") for _ in range(10))])
            for id in ids:
                assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    ran = [id for _, id in runs]
    assert sorted(ran) == sorted(ids)
    blocked = next(where for where, id in runs if id == ids[0])
    if blocked == "here":
        assert {id for where, id in runs if where == "there"}
    assert [(await srv.get_job(id)).meta.deaths for id in ids] == [0] * len(ids)


async def test_prefetched_neighbours_of_a_blocked_loop(make: Make) -> None:
    """As above, with what is claimed beside the blocking job made sure of: one claim takes them all."""
    srv, other = make(default_concurrency=1, lease=0.5), make(default_concurrency=1, lease=0.5)
    began: dict[str, float] = {}
    blocked_until = 0.0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal blocked_until
        began[ctx.meta.id] = time.monotonic()
        if payload:
            time.sleep(1.5)
            blocked_until = time.monotonic()

    async def elsewhere(payload: bytes, ctx: JobCtx) -> None:
        began[ctx.meta.id] = time.monotonic()

    srv.register_task("t", handler)
    other.register_task("t", elsewhere)
    async with worker_of(srv) as worker:
        await srv.wait(await srv.enqueue(Job("t")), 10)
        for lane in worker.crew.lanes.values():
            lane.mean = 0.0001  # as after many quick jobs
        ids = await srv.enqueue_many([Job("t", b"block"), *(Job("t") for _ in range(10))])
        async with Elsewhere(other):
            for id in ids:
                assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    assert all(began[id] < blocked_until for id in ids[1:])
