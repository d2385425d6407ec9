"""What several of these tests need: an engine with a weather of its own, and jobs waited for by the dozen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.runtime.helpers import SOON

from tasqueue import JobCtx, Meta, Server, Status
from tasqueue.clock import SYSTEM
from tasqueue.engines import connect
from tasqueue.testing.flaky import FlakyEngine


def flaky(url: str, **options: Any) -> FlakyEngine:
    """The engine of this URL; its `weather` says which calls fail, and which were made."""
    return FlakyEngine(connect(url, namespace="tasqueue", timeout=5.0, ports=SYSTEM), **options)


async def all_end(srv: Server, ids: Iterable[str]) -> dict[str, Meta]:
    """Their metas, when all have ended."""
    return {id: (await srv.wait(id, SOON)).meta for id in ids}


async def all_succeed(srv: Server, ids: Iterable[str]) -> None:
    """AssertionError when one ends otherwise."""
    for id, meta in (await all_end(srv, ids)).items():
        assert meta.status is Status.SUCCESSFUL, (id, meta)


async def nothing(payload: bytes, ctx: JobCtx) -> None:
    """A handler that saves nothing."""


async def echo(payload: bytes, ctx: JobCtx) -> None:
    """A handler that saves its payload."""
    ctx.save(payload)


async def fails(payload: bytes, ctx: JobCtx) -> None:
    """A handler that always raises, the number of its retry with it."""
    raise ValueError(f"run {ctx.meta.retried + 1}")
