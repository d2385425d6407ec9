"""Producers: many with the same ids (F15), and with a file that somebody keeps locked (F10, F11)."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tasqueue import Chain, EngineUnavailable

from .fleet import Fleet, job
from .history import judge
from .stores import FILE, on_whole_engines

pytestmark = pytest.mark.fault


@pytest.mark.slow
@on_whole_engines
async def test_one_id_from_many_processes_is_one_job(fleet: Fleet) -> None:
    srv = fleet.server()
    producers = [fleet.producer("same", 1_000) for _ in range(8)]
    for producer in producers:
        assert await producer.ended() == 0
    counts = await srv.inspector.counts()
    assert sum(sum(states.values()) for states in counts.queues.values()) == 1_000
    accepted, _ = fleet.produced()
    fleet.worker()
    await fleet.all_successful(srv, accepted)
    verdict = judge(fleet.history(), accepted)
    print(f"F15: {verdict}")
    verdict.check()
    assert (verdict.accepted, verdict.extra) == (1_000, [])
    for producer in [fleet.producer("same", 1_000) for _ in range(2)]:  # once more, when they have ended
        assert await producer.ended() == 0
    await fleet.until_ended(srv)
    assert len(fleet.history().all()) == 1_000


LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Another process holds the file's write lock."""
    connection = sqlite3.connect(path, timeout=30)
    connection.close()
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            LOCKER,
            str(path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        if await process.stdout.readline():
            break
        await process.wait()  # a worker was quicker
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.slow
async def test_a_file_that_somebody_keeps_locked(fleet: Fleet) -> None:
    fleet.settings["lease"] = 3.0
    srv = fleet.server(timeout=1.0)
    worker = fleet.worker(timeout=1.0)
    await srv.enqueue_many([job("work", f"before{i}", s=0.02) for i in range(300)])
    await fleet.until(lambda: fleet.history().done() > 20, "nothing is done")
    took: list[float] = []
    await fleet.engine()
    async with locked(fleet.folder / FILE):
        for call, ids in (
            (lambda: srv.enqueue(job("work", "one")), ("one",)),
            (
                lambda: srv.enqueue_many([job("work", f"many{i}") for i in range(5)]),
                tuple(f"many{i}" for i in range(5)),
            ),
            (lambda: srv.enqueue_chain(Chain([job("step", n=n) for n in range(2)], id="c")), ("c",)),
        ):
            at = time.monotonic()
            with pytest.raises(EngineUnavailable, match="locked") as caught:
                await call()
            took.append(time.monotonic() - at)
            assert caught.value.ids == ids
        assert await fleet.held(worker.pid) > 0  # whoever has not read before can do so
        assert worker.code is None
    print(f"F10, F11: EngineUnavailable after {max(took):.2f} s at the most, timeout 1 s")
    assert min(took) >= 0.95
    assert sorted(took)[1] < 1.5
    assert max(took) < 4.0  # one of them may meet a busy machine
    await srv.enqueue(job("work", "one"))
    await srv.enqueue_many([job("work", f"many{i}") for i in range(5)])
    await srv.enqueue_chain(Chain([job("step", n=n) for n in range(2)], id="c"))
    ids = [f"before{i}" for i in range(300)] + ["one", *(f"many{i}" for i in range(5)), "c~c0", "c~c1"]
    await fleet.all_successful(srv, ids)
    verdict = judge(fleet.history(), ids)
    verdict.check()
    # The lock was held for a lease; nobody is there to reclaim but the worker itself, and it sees the gap.
    assert verdict.extra == []
    assert worker.code is None


async def test_a_file_that_is_locked_from_the_start(fleet: Fleet) -> None:
    connection = sqlite3.connect(fleet.folder / FILE)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    async with locked(fleet.folder / FILE):
        srv = fleet.server(timeout=0.5)
        at = time.monotonic()
        with pytest.raises(EngineUnavailable):
            await srv.enqueue(job("work", "one"))
        assert time.monotonic() - at < 3.0
    await srv.enqueue(job("work", "one"))
    fleet.worker()
    await fleet.all_successful(srv, ["one"])
