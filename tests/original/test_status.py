"""Status, results, retention: C14 to C22 of docs/original.md; each test fails if we do as the original does."""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.runtime.conftest import Make
from tests.runtime.helpers import SOON, engine_of, soon, until, working

from tasqueue import Chain, Group, Job, JobCtx, Meta, NotFound, Server, Status, TasqueueError

from .helpers import all_end, all_succeed, echo, fails, flaky, nothing


async def test_C14_record_and_index_tell_the_same_at_any_moment(make: Make, url: str) -> None:
    engine = flaky(url, drop=0.3, seed=14, verbs=("settle",))
    srv, reader = make(engine), make()
    srv.register_task("nothing", nothing)
    srv.register_task("fails", fails)
    ids = [f"j{i}" for i in range(60)]
    done: set[str] = set()

    async def look() -> bool:
        """What has a final status is in its index, and what is in one had it before."""
        indexed = {Status.SUCCESSFUL: await reader.get_success(limit=1000), Status.FAILED: await reader.get_failed()}
        for status, found in indexed.items():
            for id in set(found) - done:
                assert (await reader.get_job(id)).meta.status is status
        final = {id: meta.status for id in ids if (meta := (await reader.get_job(id)).meta).status.final}
        after = {Status.SUCCESSFUL: await reader.get_success(limit=1000), Status.FAILED: await reader.get_failed()}
        for id, status in final.items():
            assert id in after[status]
        done.update(final)
        return len(done) == len(ids)

    await srv.enqueue_many([Job("fails" if i % 3 == 0 else "nothing", id=id) for i, id in enumerate(ids)])
    async with working(srv):
        await until(look)
    assert sorted([*await srv.get_success(limit=1000), *await srv.get_failed(limit=1000)]) == sorted(ids)


async def test_C15_on_error_jobs_know_what_failed_and_why(srv: Server) -> None:
    causes: dict[str, Meta] = {}

    async def mourn(payload: bytes, ctx: JobCtx) -> None:
        causes[ctx.meta.id] = ctx.meta

    srv.register_task("fails", fails)
    srv.register_task("mourn", mourn)
    async with working(srv):
        await srv.enqueue(Job("fails", id="a", on_error=[Job("mourn"), Job("mourn")]))
        ids = (await all_end(srv, ["a"]))["a"].on_error_ids
        assert ids == ("a~e0", "a~e1")
        await all_succeed(srv, ids)
    assert {(meta.cause_id, meta.cause_err) for meta in causes.values()} == {("a", "ValueError: run 1")}
    assert (await srv.get_job("a~e1")).meta.cause_id == "a"


async def test_C16_handlers_and_callbacks_see_the_status_and_the_error_of_now(srv: Server) -> None:
    seen: list[tuple[str, Status, str]] = []

    def note(what: str, ctx: JobCtx) -> None:
        seen.append((what, ctx.meta.status, ctx.meta.prev_err))

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        note("run", ctx)
        if payload or ctx.meta.retried == 0:
            raise ValueError(f"run {ctx.meta.retried + 1}")

    async def before(ctx: JobCtx) -> None:
        note("processing", ctx)

    async def retrying(ctx: JobCtx, err: BaseException) -> None:
        note("retrying", ctx)

    async def failed(ctx: JobCtx, err: BaseException) -> None:
        note("failed", ctx)

    async def success(ctx: JobCtx) -> None:
        note("success", ctx)

    srv.register_task(
        "t",
        handler,
        max_retries=1,
        backoff=0.02,
        processing_cb=before,
        retrying_cb=retrying,
        failed_cb=failed,
        success_cb=success,
    )
    first, second = "ValueError: run 1", "ValueError: run 2"
    begin = [
        ("processing", Status.PROCESSING, ""),
        ("run", Status.PROCESSING, ""),
        ("retrying", Status.RETRYING, first),
        ("processing", Status.PROCESSING, first),
        ("run", Status.PROCESSING, first),
    ]
    async with working(srv):
        await srv.enqueue(Job("t", b"x"))
        await until(lambda: len(seen) == 6)
        assert seen == [*begin, ("failed", Status.FAILED, second)]
        seen.clear()
        await srv.enqueue(Job("t"))
        await until(lambda: len(seen) == 6)
        assert seen == [*begin, ("success", Status.SUCCESSFUL, "")]


async def test_C17_a_success_has_no_error_and_each_time_its_own_name(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if ctx.meta.retried == 0:
            raise ValueError("the first time")

    srv.register_task("t", handler, max_retries=1, backoff=0)
    began = datetime.now(UTC)
    id = await srv.enqueue(Job("t"))
    queued = (await srv.get_job(id)).meta
    assert (queued.started_at, queued.ended_at) == (None, None)
    async with working(srv):
        meta = (await all_end(srv, [id]))[id]
    assert (meta.status, meta.prev_err) == (Status.SUCCESSFUL, "")
    assert [error.message for error in meta.errors] == ["the first time"]  # the history is kept, apart
    assert meta.enqueued_at == queued.enqueued_at
    assert meta.enqueued_at is not None
    assert meta.started_at is not None
    assert meta.ended_at is not None
    assert meta.enqueued_at <= meta.errors[0].at <= meta.started_at <= meta.ended_at <= datetime.now(UTC)
    assert abs((meta.enqueued_at - began).total_seconds()) < SOON
    assert meta.processed_at == meta.ended_at


async def test_C18_saving_in_a_callback_is_refused_with_the_way_to_do_it(srv: Server) -> None:
    said: list[str] = []

    def save(ctx: JobCtx, *_: object) -> None:
        with pytest.raises(TasqueueError) as caught:
            ctx.save(b"from a callback")
        said.append(str(caught.value))

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"from the handler")
        if ctx.meta.retried == 0 or payload:
            raise ValueError("as told")

    callbacks = dict.fromkeys(("success_cb", "processing_cb", "retrying_cb", "failed_cb"), save)
    srv.register_task("t", handler, max_retries=1, backoff=0, **callbacks)  # type: ignore[arg-type]
    async with working(srv):
        ids = await srv.enqueue_many([Job("t"), Job("t", b"x")])
        await all_end(srv, ids)
        await until(lambda: len(said) == 8)  # twice before a run, once after each
        assert [await srv.get_result(id) for id in ids] == [b"from the handler"] * 2
    assert all("on_success and on_error" in text for text in said)


