"""Each numbered point of `tasqueue.faults` is reached, on an engine and on a pair: a fault can be put in wherever the
table says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasqueue import Chain, Group, Job, JobCtx, Server, faults
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults

from .helpers import engine_of, until, working

PAIRS_ONLY = {"G2.members_written"}


@pytest.fixture
def hits() -> Iterator[set[str]]:
    seen: set[str] = set()
    faults.record(seen.add)
    yield seen
    faults.record(None)


def server(kind: str, tmp_path: Path) -> Server:
    options = {"lease": 0.5, "grace": 2.0}
    if kind == "pair":
        return Server(broker=MemoryBroker(), results=MemoryResults(), **options)  # type: ignore[arg-type]
    return Server("memory://" if kind == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["memory", "sqlite", "pair"])
async def test_every_point_is_reached(kind: str, tmp_path: Path, hits: set[str]) -> None:
    srv = server(kind, tmp_path)
    told = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if payload and ctx.meta.retried == 0:
            raise ValueError("once")

    srv.register_task("t", handler, max_retries=1, backoff=0.05, success_cb=lambda ctx: told.set())
    async with srv:
        engine = await engine_of(srv)
        held = await srv.enqueue(Job("t"))
        await engine.reclaim()  # the first look only takes note of the time
        await engine.register("dead", 50, b"", {}, 1)
        await engine.claim("dead", 1, {"tasqueue:tasks": 1})
        async with working(srv):
            await srv.enqueue(Job("t", schedule="@every 1s", id="s"))
            ids = await srv.enqueue_many(
                [Job("t"), Job("t", b"fails once"), Job("t", eta=datetime.now(UTC) + timedelta(seconds=0.1))]
            )
            await srv.enqueue_chain(Chain([Job("t"), Job("t")], id="c"))
            await srv.enqueue_group(Group([Job("t") for _ in range(3)], id="g", on_success=Job("t")))
            for id in (*ids, held):
                await srv.wait(id, 15)
            await srv.wait_chain("c", 10)
            await srv.wait_group("g", 10)
            await until(lambda: hits >= {"S2.tick_inserted", "P2.offered"})
            await until(told.is_set)
    missing = set(faults.POINTS) - hits - (set() if kind == "pair" else PAIRS_ONLY)
    assert missing == set()


@pytest.mark.parametrize("action", ["raise", "drop-reply"])
@pytest.mark.parametrize("point", [p for p in faults.POINTS if p[0] in "WRMPS" and p not in PAIRS_ONLY])
async def test_an_error_at_any_point_of_a_worker_loses_nothing(tmp_path: Path, point: str, action: str) -> None:
    srv = server("memory", tmp_path)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        if payload and ctx.meta.retried == 0:
            raise ValueError("once")

    srv.register_task("t", handler, max_retries=3, backoff=0, success_cb=lambda ctx: None)
    async with srv:
        engine = await engine_of(srv)
        ids = await srv.enqueue_many(
            [Job("t"), Job("t", b"x"), Job("t", eta=datetime.now(UTC) + timedelta(seconds=0.1))]
        )
        await engine.reclaim()
        await engine.register("dead", 1, b"", {}, 1)
        await engine.claim("dead", 1, {"tasqueue:tasks": 1})
        if point[0] == "S":
            await srv.enqueue(Job("t", schedule="@every 1s", id="s"))
        hit = asyncio.Event()
        faults.arm(f"{point}:{action}")
        faults.record(lambda name: hit.set() if name == point else None)
        try:
            async with working(srv):
                for id in ids:
                    assert (await srv.wait(id, 15)).meta.status.value == "successful"
                await asyncio.wait_for(hit.wait(), 10)
                assert (await srv.wait(await srv.enqueue(Job("t")), 10)).meta.status.value == "successful"
        finally:
            faults.record(None)
            faults.disarm()
