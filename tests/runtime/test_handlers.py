"""What a handler may be, what it is given, and what becomes of what it saves and returns."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading

import pytest

from tasqueue import InvalidJob, Job, JobCtx, JobFailed, NotFound, Server, Status, TasqueueError, pack

from .conftest import Make
from .helpers import soon, working


def double(n: int) -> int:
    return 2 * n


def pid() -> int:
    return os.getpid()


async def test_async_handler_runs_on_the_loop(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        assert threading.current_thread() is threading.main_thread()
        assert ctx.meta.status is Status.PROCESSING
        ctx.save(payload.upper())

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t", b"abc"))
        message = await srv.wait(id, 10)
    assert message.meta.status is Status.SUCCESSFUL, message.meta.prev_err
    assert await srv.get_result(id) == b"ABC"


async def test_sync_handler_runs_in_a_thread(srv: Server) -> None:
    seen: list[threading.Thread] = []

    def handler(payload: bytes, ctx: JobCtx) -> None:
        seen.append(threading.current_thread())
        ctx.save(payload * 2)

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t", b"ab"))
        await srv.wait(id, 10)
    assert await srv.get_result(id) == b"abab"
    assert seen[0] is not threading.main_thread()


async def test_many_sync_jobs_all_end(make: Make) -> None:
    srv = make(default_concurrency=8)
    srv.register_task("t", lambda payload, ctx: ctx.save(payload))
    async with working(srv):
        ids = await srv.enqueue_many([Job("t", b"%d" % i) for i in range(400)])
        for id in ids:
            await srv.wait(id, 10)
    assert [await srv.get_result(id) for id in ids] == [b"%d" % i for i in range(400)]


async def test_typed_async_and_sync(srv: Server) -> None:
    @srv.task
    async def add(a: int, b: int) -> int:
        return a + b

    @srv.task
    def name(ctx: JobCtx, first: str) -> str:
        return f"{first} {ctx.meta.id}"

    async with working(srv):
        assert await (await add.enqueue(5, 4)).result(10) == 9
        handle = await name.enqueue("x")
        assert await handle.result(10) == f"x {handle.id}"


async def test_process_handler_runs_in_another_process_which_is_kept(make: Make) -> None:
    srv = make(default_concurrency=1)
    task = srv.task(executor="process")(double)
    who = srv.task(executor="process")(pid)
    async with working(srv):
        assert await (await task.enqueue(21)).result(30) == 42
        first, second = [await (await who.enqueue()).result(30) for _ in range(2)]
    assert first == second != os.getpid()


async def test_the_last_save_counts(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"one")
        ctx.save(b"two")

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await srv.wait(id, 10)
    assert await srv.get_result(id) == b"two"


async def test_what_a_failed_run_saved_is_kept(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"half")
        raise ValueError("no")

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        assert (await srv.wait(id, 10)).meta.status is Status.FAILED
    assert await srv.get_result(id) == b"half"


async def test_an_earlier_run_saves_nothing_for_the_last(srv: Server) -> None:
    runs = 0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            ctx.save(b"first")
            raise ValueError("no")

    srv.register_task("t", handler, max_retries=1, backoff=0)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    with pytest.raises(NotFound):
        await srv.get_result(id)


@pytest.mark.parametrize("sync", [False, True])
async def test_saving_too_much_is_the_jobs_error(make: Make, sync: bool) -> None:
    srv = make(max_payload=100)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"x" * 101)

    srv.register_task("t", (lambda payload, ctx: ctx.save(b"x" * 101)) if sync else handler)
    srv.task(name="typed")(lambda: "x" * 101)
    async with working(srv):
        for task, payload in (("t", b""), ("typed", pack())):
            meta = (await srv.wait(await srv.enqueue(Job(task, payload)), 10)).meta
            assert meta.status is Status.FAILED
            assert meta.errors[0].type == "PayloadTooLarge"


async def test_nothing_saved_and_none_returned_leave_no_result(srv: Server) -> None:
    async def returns(payload: bytes, ctx: JobCtx) -> bytes:
        return b"ignored"

    srv.register_task("returns", returns)
    srv.register_task("returns_in_thread", lambda payload, ctx: b"ignored")
    none = srv.task(name="none")(lambda: None)
    async with working(srv):
        ids = await srv.enqueue_many([Job("returns"), Job("returns_in_thread"), none.job()])
        for id in ids:
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
            with pytest.raises(NotFound):
                await srv.get_result(id)
        assert await (await none.enqueue()).result(10) is None


async def test_typed_handlers_cannot_save_and_wrong_arguments_fail(srv: Server) -> None:
    said: list[str] = []

    @srv.task
    async def saves(ctx: JobCtx) -> int:
        try:
            ctx.save(b"x")
        except TasqueueError as error:
            said.append(str(error))
        return 7

    @srv.task
    async def add(a: int) -> int:
        return a

    async with working(srv):
        assert await (await saves.enqueue()).result(10) == 7
        id = await srv.enqueue(Job("add", b"\xc1"))
        assert (await srv.wait(id, 10)).meta.errors[0].type == InvalidJob.__name__
        with pytest.raises(JobFailed):
            await srv.handle(id).result()
    assert "typed" in said[0]


async def test_a_context_is_muted_when_its_run_is_over(srv: Server) -> None:
    kept: list[JobCtx] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        kept.append(ctx)

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await srv.wait(id, 10)
        with pytest.raises(TasqueueError, match="over"):
            kept[0].save(b"late")
    with pytest.raises(NotFound):
        await srv.get_result(id)


async def test_concurrent_handlers_of_one_queue(make: Make) -> None:
    srv = make(default_concurrency=3)
    together = asyncio.Barrier(3)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        await together.wait()

    srv.register_task("t", handler)
    async with working(srv):
        for id in await srv.enqueue_many([Job("t") for _ in range(3)]):
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_a_handler_may_enqueue(srv: Server) -> None:
    second = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if payload:
            second.set()
        else:
            await srv.enqueue(Job("t", b"again"))

    srv.register_task("t", handler)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await soon(second.wait())


async def test_a_context_variable_that_a_handler_sets_is_not_seen_by_the_next_job(srv: Server) -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("left", default="clean")
    seen: list[str] = []

    async def on_the_loop(payload: bytes, ctx: JobCtx) -> None:
        seen.append(var.get())
        var.set(payload.decode())

    def in_a_thread(payload: bytes, ctx: JobCtx) -> None:
        seen.append(var.get())
        var.set(payload.decode())

    srv.register_task("loop", on_the_loop, queue="one", concurrency=1)
    srv.register_task("thread", in_a_thread, queue="two", concurrency=1)
    async with working(srv):
        for id in await srv.enqueue_many([Job(t, str(i).encode()) for t in ("loop", "thread") for i in range(3)]):
            await srv.wait(id, 10)
    assert seen == ["clean"] * 6
