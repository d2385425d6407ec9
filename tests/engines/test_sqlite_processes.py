"""The SQLite engine among processes: one file, many writers, locks, kills, a full disk, and wake-ups from outside."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.engines.sqlite_programs import engine, record

import tasqueue
from tasqueue.core.record import Kind, Step
from tasqueue.core.status import State
from tasqueue.engines.sqlite import SqliteEngine, database
from tasqueue.errors import EngineUnavailable

ROOT = Path(__file__).parents[2]
SOURCE = Path(tasqueue.__file__).parents[1]


@asynccontextmanager
async def program(name: str, path: Path, *arguments: object, fault: str = "") -> AsyncIterator[Process]:
    """One process that runs it, killed at the end if it has not ended."""
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}", "TASQUEUE_FAULT": fault}
    command = [sys.executable, "-m", "tests.engines.sqlite_programs", name, str(path), *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    """The next thing that it says; "" at its end."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()


async def lines(process: Process) -> list[str]:
    """All that it says until it ends."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.read(), 30)).decode().splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def one(path: Path) -> AsyncIterator[SqliteEngine]:
    """An engine of this process on the same file."""
    one = engine(str(path))
    await one.open()
    yield one
    await one.close()


def size(path: Path) -> int:
    return path.stat().st_size


def wal_size(path: Path) -> int:
    return size(Path(f"{path}-wal"))


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


async def test_a_thousand_ids_from_eight_processes_are_a_thousand_jobs(path: Path) -> None:
    """All of them start on a file that does not exist yet, so they race for the schema too."""

    async def run(batch: int) -> int | None:
        async with program("same_ids", path, 1000, batch) as process:
            return await asyncio.wait_for(process.wait(), 40)

    assert await asyncio.gather(*(run(batch) for batch in (1000, 500, 250, 200, 125, 100, 50, 40))) == [0] * 8
    one = engine(str(path))
    assert (await one.counts()).queues == {"q": {State.READY: 1000}}
    await one.close()
    assert integrity(path) == "ok"


@pytest.mark.parametrize("fault", ["E2.before_write:kill:40", "E3.written:kill:40"])
async def test_a_producer_killed_in_its_transaction_loses_nothing_acknowledged(
    path: Path, one: SqliteEngine, fault: str
) -> None:
    async with program("submit_forever", path, "p", fault=fault) as process:
        acknowledged = len(await lines(process))
    assert acknowledged == 39
    ids = [f"p-{batch}-{i}" for batch in range(41) for i in range(10)]
    stored = [row is not None for row in await one.get(ids)]
    assert all(stored[:390])
    assert stored[390:400] == [fault.startswith("E3")] * 10  # the batch of the kill: all of it or nothing
    assert not any(stored[400:])


async def test_a_worker_killed_after_its_settle_has_ended_the_jobs(path: Path, one: SqliteEngine) -> None:
    await one.submit([record(str(i)) for i in range(100)])
    async with program("work_forever", path, "w", fault="W9.settled:kill:10") as process:
        told = [id for text in await lines(process) for id in text.split()]
    assert len(told) == 45
    ended = await one.ended(State.SUCCESSFUL, 100, None)
    assert set(ended) >= set(told)
    assert len(ended) == 50  # its last settle was stored, the answer lost
    assert await one.reclaim("w", "killed") == ["w"]
    assert (await one.counts()).queues == {"q": {State.READY: 50}}


async def test_killed_again_and_again_the_log_stays_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes makes the checkpoints; one that is killed at it is replaced by the next, at last by one alone."""
    acknowledged: dict[str, int] = {}
    for name in ("a", "b", "c", "d"):
        async with program("submit_forever", path, name, 100_000) as process:
            for _ in range(60):
                acknowledged[name] = int(await line(process))
            process.kill()
            assert wal_size(path) < 1_000_000
    monkeypatch.setattr(database, "WAL_LIMIT", 1 << 20)
    one = engine(str(path))
    for batch in range(20):
        await one.submit([record(f"alone-{batch}-{i}", b"s" * 200) for i in range(500)])
        assert wal_size(path) < 3 << 20
    for name, last in acknowledged.items():
        assert all(await one.get([f"{name}-{batch}-0" for batch in range(last + 1)]))
    await one.close()
    assert size(path) > 3_000_000
    assert integrity(path) == "ok"


async def test_jobs_from_another_process_are_noticed_at_once(path: Path, one: SqliteEngine) -> None:
    async with program("wait_for_jobs", path, 60) as process:
        assert await line(process) == "waiting"
        for i in range(60):
            await one.submit([record(str(i), str(time.monotonic_ns()).encode())])
            await asyncio.sleep(0.01)
        delays = [float(text) for text in (await line(process)).split()]
    assert len(delays) == 60
    # About 1.5 ms on an idle machine; the bound leaves room for a busy one, and shows that nobody polled each 25 ms.
    assert statistics.median(delays) < 6


async def test_an_end_in_another_process_is_noticed(path: Path, one: SqliteEngine) -> None:
    await one.submit([record("a")])
    async with program("watch_job", path, "a") as process:
        assert await line(process) == "watching"
        await one.register("w", 60_000, b"", {}, 1)
        lease = (await one.claim("w", 1, {"q": 1})).leases[0]
        await one.settle("w", [Step("a", lease.claim, Kind.END, State.SUCCESSFUL, b"t", ref=lease.ref)])
        ended = time.monotonic_ns()
        state, noticed = (await line(process)).split()
    assert state == "SUCCESSFUL"
    assert (int(noticed) - ended) / 1e9 < 1


async def test_a_lock_held_too_long_is_told_and_waited_out(path: Path, one: SqliteEngine) -> None:
    short = engine(str(path), timeout=0.3)
    await short.open()
    async with program("locked_for", path, 1.2) as process:
        assert await line(process) == "locked"
        before = time.monotonic()
        with pytest.raises(EngineUnavailable, match="locked") as caught:
            await short.submit([record("a"), record("b")])
        assert time.monotonic() - before < 0.8
        assert caught.value.ids == ("a", "b")
        assert str(path) in str(caught.value)
        await one.submit([record("patient")])  # ten seconds of timeout: it gets its turn
        await process.wait()
    await short.submit([record("a"), record("b")])
    assert (await short.counts()).queues == {"q": {State.READY: 3}}
    await short.close()


async def test_a_full_disk_loses_nothing_and_heals(path: Path) -> None:
    async with program("full_disk", path) as process:
        told, healed = await lines(process)
    stored, ids, message = told.split(maxsplit=2)
    assert ids == "10"
    assert str(path) in message
    assert "disk" in message
    assert healed == f"healed {(int(stored) + 1) * 10}"
    assert integrity(path) == "ok"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
async def test_an_engine_in_use_may_be_forked(path: Path) -> None:
    async with program("forked", path) as process:
        assert await lines(process) == ["before child parent"]
        assert await process.wait() == 0
    assert integrity(path) == "ok"