async def test_C19_a_deleted_job_is_gone_and_no_other_is(srv: Server) -> None:
    srv.register_task("echo", echo)
    async with working(srv):
        ids = await srv.enqueue_many([Job("echo", b"x", id=id) for id in ("1", "a", "b")])
        await all_succeed(srv, ids)
    assert await srv.delete_job("a")
    for call in (srv.get_job, srv.get_result):
        with pytest.raises(NotFound):
            await call("a")
    assert sorted(await srv.get_success()) == ["1", "b"]
    assert await srv.get_result("1") == b"x"
    assert not await srv.delete_job("a")
    waiting = await srv.enqueue(Job("echo"))
    assert not await srv.delete_job(waiting)
    assert (await srv.get_job(waiting)).meta.status is Status.QUEUED


async def test_C20_nothing_is_forgotten_before_it_has_ended(make: Make) -> None:
    """With a retention of nought, everything that is kept is kept since it has not ended."""
    srv = make(result_ttl=0, failed_ttl=0)
    entered, go = asyncio.Event(), asyncio.Event()

    async def waits(payload: bytes, ctx: JobCtx) -> None:
        if ctx.meta.retried == 0 and payload:
            raise ValueError("the first time")
        entered.set()
        await go.wait()

    srv.register_task("waits", waits)
    await srv.enqueue(Job("waits", id="running"))
    await srv.enqueue(Job("waits", b"x", id="retrying", max_retries=1))
    await srv.enqueue(Job("waits", id="elsewhere", queue="nobody"))
    await srv.enqueue_chain(Chain([Job("waits")] * 2, id="c"))
    engine = await engine_of(srv)
    async with working(srv):
        await soon(entered.wait())
        await until(lambda: has_retried(srv))
        await engine.prune()
        assert (await srv.get_job("running")).meta.status is Status.PROCESSING
        for id in ("retrying", "elsewhere", "c~c0", "c~c1"):
            assert not (await srv.get_job(id)).meta.status.final
        go.set()
        for id in ("running", "retrying", "c~c0", "c~c1"):
            await until(lambda id=id: is_gone(srv, id))
        with pytest.raises(NotFound):
            await srv.get_chain("c")
    assert (await srv.get_job("elsewhere")).meta.status is Status.QUEUED


async def has_retried(srv: Server) -> bool:
    return (await srv.get_job("retrying")).meta.retried == 1


async def is_gone(srv: Server, id: str) -> bool:
    try:
        await srv.get_job(id)
    except NotFound:
        return True
    return False


async def test_C21_what_has_ended_is_forgotten_when_its_time_is_over(make: Make) -> None:
    """By default that is a day or a week, and it is a moment, not a period that has begun when the job came."""
    srv = make()
    options = (await srv.parts()).options
    assert (options.result_ttl_ms, options.failed_ttl_ms) == (86_400_000, 7 * 86_400_000)
    srv = make(result_ttl=0.3, failed_ttl=0.3)
    srv.register_task("nothing", nothing)
    srv.register_task("fails", fails)
    async with working(srv):
        await srv.enqueue_group(Group([Job("nothing"), Job("fails")], id="g"))
        await all_end(srv, ["g~g0", "g~g1"])
        await srv.wait_group("g", SOON)
        engine = await engine_of(srv)
        await asyncio.sleep(0.301)
        assert await engine.get(["g~g0", "g~g1"]) == [None, None]
        assert await srv.get_success() == await srv.get_failed() == []
        with pytest.raises(NotFound):
            await srv.get_group("g")
        await srv.enqueue(Job("nothing", id="g"))  # a new id
        await srv.enqueue_group(Group([Job("nothing"), Job("nothing")], id="g"))
        assert (await srv.wait_group("g", SOON)).status is Status.SUCCESSFUL


async def test_C22_lists_come_in_pages(srv: Server) -> None:
    srv.register_task("nothing", nothing)
    srv.register_task("fails", fails)

    async def pages(call: object) -> list[str]:
        """All of it, three at a time."""
        found: list[str] = []
        while page := await call(limit=3, after=found[-1] if found else None):  # type: ignore[operator]
            assert len(page) <= 3
            found += [one if isinstance(one, str) else one.meta.id for one in page]
        return found

    jobs = [Job(task, id=f"{task}{i}") for i in range(10) for task in ("nothing", "fails")]
    ids = await srv.enqueue_many(jobs)
    assert await pages(srv.get_pending) == ids
    async with working(srv):
        await all_end(srv, ids)
    assert sorted(await pages(srv.get_success)) == sorted(id for id in ids if id.startswith("nothing"))
    assert sorted(await pages(srv.get_failed)) == sorted(id for id in ids if id.startswith("fails"))
    assert await pages(srv.get_success) == await srv.get_success()
    assert len(await srv.get_success(limit=1)) == 1
