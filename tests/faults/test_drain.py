"""SIGTERM: what runs is finished within the grace, what does not is handed back, and neither costs an attempt or a
death (F3).
"""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tasqueue import Server

from .fleet import PATIENCE, Fleet, job
from .history import judge
from .stores import on_every_engine

pytestmark = [pytest.mark.fault, on_every_engine]
LATE = 4.0
"""Seconds that a loaded machine may take for what is immediate."""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("supervised", [False, True], ids=["alone", "supervised"])
async def test_a_rolling_restart_under_load(fleet: Fleet, supervised: bool) -> None:
    fleet.settings.update(grace=20.0, default_concurrency=10)
    srv = fleet.server()
    ids: list[str] = []
    stopping = asyncio.Event()

    async def load() -> None:
        """Keep some hundred jobs waiting, until told to stop."""
        while not stopping.is_set():
            if len(ids) - fleet.history().done() < 300:
                ids.extend(await srv.enqueue_many([job("work", f"j{len(ids) + i}", s=0.03) for i in range(50)]))
            await asyncio.sleep(0.02)

    def start() -> tuple[int, int]:
        process = fleet.supervised(1) if supervised else fleet.worker()
        return len(fleet.processes) - 1, process.pid

    producer = asyncio.create_task(load())
    workers = [start(), start()]
    took: list[float] = []
    for _ in range(10):
        old, _ = workers.pop(0)
        process = fleet.processes[old]
        of = lambda process=process: {*process.children(), process.pid}  # noqa: E731
        await fleet.until(lambda of=of: any(r.pid in of() for r in fleet.history().open()), "it runs nothing")
        workers.append(start())
        at = time.monotonic()
        process.signal(signal.SIGTERM)
        assert await process.ended(PATIENCE) == 0
        took.append(time.monotonic() - at)
    stopping.set()
    await producer
    await fleet.all_successful(srv, ids)
    verdict = judge(fleet.history(), ids)
    print(f"F3 {'supervised' if supervised else 'alone'}: {verdict}, exits after {max(took):.2f} s at the most")
    verdict.check()
    assert verdict.extra == []
    assert max(took) < 1.0 + LATE  # the grace is 20 s, but nothing takes longer than 30 ms
    await nothing_was_spent(srv, ids)


async def nothing_was_spent(srv: Server, ids: list[str]) -> None:
    for id in ids:
        meta = (await srv.get_job(id)).meta
        assert (meta.retried, meta.deaths, meta.errors) == (0, 0, ()), meta


async def lease(fleet: Fleet) -> float:
    """Seconds, so long that nobody waits for its end; but where a process that was killed can give nothing back."""
    return 30.0 if (await fleet.engine()).capabilities.instant_handback else 5.0


@pytest.mark.slow
@pytest.mark.parametrize("supervised", [False, True], ids=["alone", "supervised"])
@pytest.mark.parametrize("task", ["first_waits", "first_waits_in_thread"])
async def test_jobs_longer_than_the_grace_are_entered_once_more(fleet: Fleet, supervised: bool, task: str) -> None:
    fleet.settings.update(grace=1.0, lease=await lease(fleet))
    srv = fleet.server()
    ids = await srv.enqueue_many([job(task, f"j{i}") for i in range(3)])
    process = fleet.supervised(1) if supervised else fleet.worker()
    await fleet.until(lambda: len(fleet.history().open()) == 3, "they do not start")
    at = time.monotonic()
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    took = time.monotonic() - at
    assert 1.0 <= took < 2.0 + LATE
    at = time.monotonic()
    fleet.worker()
    await fleet.all_successful(srv, ids)
    assert time.monotonic() - at < 20  # given back, not left to the lease
    history = fleet.history()
    for id in ids:
        assert [run.done for run in history.of(id)] == [False, True]
        assert await srv.get_result(id) == b"second"  # the interrupted run never counts
    print(f"grace of 1 s, {task}: exit after {took:.2f} s")
    await nothing_was_spent(srv, ids)


@pytest.mark.parametrize("supervised", [False, True], ids=["alone", "supervised"])
async def test_a_second_signal_skips_the_grace(fleet: Fleet, supervised: bool) -> None:
    fleet.settings.update(grace=50.0, lease=await lease(fleet))
    srv = fleet.server()
    await srv.enqueue(job("first_waits", "j"))
    process = fleet.supervised(1) if supervised else fleet.worker()
    await fleet.until(lambda: fleet.history().open(), "it does not start")
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGINT)
    assert await process.ended(30) == 0
    fleet.worker()
    await fleet.all_successful(srv, ["j"], 25)
    await nothing_was_spent(srv, ["j"])
