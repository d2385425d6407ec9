"""Stopping: what runs may end, what waits goes back, what is interrupted spends nothing and never counts as done
(G8)."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from tasqueue import Job, JobCtx, Server, Status
from tasqueue.events import Returned
from tasqueue.runtime.worker import Worker

from .conftest import Make
from .helpers import engine_of, soon, until, working


class Gate:
    """A task `t` whose runs wait; `entered` and `ended` count them."""

    def __init__(self, srv: Server, swallow: bool = False) -> None:
        self.open = asyncio.Event()
        self.entered: list[str] = []
        self.ended: list[str] = []

        async def handler(payload: bytes, ctx: JobCtx) -> None:
            self.entered.append(ctx.meta.id)
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                if not swallow:
                    raise
            self.ended.append(ctx.meta.id)

        srv.register_task("t", handler, max_retries=3)


async def untouched(srv: Server, id: str) -> None:
    """As if it had never run."""
    meta = (await srv.get_job(id)).meta
    assert (meta.status, meta.retried, meta.deaths, meta.errors) == (Status.QUEUED, 0, 0, ())


async def test_running_jobs_may_end_and_nothing_new_starts(make: Make) -> None:
    srv = make(default_concurrency=2, grace=10)
    gate = Gate(srv)
    ids = await srv.enqueue_many([Job("t") for _ in range(5)])
    async with working(srv):
        await until(lambda: len(gate.entered) == 2)
        stopping = asyncio.ensure_future(srv.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done()
        gate.open.set()
        await soon(stopping)
    assert gate.entered == gate.ended == ids[:2]
    assert [(await srv.get_job(id)).meta.status for id in ids[:2]] == [Status.SUCCESSFUL] * 2
    for id in ids[2:]:
        await untouched(srv, id)
    assert [m.meta.id for m in await srv.get_pending()] == ids[2:]


async def test_it_says_how_many_it_has_given_back(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tasqueue")
    srv = make(default_concurrency=2, grace=60)
    gate = Gate(srv)
    async with working(srv):
        ids = await srv.enqueue_many([Job("t") for _ in range(2)])
        await until(lambda: len(gate.entered) == 2)
        for _ in range(2):  # the second one skips the grace
            stopping = asyncio.ensure_future(srv.stop())
            await asyncio.sleep(0)
        await soon(stopping)
    for id in ids:
        await untouched(srv, id)
    assert [m.split(": ")[1] for m in caplog.messages if "stopped" in m] == ["stopped; 2 job(s) given back unfinished"]


async def test_nor_does_it_count_what_has_ended(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tasqueue")
    srv = make()
    srv.register_task("t", lambda payload, ctx: None)
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t")), 10)
    assert [m.split(": ")[1] for m in caplog.messages if "stopped" in m] == ["stopped; 0 job(s) given back unfinished"]


@pytest.mark.parametrize("swallow", [False, True])
async def test_over_the_grace_it_is_given_back(make: Make, swallow: bool) -> None:
    srv = make(grace=0.05)
    gate = Gate(srv, swallow)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: gate.entered)
    assert gate.ended == ([id] if swallow else [])
    await untouched(srv, id)
    gate.open.set()
    async with working(srv):
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    assert gate.entered == [id, id]


async def test_a_thread_that_does_not_end_is_given_back_all_the_same(make: Make) -> None:
    srv = make(grace=0.05)
    entered, release = threading.Event(), threading.Event()

    def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        release.wait(20)

    srv.register_task("t", handler)
    worker = Worker(await srv.parts())
    task = asyncio.create_task(worker.run())
    id = await srv.enqueue(Job("t"))
    await soon(asyncio.to_thread(entered.wait))
    worker.stop()
    await soon(task)
    assert worker.left_behind == 1
    await untouched(srv, id)
    release.set()


async def test_a_thread_sees_draining_and_may_end(make: Make) -> None:
    srv = make(grace=10)
    entered = threading.Event()

    def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        while not ctx.draining:
            threading.Event().wait(0.005)
        assert not ctx.cancelled
        ctx.save(b"in time")

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await soon(asyncio.to_thread(entered.wait))
    assert await srv.get_result(id) == b"in time"


async def test_a_second_stop_skips_the_grace(make: Make) -> None:
    srv = make(grace=600)
    gate = Gate(srv)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: gate.entered)
        stops = [asyncio.ensure_future(srv.stop()) for _ in range(2)]
        await soon(asyncio.gather(*stops))
    await untouched(srv, id)


async def test_cancelling_start_gives_everything_back_at_once(make: Make) -> None:
    srv = make(grace=600, default_concurrency=2)
    gate = Gate(srv)
    ids = await srv.enqueue_many([Job("t") for _ in range(4)])
    started = asyncio.create_task(srv.start())
    await until(lambda: len(gate.entered) == 2)
    started.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(started)
    for id in ids:
        await untouched(srv, id)
    assert await (await engine_of(srv)).workers() == []
    gate.open.set()
    async with working(srv):
        for id in ids:
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_cancelled_twice(make: Make) -> None:
    srv = make(grace=600)
    gate = Gate(srv, swallow=True)
    id = await srv.enqueue(Job("t"))
    started = asyncio.create_task(srv.start())
    await until(lambda: gate.entered)
    started.cancel()
    await asyncio.sleep(0)
    started.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(started)
    await untouched(srv, id)
    assert await (await engine_of(srv)).workers() == []


@pytest.mark.parametrize("ticks", range(6))
async def test_stop_while_starting_and_start_again(srv: Server, ticks: int) -> None:
    gate = Gate(srv)
    gate.open.set()
    started = asyncio.create_task(srv.start())
    for _ in range(ticks):
        await asyncio.sleep(0)
    await soon(srv.stop())
    if not started.done() and not ticks:
        await srv.stop()
    if ticks:
        await soon(started)
        assert await (await engine_of(srv)).workers() == []
        started = asyncio.create_task(srv.start())
    assert (await srv.wait(await srv.enqueue(Job("t")), 10)).meta.status is Status.SUCCESSFUL
    await srv.stop()
    await soon(started)


async def test_start_twice_is_refused(srv: Server) -> None:
    async with working(srv):
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="running"):
            await srv.start()


async def test_returned_is_told_for_all_that_goes_back(make: Make) -> None:
    srv = make(default_concurrency=1, grace=0.05)
    gate = Gate(srv)
    back: list[str] = []
    srv.on(Returned, lambda event: back.extend(event.ids))
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: gate.entered)
    assert back == [id]


async def test_a_remote_request_to_drain(srv: Server) -> None:
    gate = Gate(srv)
    gate.open.set()
    started = asyncio.create_task(srv.start())
    await srv.wait(await srv.enqueue(Job("t")), 10)
    engine = await engine_of(srv)
    assert await engine.drain((await engine.workers())[0].id)
    await soon(started)


async def test_no_thread_or_task_is_left(make: Make) -> None:
    before = {thread.name for thread in threading.enumerate()}
    srv = make()
    srv.register_task("t", lambda payload, ctx: None)
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t")), 10)
    await srv.close()
    await until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("tasqueue") and t.name not in before]
    )
    others = [
        task for task in asyncio.all_tasks() if task is not asyncio.current_task() and "tasqueue" in task.get_name()
    ]
    assert others == []


async def test_what_is_prefetched_goes_back_and_does_not_start(make: Make) -> None:
    srv = make(default_concurrency=1, grace=10)
    gate = Gate(srv)
    gate.open.set()
    worker = Worker(await srv.parts())
    task = asyncio.create_task(worker.run())
    await srv.wait(await srv.enqueue(Job("t")), 10)
    gate.open.clear()
    worker.crew.lanes["tasqueue:tasks"].mean = 1e-5
    worker.keeper._give_back = nothing  # type: ignore[method-assign]  (it would give them back before)
    ids = await srv.enqueue_many([Job("t") for _ in range(4)])
    await until(lambda: len(gate.entered) == 2)
    assert len(worker.crew.lanes["tasqueue:tasks"].ready) == 3
    worker.stop()
    await asyncio.sleep(0)
    gate.open.set()
    await soon(task)
    assert gate.entered[1:] == ids[:1]
    assert [message.meta.id for message in await srv.get_pending()] == ids[1:]


async def nothing(*_: object) -> None:
    pass
