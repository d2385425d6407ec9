"""Pausing queues; cancelling what waits and what runs."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from tasqueue import Chain, Group, Job, JobCtx, NotFound, Server, Status
from tasqueue.core import codec
from tasqueue.core.record import Record
from tasqueue.core.status import State
from tasqueue.events import Ended
from tasqueue.interfaces import Engine

from .conftest import Make
from .helpers import engine_of, soon, until, worker_of, working


async def test_pause_and_resume(make: Make) -> None:
    srv = make(default_concurrency=2)
    ran: list[bytes] = []
    release = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(payload)
        if payload == b"slow":
            await release.wait()

    srv.register_task("t", handler, queue="q")
    srv.register_task("other", handler, queue="other")
    async with working(srv):
        slow = await srv.enqueue(Job("t", b"slow"))
        await until(lambda: ran)
        await srv.pause("q", "for the test")
        waits = await srv.enqueue(Job("t", b"waits"))
        await srv.wait(await srv.enqueue(Job("other", b"other")), 10)
        release.set()
        assert (await srv.wait(slow, 10)).meta.status is Status.SUCCESSFUL  # what runs goes on
        await srv.wait(await srv.enqueue(Job("other", b"other")), 10)
        assert ran == [b"slow", b"other", b"other"]
        await srv.resume("q")
        assert (await srv.wait(waits, 10)).meta.status is Status.SUCCESSFUL


async def test_a_pause_gives_back_what_is_prefetched(make: Make) -> None:
    srv = make(default_concurrency=1)
    ran: list[float] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(time.monotonic())
        await asyncio.sleep(0.02)

    srv.register_task("t", handler, queue="q")
    async with worker_of(srv) as worker:
        await srv.enqueue_many([Job("t") for _ in range(400)])
        await until(lambda: len(ran) > 2)
        worker.crew.lanes["q"].mean = 1e-5
        await srv.pause("q")
        paused_at = time.monotonic()
        await until(lambda: worker.crew.lanes["q"].paused)
        count = len(ran)
        await until(lambda: not worker.crew.busy)
        assert len(ran) <= count + 1
        assert ran[-1] < paused_at + 1.5


async def test_a_request_arrives_in_a_second_however_long_the_lease_is(make: Make) -> None:
    srv = make(lease=600)
    entered = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await asyncio.sleep(60)

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await soon(entered.wait())
        assert await srv.cancel(id)
        assert (await srv.wait(id, 5)).meta.status is Status.CANCELLED


@pytest.mark.parametrize("ending", ["raises", "swallows"])
async def test_a_running_async_handler_is_cancelled(srv: Server, ending: str) -> None:
    entered = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"before")
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if ending == "raises":
                raise

    srv.register_task("t", handler, max_retries=3)
    async with working(srv):
        id = await srv.enqueue(Job("t", on_success=Job("t"), on_error=Job("t")))
        await entered.wait()
        assert await srv.cancel(id)
        meta = (await srv.wait(id, 10)).meta
        assert not await srv.cancel(id)
    assert (meta.status, meta.retried, meta.on_error_ids, meta.on_success_ids) == (Status.CANCELLED, 0, (), ())
    assert await srv.get_result(id) == b"before"


async def test_a_running_thread_sees_it_and_its_result_is_dropped(srv: Server) -> None:
    @srv.task
    def task(ctx: JobCtx) -> str:
        while not ctx.cancelled:
            time.sleep(0.005)
        return "late"

    async with working(srv):
        handle = await task.enqueue()
        await until(lambda: is_running(srv, handle.id))
        assert await handle.cancel()
        assert (await srv.wait(handle.id, 10)).meta.status is Status.CANCELLED
        with pytest.raises(NotFound):
            await srv.get_result(handle.id)


async def is_running(srv: Server, id: str) -> bool:
    meta = (await srv.get_job(id)).meta
    return meta.status is Status.PROCESSING


async def test_a_finish_that_came_first_stands(make: Make) -> None:
    srv = make(lease=30)  # beats are a second apart: the job ends long before the worker is told
    go, entered = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await go.wait()

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await entered.wait()
        assert await srv.cancel(id)
        go.set()
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_an_asked_one_that_retries_is_not_cancelled_later(make: Make) -> None:
    """The request is about the run; but a snooze or a retry that came first forgets it."""
    srv = make(lease=30)
    go, entered = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await go.wait()
        if ctx.meta.retried == 0:
            raise ValueError("once")

    srv.register_task("t", handler, max_retries=1, backoff=0)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await entered.wait()
        assert await srv.cancel(id)
        go.set()
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_waiting_ones_of_every_kind(srv: Server) -> None:
    ran: list[str] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(ctx.meta.id)
        if payload:
            raise ValueError("no")

    srv.register_task("t", handler, max_retries=1, backoff=300)
    queued = await srv.enqueue(Job("t"))
    due = await srv.enqueue(Job("t", eta=datetime.now(UTC) + timedelta(hours=1)))
    assert await srv.cancel(queued)
    async with working(srv):
        retrying = await srv.enqueue(Job("t", b"x"))
        parked = await srv.enqueue(Job("unknown"))
        await until(lambda: has(srv, retrying, lambda meta: meta.status is Status.RETRYING))
        await until(lambda: has(srv, parked, lambda meta: meta.parked))
        for id in (due, retrying, parked):
            assert await srv.cancel(id)
        for id in (queued, due, retrying, parked):
            assert (await srv.get_job(id)).meta.status is Status.CANCELLED
        assert not await srv.cancel("nobody")
    assert ran == [retrying]


async def has(srv: Server, id: str, holds) -> bool:
    return holds((await srv.get_job(id)).meta)


async def test_a_cancelled_one_can_be_retried(srv: Server) -> None:
    srv.register_task("t", lambda payload, ctx: None)
    id = await srv.enqueue(Job("t"))
    await srv.cancel(id)
    async with working(srv):
        assert await srv.retry(id)
        meta = (await srv.wait(id, 10)).meta
    assert (meta.status, meta.generation) == (Status.SUCCESSFUL, 1)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_chain(srv: Server, whole: bool) -> None:
    ran: list[str] = []
    entered = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(ctx.meta.id)
        if payload:
            entered.set()
            await asyncio.sleep(60)

    srv.register_task("t", handler)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("t"), Job("t", b"x"), Job("t")], id="c"))
        await entered.wait()
        assert await (srv.cancel_chain("c") if whole else srv.cancel("c~c1"))
        assert (await srv.wait_chain("c", 10)).status is Status.CANCELLED
        assert (await srv.wait("c~c1", 10)).meta.status is Status.CANCELLED
    assert ran == ["c~c0", "c~c1"]


@pytest.mark.parametrize("whole", [False, True])
async def test_a_group(srv: Server, whole: bool) -> None:
    ran: list[str] = []
    entered = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(ctx.meta.id)
        if payload:
            entered.set()
            await asyncio.sleep(60)

    srv.register_task("t", handler)
    async with working(srv):
        members = [Job("t"), Job("t", b"x")]
        await srv.enqueue_group(Group(members, id="g", on_success=Job("t"), on_error=Job("t")))
        await entered.wait()
        await srv.wait("g~g0", 10)
        assert await (srv.cancel_group("g") if whole else srv.cancel("g~g1"))
        message = await srv.wait_group("g", 10)
        await until(lambda: "g~e0" in ran)
    assert message.status is Status.FAILED
    assert list(message.job_status.values()) == [Status.SUCCESSFUL, Status.CANCELLED]
    assert "g~s0" not in ran


async def test_a_prefetched_one_never_starts(make: Make) -> None:
    srv = make(default_concurrency=1)
    ran: list[str] = []
    release, entered = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(ctx.meta.id)
        if payload:
            entered.set()
            await release.wait()

    srv.register_task("t", handler)
    async with worker_of(srv) as worker:
        await srv.wait(await srv.enqueue(Job("t")), 10)
        lane = worker.crew.lanes["tasqueue:tasks"]
        lane.mean = 1e-5
        worker.keeper._give_back = nothing  # type: ignore[method-assign]  (it would be given back, and cancelled where it waits)
        ids = await srv.enqueue_many([Job("t", b"x"), *(Job("t") for _ in range(3))])
        await entered.wait()
        assert len(lane.ready) == 3
        assert await srv.cancel(ids[2])
        assert (await srv.wait(ids[2], 10)).meta.status is Status.CANCELLED
        release.set()
        for id in ids:
            await srv.wait(id, 10)
    assert ran[1:] == [ids[0], ids[1], ids[3]]


async def test_one_that_was_asked_for_and_given_back_is_not_run_again(make: Make) -> None:
    srv = make()
    entered: list[str] = []
    ended: list[Ended] = []
    running = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.append(ctx.meta.id)
        if payload:
            running.set()
            await asyncio.sleep(60)

    srv.register_task("t", handler)
    srv.on(Ended, ended.append)
    await srv.enqueue_group(Group([Job("t", b"x"), Job("t")], id="g", on_success=Job("t"), on_error=Job("t")))
    async with worker_of(srv, grace=0.0) as worker:
        await soon(running.wait())
        worker.keeper._told = lambda *_: None  # it is gone before it is told
        await srv.wait("g~g1", 10)
        assert await srv.cancel("g~g0")
    meta = (await srv.get_job("g~g0")).meta
    assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
    async with working(srv):
        assert (await srv.wait("g~g0", 10)).meta.status is Status.CANCELLED
        assert (await srv.wait_group("g", 10)).status is Status.FAILED
        await srv.wait("g~e0", 10)
        await until(lambda: len(ended) == 3)
    assert entered == ["g~g0", "g~g1", "g~e0"]
    assert [(event.id, event.status) for event in ended if event.id == "g~g0"] == [("g~g0", Status.CANCELLED)]


@pytest.mark.parametrize("kind", ["known", "unknown", "newer"])
async def test_one_whose_worker_died_before_it_was_told_is_not_run_again(srv: Server, kind: str) -> None:
    """Nor parked, whoever could run it: a parked job forgets the request."""
    ran: list[str] = []
    srv.register_task("known", lambda payload, ctx: ran.append(ctx.meta.id), queue="q")
    spec = codec.encode_spec(Job(kind), 0) if kind != "newer" else msgspec.msgpack.encode([codec.VERSION + 1, {}])
    engine = await engine_of(srv)
    await engine.submit(
        [Record("job", "q", kind, spec), Record("next", "q", "known", codec.encode_spec(Job("known"), 0))]
    )
    await engine.register("dies", 60_000, b"", {}, 1)
    assert len((await engine.claim("dies", 1, {"q": 1})).leases) == 1
    assert await srv.cancel("job")
    await engine.reclaim("dies", "killed")
    async with working(srv):
        await srv.wait("next", 10)
        await until(lambda: in_state(engine, "job", State.CANCELLED))
    assert ran == ["next"]
    assert (await srv.get_job("job")).meta.status is Status.CANCELLED


async def in_state(engine: Engine, id: str, state: State) -> bool:
    (row,) = await engine.get([id])
    return row is not None and row.state is state


async def nothing(*_: object) -> None:
    pass


async def test_a_cancel_beats_a_timeout_at_the_same_time(make: Make) -> None:
    srv = make(lease=0.3)
    entered = asyncio.Event()
    engine = await engine_of(srv)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await engine.cancel([ctx.meta.id], None)
            await until(lambda: ctx.interrupted == "cancel")
            raise

    srv.register_task("t", handler, timeout=0.05, max_retries=1, backoff=0)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        assert (await srv.wait(id, 10)).meta.status is Status.CANCELLED
