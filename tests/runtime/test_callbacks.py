"""Callbacks: which, when, with what, at most once; and that they change nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tasqueue import Job, JobCtx, Server, Status, TasqueueError
from tasqueue.events import Refused

from .conftest import Make
from .helpers import engine_of, soon, until, worker_of, working


class Heard:
    """The four callbacks, sync or async, and the order of everything."""

    def __init__(self, sync: bool, raises: bool = False) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.raises = raises
        self.options = {
            name: self._callback(name, sync) for name in ("success_cb", "processing_cb", "retrying_cb", "failed_cb")
        }

    def _callback(self, name: str, sync: bool) -> Any:
        def call(ctx: JobCtx, *args: Any) -> None:
            self.log.append((name, ctx.meta.status, ctx.meta.retried, *args))
            with pytest.raises(TasqueueError, match="callback"):
                ctx.save(b"from a callback")
            if self.raises:
                raise SystemExit("a callback's own error")

        async def call_async(ctx: JobCtx, *args: Any) -> None:
            await asyncio.sleep(0)
            call(ctx, *args)

        return call if sync else call_async


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_all_four_in_order(srv: Server, sync: bool) -> None:
    heard = Heard(sync)
    errors = [ValueError("one"), KeyError("two"), None]

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        heard.log.append(("run", ctx.meta.status, ctx.meta.retried))
        ctx.save(b"from the handler")
        error = errors[ctx.meta.retried] if not payload else ValueError("last")
        if error is not None:
            raise error

    srv.register_task("t", handler, max_retries=2, backoff=0.05, **heard.options)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
        await until(lambda: heard.log[-1][0] == "success_cb")
        p, r = Status.PROCESSING, Status.RETRYING
        assert heard.log == [
            ("processing_cb", p, 0), ("run", p, 0), ("retrying_cb", r, 1, errors[0]),
            ("processing_cb", p, 1), ("run", p, 1), ("retrying_cb", r, 2, errors[1]),
            ("processing_cb", p, 2), ("run", p, 2), ("success_cb", Status.SUCCESSFUL, 2),
        ]  # fmt: skip
        assert await srv.get_result(id) == b"from the handler"
        heard.log.clear()
        await srv.enqueue(Job("t", b"fails", max_retries=0))
        await until(lambda: heard.log and heard.log[-1][0] == "failed_cb")
        assert [entry[:3] for entry in heard.log] == [
            ("processing_cb", p, 0), ("run", p, 0), ("failed_cb", Status.FAILED, 0),
        ]  # fmt: skip
        assert str(heard.log[-1][3]) == "last"


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_one_that_raises_changes_nothing(srv: Server, sync: bool) -> None:
    heard = Heard(sync, raises=True)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if ctx.meta.retried == 0 or payload:
            raise ValueError("x")

    srv.register_task("t", handler, max_retries=1, backoff=0, **heard.options)
    async with working(srv):
        for payload, status in ((b"", Status.SUCCESSFUL), (b"x", Status.FAILED)):
            meta = (await srv.wait(await srv.enqueue(Job("t", payload)), 10)).meta
            assert (meta.status, meta.retried) == (status, 1)
        await until(lambda: len([e for e in heard.log if e[0] in ("success_cb", "failed_cb")]) == 2)


async def test_timeout_is_the_error_that_failed_cb_gets(srv: Server) -> None:
    heard: list[BaseException] = []
    told = asyncio.Event()

    async def failed(ctx: JobCtx, err: BaseException) -> None:
        assert ctx.meta.prev_err == "TimeoutError: timed out after 0.05 s"
        heard.append(err)
        told.set()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        await asyncio.sleep(60)

    srv.register_task("t", handler, timeout=0.05, failed_cb=failed)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await soon(told.wait())
    assert isinstance(heard[0], TimeoutError)


async def test_none_for_a_refused_finish(make: Make) -> None:
    srv = make()
    heard = Heard(sync=False)
    refused: list[Refused] = []
    release = asyncio.Event()
    runs: list[int] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(1)
        if len(runs) == 1:
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    heard.options.pop("processing_cb")
    srv.register_task("t", handler, **heard.options)
    srv.on(Refused, refused.append)
    async with worker_of(srv) as worker:
        id = await srv.enqueue(Job("t"))
        await until(lambda: runs)
        engine = await engine_of(srv)
        for row in await engine.workers():
            await engine.reclaim(row.id)
        release.set()
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
        await until(lambda: heard.log)
        await until(lambda: refused)
    assert [entry[0] for entry in heard.log] == ["success_cb"]
    assert len(runs) == 2
    assert (worker.info.done, worker.settler.refused) == (1, 1)
    assert worker.settler._actives == {}


async def test_none_for_drained_ones(make: Make) -> None:
    srv = make(grace=0.05)
    heard = Heard(sync=False)
    entered = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await asyncio.sleep(60)

    heard.options.pop("processing_cb")
    srv.register_task("t", handler, max_retries=3, **heard.options)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await soon(entered.wait())
    assert heard.log == []


async def test_stop_waits_for_a_callback_that_began(make: Make) -> None:
    srv = make()
    log: list[str] = []
    entered = asyncio.Event()

    async def success(ctx: JobCtx) -> None:
        entered.set()
        await asyncio.sleep(0.1)
        log.append("done")

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        pass

    srv.register_task("t", handler, success_cb=success)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await soon(entered.wait())
    assert log == ["done"]


async def test_callbacks_of_jobs_that_end_in_a_drain(make: Make) -> None:
    srv = make(grace=5)
    ended: list[str] = []
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await release.wait()

    async def success(ctx: JobCtx) -> None:
        await asyncio.sleep(0.01)
        ended.append(ctx.meta.status)

    srv.register_task("t", handler, success_cb=success)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await soon(entered.wait())
        stopping = asyncio.ensure_future(srv.stop())
        await asyncio.sleep(0)
        release.set()
        await stopping
    assert ended == ["successful"]
