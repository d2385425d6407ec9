"""What a failed run leaves behind: nothing. A run is hidden from the collector, so no cycle may go through one."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tasqueue import Job, JobCtx, Server

from .helpers import soon, working

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")


class Large:
    """What a handler has in its hands when it fails."""


@pytest.mark.parametrize("how", ["plain", "thread", "around", "sets a context variable"])
async def test_a_failed_run_keeps_nothing_alive(how: str) -> None:
    srv = Server("memory://", default_concurrency=1)
    held: list[weakref.ref[Large]] = []

    def fail() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("with all its frames")

    async def on_loop(payload: bytes, ctx: JobCtx) -> None:
        if how == "sets a context variable":
            variable.set(1)
        fail()

    def in_thread(payload: bytes, ctx: JobCtx) -> None:
        fail()

    async def around(ctx: JobCtx, call_next: Callable[..., Awaitable[Any]]) -> None:
        await call_next(ctx)

    async def nothing(payload: bytes, ctx: JobCtx) -> None:
        pass

    if how == "around":
        srv.around(around)
    srv.register_task("fails", in_thread if how == "thread" else on_loop)
    srv.register_task("nothing", nothing)
    async with srv:
        async with working(srv):
            for n in range(5):
                await soon(srv.wait(await srv.enqueue(Job("fails", id=f"j{n}"))))
            await soon(srv.wait(await srv.enqueue(Job("nothing", id="last"))))  # the slot has let go of the one before
            await asyncio.sleep(0)
        gc.collect()
        assert len(held) == 5
        assert [one() for one in held] == [None] * 5
