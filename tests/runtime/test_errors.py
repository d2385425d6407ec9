"""Whatever a handler raises is its job's error: no slot, settler or worker ends of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tasqueue import Job, JobCtx, Server, Status

from .conftest import Make
from .helpers import working


class Base(BaseException):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Hostile(Exception):
    def __str__(self) -> str:
        return "\ud800 and \x00"


def stop_iteration() -> BaseException:
    return StopIteration("x")


CASES: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "SystemExit": (lambda: SystemExit(3), "SystemExit", "3"),
    "CancelledError": (lambda: asyncio.CancelledError("own"), "CancelledError", "own"),
    "GeneratorExit": (lambda: GeneratorExit("g"), "GeneratorExit", "g"),
    "BaseException": (lambda: Base("b"), "Base", "b"),
    "StopIteration": (stop_iteration, "RuntimeError", ""),
    "str raises": (Unprintable, "Unprintable", ""),
    "surrogates": (Hostile, "Hostile", "? and \x00"),
    "group": (lambda: ExceptionGroup("g", [ValueError(1)]), "ExceptionGroup", "g (1 sub-exception)"),
}


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("case", CASES)
async def test_whatever_is_raised(make: Make, case: str, sync: bool) -> None:
    srv = make(default_concurrency=1)
    make_error, type_name, text = CASES[case]

    async def raises(payload: bytes, ctx: JobCtx) -> None:
        raise make_error()

    def raises_in_thread(payload: bytes, ctx: JobCtx) -> None:
        raise make_error()

    srv.register_task("t", raises_in_thread if sync else raises, max_retries=1, backoff=0)
    srv.register_task("good", lambda payload, ctx: ctx.save(b"alive"))
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
        good = await srv.enqueue(Job("good"))
        assert (await srv.wait(good, 10)).meta.status is Status.SUCCESSFUL
    assert (meta.status, meta.retried, len(meta.errors)) == (Status.FAILED, 1, 2)
    last = meta.errors[-1]
    if not (sync and case in ("SystemExit", "GeneratorExit", "BaseException", "CancelledError")):
        assert last.type == type_name
        assert not text or last.message == text
    assert make_error().__class__.__name__ in last.traceback + last.type


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_long_messages_and_tracebacks_are_clipped(srv: Server, sync: bool) -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("é" * 3_000_000)

    async def raises(payload: bytes, ctx: JobCtx) -> None:
        deep(50)

    srv.register_task("t", (lambda payload, ctx: deep(50)) if sync else raises)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    error = meta.errors[0]
    assert 0 < len(error.message.encode()) <= 8 << 10
    assert 0 < len(error.traceback.encode()) <= 8 << 10
    assert error.traceback.startswith("…")


async def test_a_cancelled_task_of_its_own_is_an_error(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    srv.register_task("t", handler)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert (meta.status, meta.errors[0].type) == (Status.FAILED, "CancelledError")


async def test_a_timeout_of_its_own_is_no_timeout_of_the_job(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    srv.register_task("t", handler, timeout=30)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert meta.errors[0].type == "TimeoutError"
    assert "timed out after" not in meta.prev_err
