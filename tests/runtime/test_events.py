"""What is told while jobs run: events, progress, the lifespan, hooks around runs; and nothing when nobody listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tasqueue import Job, JobCtx, Server, Snooze, Status
from tasqueue import events as tasqueue_events
from tasqueue.events import Bus, Claimed, Ended, Enqueued, Event, Retrying, Returned, Settled, Started

from .conftest import Make
from .helpers import until, worker_of, working


async def test_events_of_a_jobs_life(srv: Server) -> None:
    heard: list[Event] = []
    for kind in (Enqueued, Claimed, Started, Retrying, Returned, Ended, Settled):
        srv.on(kind, heard.append)
    runs = 0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Snooze(0)
        if runs == 2:
            await asyncio.sleep(0.05)
            raise ValueError("once")

    srv.register_task("t", handler, max_retries=1, backoff=0, queue="q")
    async with working(srv):
        await srv.enqueue(Job("t", id="a"))
        await srv.wait("a", 10)
        await until(lambda: any(isinstance(event, Ended) for event in heard))
    mine = [event for event in heard if not isinstance(event, Settled)]
    assert [type(event).__name__ for event in mine if not isinstance(event, Enqueued)] == [
        "Claimed", "Started", "Returned", "Claimed", "Started", "Retrying", "Claimed", "Started", "Ended",
    ]  # fmt: skip
    assert [event.ids for event in heard if isinstance(event, Enqueued)] == [("a",)]
    started = next(event for event in heard if isinstance(event, Started))
    assert (started.id, started.task, started.queue) == ("a", "t", "q")
    returned = next(event for event in heard if isinstance(event, Returned))
    assert (returned.ids, returned.why) == (("a",), "snooze")
    retrying = next(event for event in heard if isinstance(event, Retrying))
    assert (retrying.id, retrying.error) == ("a", "ValueError: once")
    ended = next(event for event in heard if isinstance(event, Ended))
    assert (ended.id, ended.task, ended.queue, ended.status) == ("a", "t", "q", Status.SUCCESSFUL)
    assert 0 <= ended.seconds < 0.05
    assert 0 <= ended.waited < 10
    settled = [event for event in heard if isinstance(event, Settled)]
    assert sum(event.steps for event in settled) == 3


async def test_ended_of_a_long_run_says_so_and_of_a_failed_one(srv: Server) -> None:
    ended: list[Ended] = []
    srv.on(Ended, ended.append)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        await asyncio.sleep(0.1)
        raise ValueError("x")

    srv.register_task("t", handler)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await until(lambda: ended)
    assert ended[0].status is Status.FAILED
    assert 0.1 <= ended[0].seconds < 5


async def test_none_is_made_when_nobody_listens(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    emit = Bus.emit

    def counting(self: Bus, event: Event) -> None:
        made.append(type(event).__name__)
        emit(self, event)

    monkeypatch.setattr(tasqueue_events.Bus, "emit", counting)
    srv = make()
    srv.register_task("t", lambda payload, ctx: None)
    async with working(srv):
        for id in await srv.enqueue_many([Job("t") for _ in range(5)]):
            await srv.wait(id, 10)
    assert made == []
    srv.on(Ended, lambda event: None)
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t")), 10)
        await until(lambda: made)
    assert made == ["Ended"]


async def test_a_listener_that_raises_changes_nothing(srv: Server, caplog: pytest.LogCaptureFixture) -> None:
    def boom(event: Event) -> None:
        raise ValueError("a listener's own")

    for kind in (Enqueued, Claimed, Started, Ended, Settled):
        srv.on(kind, boom)
    srv.register_task("t", lambda payload, ctx: None)
    async with working(srv):
        assert (await srv.wait(await srv.enqueue(Job("t")), 10)).meta.status is Status.SUCCESSFUL
    assert "listener" in caplog.text


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
async def test_progress_is_seen_while_it_runs(make: Make, sync: bool) -> None:
    srv = make(lease=0.3)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        await ctx.progress(1, 10)
        await ctx.progress(3, 10, "third")
        await release.wait()

    def thread(payload: bytes, ctx: JobCtx) -> None:
        ctx.progress_sync(3, 10, "third")
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)

    srv.register_task("t", thread if sync else handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        assert await until(lambda: progress(srv, id)) == (3, 10, "third")
        release.set()
        await srv.wait(id, 10)


async def progress(srv: Server, id: str) -> Any:
    return (await srv.get_job(id)).meta.progress


async def test_lifespan_encloses_all_runs(make: Make) -> None:
    log: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[dict[str, str]]:
        log.append("enter")
        yield {"db": "open"}
        log.append("exit")

    srv = make(lifespan=lifespan)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        log.append(ctx.state["db"])

    srv.register_task("t", handler)
    srv.on(Claimed, lambda event: log.append("claimed"))
    ids = await srv.enqueue_many([Job("t"), Job("t")])
    async with working(srv):
        for id in ids:
            await srv.wait(id, 10)
    assert log[0] == "enter"
    assert log[1] == "claimed"
    assert log[-1] == "exit"
    assert log.count("open") == 2


async def test_a_lifespan_that_fails_starts_nothing(make: Make) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(server: Server) -> AsyncIterator[None]:
        raise OSError("no database")
        yield

    srv = make(lifespan=lifespan)
    srv.register_task("t", lambda payload, ctx: None)
    id = await srv.enqueue(Job("t"))
    with pytest.raises(OSError, match="no database"):
        await srv.start()
    assert (await srv.get_job(id)).meta.status is Status.QUEUED


async def test_around_in_order_with_results_and_errors(srv: Server) -> None:
    log: list[str] = []

    @srv.around
    async def outer(ctx: JobCtx, call_next: Any) -> None:
        log.append("outer in")
        try:
            await call_next(ctx)
        finally:
            log.append("outer out")

    @srv.around
    async def inner(ctx: JobCtx, call_next: Any) -> None:
        log.append("inner in")
        try:
            await call_next(ctx)
        except ValueError as error:
            log.append(f"inner {error}")
            raise KeyError("changed") from error

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        log.append("run")
        if payload:
            raise ValueError("own")
        ctx.save(b"saved")

    srv.register_task("t", handler)
    srv.register_task("thread", lambda payload, ctx: log.append("thread"))
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await srv.wait(id, 10)
        assert log == ["outer in", "inner in", "run", "outer out"]
        assert await srv.get_result(id) == b"saved"
        log.clear()
        meta = (await srv.wait(await srv.enqueue(Job("t", b"x")), 10)).meta
        assert log == ["outer in", "inner in", "run", "inner own", "outer out"]
        assert meta.prev_err == "KeyError: 'changed'"
        log.clear()
        await srv.wait(await srv.enqueue(Job("thread")), 10)
        assert log == ["outer in", "inner in", "thread", "outer out"]


async def test_around_may_skip_or_replace_the_run(srv: Server) -> None:
    ran: list[bytes] = []

    @srv.around
    async def guard(ctx: JobCtx, call_next: Any) -> None:
        if ctx.job.headers.get("skip") != "yes":
            await call_next(ctx)

    srv.register_task("t", lambda payload, ctx: ran.append(payload))
    async with working(srv):
        for headers in ({"skip": "yes"}, {}):
            meta = (await srv.wait(await srv.enqueue(Job("t", headers=headers)), 10)).meta
            assert meta.status is Status.SUCCESSFUL
    assert len(ran) == 1


async def test_before_enqueue(srv: Server) -> None:
    seen: list[dict[str, str]] = []

    @srv.before_enqueue
    def stamp(job: Job[Any]) -> Job[Any]:
        return job.replace(headers={**job.headers, "trace": "abc"})

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        seen.append(dict(ctx.job.headers))

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t", headers={"a": "1"}, on_success=Job("t")))
        await srv.wait(id, 10)
        await until(lambda: len(seen) == 2)
    assert seen == [{"a": "1", "trace": "abc"}] * 2


async def test_the_log_knows_the_job(srv: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tasqueue.job")

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.log.info("hello")

    srv.register_task("t", handler)
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t", id="a")), 10)
    record = next(record for record in caplog.records if record.message == "hello")
    assert (record.job_id, record.task, record.queue) == ("a", "t", "tasqueue:tasks")  # type: ignore[attr-defined]


async def test_what_a_worker_tells_of_itself(make: Make) -> None:
    srv = make(lease=0.3, default_concurrency=3)
    release = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if payload == b"fail":
            raise ValueError("x")
        if payload == b"hold":
            await release.wait()

    srv.register_task("t", handler, queue="q")
    async with worker_of(srv) as worker:
        for payload in (b"", b"", b"fail"):
            await srv.wait(await srv.enqueue(Job("t", payload)), 10)
        held = await srv.enqueue(Job("t", b"hold"))
        rows = await until(lambda: busy(srv))
        release.set()
        await srv.wait(held, 10)
        name = worker.crew.worker
    info = rows[0].info
    assert rows[0].id == name
    assert (info["done"], info["failed"], info["queues"], info["tasks"]) == (2, 1, {"q": 3}, ["t"])
    assert info["running"][0]["id"] == held


async def busy(srv: Server) -> Any:
    rows = await srv.inspector.workers()
    return rows if rows and rows[0].info and rows[0].info["running"] else None
