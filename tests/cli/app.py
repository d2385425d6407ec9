"""The application of these tests: `tests.cli.app:make` (a Server of its own each time), or `tests.cli.app:srv`."""

from __future__ import annotations

import asyncio

from tasqueue import JobCtx, Server


async def add(a: int, b: int = 0) -> int:
    return a + b


async def fail(why: str) -> None:
    raise RuntimeError(why)


async def hang(ctx: JobCtx) -> str:
    await ctx.progress(3, 10, "rendering")
    await asyncio.Event().wait()
    return "never"


async def tidy() -> None: ...


async def raw(payload: bytes, ctx: JobCtx) -> None:
    ctx.save(payload.upper())


def make() -> Server:
    srv = Server()
    srv.task(add)
    srv.task(fail)
    srv.task(name="flaky", max_retries=3, backoff=300)(fail)
    srv.task(queue="images")(hang)
    srv.task(schedule="@every 1h")(tidy)
    srv.register_task("raw", raw)
    return srv


srv = make()
