"""The in-memory backend: M1 to M7 of docs/original.md; neither memory nor SQLite may do as the original does."""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from tests.runtime.conftest import Make
from tests.runtime.helpers import SOON, engine_of, soon, working

from tasqueue import Chain, InvalidJob, Job, JobCtx, PayloadTooLarge, Server, Status

from .helpers import all_end, all_succeed, fails, nothing


async def test_M1_the_lists_hold_what_ended_and_nothing_else(srv: Server) -> None:
    srv.register_task("nothing", nothing)
    srv.register_task("fails", fails)
    async with working(srv):
        good = await srv.enqueue_many([Job("nothing", id=f"g{i}") for i in range(3)])
        bad = await srv.enqueue_many([Job("fails", id=f"b{i}") for i in range(3)])
        await all_end(srv, [*good, *bad])
    assert sorted(await srv.get_success()) == good
    assert sorted(await srv.get_failed()) == bad


async def test_M2_handlers_that_enqueue_more_than_fits_anywhere_block_nobody(make: Make) -> None:
    srv = make(default_concurrency=2)
    ended = 0
    all_done = asyncio.Event()

    async def child(payload: bytes, ctx: JobCtx) -> None:
        nonlocal ended
        ended += 1
        if ended == 6 * 250 + 6 * 20:
            all_done.set()
        if payload and ctx.meta.retried == 0:
            ended -= 1
            raise ValueError("a retry is enqueued, too")

    async def parent(payload: bytes, ctx: JobCtx) -> None:
        for _ in range(10):
            await srv.enqueue(Job("child"))
        await srv.enqueue_many([Job("child", b"retry" if i < 10 else b"") for i in range(240)])
        await srv.enqueue_chain(Chain([Job("child")] * 20))

    srv.register_task("parent", parent)
    srv.register_task("child", child, max_retries=1, backoff=0)
    async with working(srv):
        await all_succeed(srv, await srv.enqueue_many([Job("parent") for _ in range(6)]))
        await soon(all_done.wait())


async def test_M3_enqueueing_waits_for_no_consumer(srv: Server) -> None:
    async with asyncio.timeout(SOON):
        ids = [await srv.enqueue(Job("t")) for _ in range(150)]
        ids += await srv.enqueue_many([Job("t") for _ in range(2_000)])
    assert [message.meta.id for message in await srv.get_pending(limit=10_000)] == ids


async def test_M4_an_eta_or_a_schedule_is_kept_and_what_is_refused_is_not_stored(make: Make) -> None:
    srv = make(max_payload=100)
    srv.register_task("t", nothing)
    eta = datetime.now(UTC) + timedelta(seconds=0.2)
    await srv.enqueue(Job("t", id="due", eta=eta))
    assert await srv.enqueue(Job("t", id="nightly", schedule="0 3 * * *")) == "nightly"
    with pytest.raises(InvalidJob, match="naive"):
        Job("t", id="naive", eta=datetime(2100, 1, 1))  # noqa: DTZ001
    with pytest.raises(PayloadTooLarge):
        await srv.enqueue_many([Job("t", id="small"), Job("t", b"x" * 101, id="large")])
    assert await (await engine_of(srv)).get(["naive", "small", "large"]) == [None] * 3
    assert [entry.id for entry in await srv.get_schedules()] == ["nightly"]
    async with working(srv):
        meta = (await all_end(srv, ["due"]))["due"]
    assert meta.status is Status.SUCCESSFUL
    assert meta.started_at is not None
    assert meta.started_at >= eta.replace(microsecond=eta.microsecond // 1000 * 1000)


async def test_M5_a_queue_that_nobody_has_used_is_empty(srv: Server) -> None:
    assert await srv.get_pending("nobody-knows") == []
    await srv.pause("nobody-knows")
    await srv.resume("nobody-knows")
    assert await srv.get_pending("nobody-knows") == []


async def test_M6_a_first_use_by_many_threads_at_once_makes_one_queue(make: Make, url: str) -> None:
    together = threading.Barrier(8)

    def use(i: int) -> None:
        server = Server(url)
        together.wait(SOON)
        server.sync.enqueue_many([Job("t", id=f"{i}-{k}", queue="q") for k in range(5)])
        server.sync.close()

    looking = make()  # keeps a memory store alive
    if url.startswith("memory:"):
        await looking.get_schedules()
    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        await soon(asyncio.gather(*(loop.run_in_executor(pool, use, i) for i in range(8))))
    ids = [message.meta.id for message in await looking.get_pending("q")]
    assert sorted(ids) == sorted(f"{i}-{k}" for i in range(8) for k in range(5))
    looking.register_task("t", nothing, queue="q")
    async with working(looking):
        await all_succeed(looking, ids)


async def test_M7_nothing_is_printed(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    srv = make(grace=0.05)
    entered = asyncio.Event()

    async def waits(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await asyncio.Event().wait()

    srv.register_task("fails", fails)
    srv.register_task("waits", waits)
    async with working(srv):
        await all_end(srv, [await srv.enqueue(Job("fails"))])
        await srv.enqueue(Job("waits"))
        await soon(entered.wait())
    assert capfd.readouterr() == ("", "")
