"""A lost lease: what ran under it is muted and changes nothing more, and the worker goes on under a new name (G4)."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tasqueue import Job, JobCtx, Server, Status, TasqueueError
from tasqueue.core import codec
from tasqueue.core.lifecycle import Policy, Run
from tasqueue.core.record import Lease
from tasqueue.events import LeaseLost, Refused

from .conftest import Make
from .helpers import engine_of, soon, until, worker_of, working


async def take_the_lease(srv: Server) -> list[str]:
    engine = await engine_of(srv)
    names = [row.id for row in await engine.workers()]
    for name in names:
        await engine.reclaim(name, "taken by the test")
    return names


async def test_handlers_are_cancelled_and_everything_is_done_under_a_new_name(make: Make) -> None:
    srv = make(default_concurrency=4)
    lost: list[str] = []
    why: list[str] = []
    refused: list[str] = []
    runs: dict[str, int] = {}
    go = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] = runs.get(ctx.meta.id, 0) + 1
        try:
            await go.wait()
        except asyncio.CancelledError:
            why.append(ctx.interrupted)
            with pytest.raises(TasqueueError, match="lease"):
                ctx.save(b"stale")
            raise
        ctx.save(b"%d" % runs[ctx.meta.id])

    srv.register_task("t", handler)
    srv.on(LeaseLost, lambda event: lost.append(event.worker))
    srv.on(Refused, lambda event: refused.extend(event.ids))
    ids = await srv.enqueue_many([Job("t") for _ in range(6)])
    async with working(srv):
        await until(lambda: len(runs) == 4)
        names = await take_the_lease(srv)
        await until(lambda: len(why) == 4)
        go.set()
        messages = [await srv.wait(id, 10) for id in ids]
        assert [m.meta.status for m in messages] == [Status.SUCCESSFUL] * 6
        assert [m.meta.deaths for m in messages] == [1] * 4 + [0] * 2
        assert names[0] not in {m.meta.worker for m in messages}
    assert lost == names
    assert why == ["lost"] * 4
    assert refused == []  # nothing is even tried
    assert [await srv.get_result(id) for id in ids] == [b"2"] * 4 + [b"1"] * 2


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
async def test_a_stale_finish_is_refused(make: Make, sync: bool) -> None:
    """The handler ends before the worker knows that its lease is gone."""
    srv = make(default_concurrency=1, lease=20)  # the next beat comes a second after the start
    refused: list[str] = []
    entered, go = threading.Event(), threading.Event()
    runs: list[int] = []

    def thread(payload: bytes, ctx: JobCtx) -> None:
        runs.append(1)
        entered.set()
        go.wait(20)
        ctx.save(b"%d" % len(runs))

    async def loop(payload: bytes, ctx: JobCtx) -> None:
        runs.append(1)
        entered.set()
        await until(go.is_set)
        ctx.save(b"%d" % len(runs))

    srv.register_task("t", thread if sync else loop)
    srv.on(Refused, lambda event: refused.extend(event.ids))
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(entered.is_set)
        await take_the_lease(srv)
        go.set()
        meta = (await srv.wait(id, 10)).meta
        await until(lambda: refused)
    assert (meta.status, meta.deaths) == (Status.SUCCESSFUL, 1)
    assert refused == [id]
    assert await srv.get_result(id) == b"2"


async def test_an_idle_worker_goes_on_too(srv: Server) -> None:
    lost = asyncio.Event()
    srv.register_task("t", lambda payload, ctx: None)
    srv.on(LeaseLost, lambda _: lost.set())
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t")), 10)
        await take_the_lease(srv)
        await soon(lost.wait())
        assert (await srv.wait(await srv.enqueue(Job("t")), 10)).meta.status is Status.SUCCESSFUL


async def test_lost_again_and_again_under_load(make: Make) -> None:
    srv = make(default_concurrency=4, max_deaths=1000, lease=1.0)
    runs: dict[str, int] = {}

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] = runs.get(ctx.meta.id, 0) + 1
        await asyncio.sleep(0.002)

    srv.register_task("t", handler)
    async with working(srv):
        ids = await srv.enqueue_many([Job("t") for _ in range(300)])
        for _ in range(4):
            await until(lambda: take_the_lease(srv))
            done = sum(runs.values())
            await until(lambda done=done: sum(runs.values()) > done + 10 or len(runs) == 300)
        for id in ids:
            assert (await srv.wait(id, 20)).meta.status is Status.SUCCESSFUL
    assert len(runs) == 300


async def test_an_ignorant_handler_of_a_lost_lease_does_not_disturb_its_successor(make: Make) -> None:
    """The same job in the same process twice, the first run lost: the second one's end is its own."""
    srv = make(default_concurrency=2, grace=0.5)
    first_may_end, second_may_end = asyncio.Event(), asyncio.Event()
    runs: list[str] = []
    ends: list[int] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(ctx.meta.worker)
        me = len(runs)
        gate = first_may_end if me == 1 else second_may_end
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                if me != 1:
                    raise
        ends.append(me)

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: runs)
        await take_the_lease(srv)
        await until(lambda: len(runs) == 2)
        first_may_end.set()
        await until(lambda: ends == [1])
        assert (await srv.get_job(id)).meta.status is Status.PROCESSING
        assert await srv.cancel(id)
        assert (await srv.wait(id, 10)).meta.status is Status.CANCELLED
        second_may_end.set()


async def test_what_is_left_of_a_lost_lease_does_not_start(srv: Server) -> None:
    ran: list[str] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(ctx.meta.id)

    srv.register_task("t", handler)
    async with worker_of(srv) as worker:
        await srv.wait(await srv.enqueue(Job("t", id="a")), 10)
        lane = worker.crew.lanes["tasqueue:tasks"]
        spec = codec.decode_spec(codec.encode_spec(Job("t"), 0))
        stale = Run(Lease("stale", lane.queue, 1, b"", b"", None, 0), spec, codec.FRESH, Policy(), "gone", str)
        lane.add([stale], worker.crew.ports.mono())
        await srv.wait(await srv.enqueue(Job("t", id="b")), 10)
        await until(lambda: not lane.ready)
    assert ran == ["a", "b"]
