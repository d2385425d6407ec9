"""`srv.run()`: a worker without a supervisor, its signals and its end."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.runtime.fleet import Fleet

from tasqueue import Job, JobCtx, Server, Status
from tasqueue.runtime.worker import Worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

RUN = "from fleetapp import srv; srv.run()"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path, grace=1.0, default_concurrency=4)
    yield fleet
    await fleet.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(fleet: Fleet, number: signal.Signals) -> None:
    worker = fleet.start(script=RUN)
    given_back = ["slow", "deaf", "stubborn"]
    await fleet.server.enqueue_many(
        [Job("hold", id="quick"), Job("hold", id="slow"), Job("deaf", id="deaf"), Job("stubborn", id="stubborn")]
    )
    for id in ("quick", *given_back):
        await fleet.started(id)
    asked = time.monotonic()
    worker.send_signal(number)
    fleet.tell("go-quick")
    assert await fleet.exit(worker) == 0
    assert 1.0 <= time.monotonic() - asked < 2.6
    assert (await fleet.server.get_job("quick")).meta.status is Status.SUCCESSFUL
    for id in given_back:
        meta = (await fleet.server.get_job(id)).meta
        assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
    assert {message.meta.id for message in await fleet.server.get_pending()} == {*given_back}


async def test_what_is_left_behind_is_given_back_when_it_is_gone(tmp_path: Path) -> None:
    server = Server(f"sqlite:///{tmp_path / 'jobs.db'}", grace=0.1)
    entered, over = threading.Event(), threading.Event()

    def deaf(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        over.wait()

    server.register_task("deaf", deaf)
    await server.enqueue(Job("deaf", id="job"))
    worker = Worker(await server.parts(), retires=False)
    task = asyncio.create_task(worker.run())
    await asyncio.to_thread(entered.wait)
    worker.stop()
    await task
    assert worker.left_behind == 1
    assert (await server.get_job("job")).meta.status is Status.PROCESSING
    over.set()
    await worker.hand_back()
    assert (await server.get_job("job")).meta.status is Status.QUEUED
    assert [message.meta.id for message in await server.get_pending()] == ["job"]
    await server.close()


async def test_a_second_signal_skips_the_grace(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, grace=60.0)
    try:
        worker = fleet.start(script=RUN)
        await fleet.server.enqueue(Job("hold", id="job"))
        await fleet.started("job")
        worker.send_signal(signal.SIGTERM)
        await fleet.until(lambda: fleet.history("draining"), "the drain")
        worker.send_signal(signal.SIGTERM)
        assert await fleet.exit(worker, 5.0) == 0
        meta = (await fleet.server.get_job("job")).meta
        assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
    finally:
        await fleet.close()
