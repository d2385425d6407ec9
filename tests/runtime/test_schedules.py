"""Cron: ticks come whatever runs do, under ids that say which tick, once; of missed ones only the latest (G7)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tasqueue import Job, JobCtx, Server, Status
from tasqueue.core.message import moment
from tasqueue.core.record import Schedule
from tasqueue.engines import connect
from tasqueue.events import Bus, Ticked
from tasqueue.interfaces import Engine
from tasqueue.runtime.duties import IDLE, Scheduler
from tasqueue.testing.clock import ManualClock

from .conftest import Make
from .helpers import engine_of, until, working


async def test_every_second_though_each_run_fails(srv: Server) -> None:
    runs: list[str] = []
    ticks: list[Ticked] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(ctx.meta.id)
        assert ctx.meta.schedule == "@every 1s"
        raise ValueError("as always")

    srv.register_task("t", handler, max_retries=0)
    srv.on(Ticked, ticks.append)
    async with working(srv):
        assert await srv.enqueue(Job("t", schedule="@every 1s", id="s")) == "s"
        await until(lambda: len(runs) == 3)
        for id in runs:
            assert (await srv.wait(id, 10)).meta.status is Status.FAILED
        schedule = (await srv.get_schedules())[0]
    assert len(set(runs)) == 3
    assert [(tick.schedule_id, tick.id) for tick in ticks[:3]] == [("s", id) for id in runs]
    dates = []
    for id in runs:
        assert re.fullmatch(r"s@\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", id)
        dates.append(datetime.fromisoformat(id.partition("@")[2]))
    assert [(b - a).total_seconds() for a, b in pairwise(dates)] == [1.0, 1.0]
    assert schedule.last_at is not None
    assert schedule.last_at >= dates[-1]


async def test_stored_at_start_and_changed_by_a_new_version(make: Make) -> None:
    first, second = make(), make()
    first.task(name="nightly", schedule="0 3 * * *")(lambda: None)
    async with working(first):
        entry = (await until(first.get_schedules))[0]
        assert (entry.id, entry.schedule, entry.job.task) == ("cron:nightly", "0 3 * * *", "nightly")
        next_at = entry.next_at
    second.task(name="nightly", schedule="0 4 * * *")(lambda: None)
    async with working(second):
        await until(lambda: schedule_is(second, "0 4 * * *"))
        changed = await second.get_schedules()
        assert len(changed) == 1
        assert changed[0].next_at != next_at
        assert await second.delete_schedule("cron:nightly")
        assert await second.get_schedules() == []
    async with working(second):
        await until(lambda: schedule_is(second, "0 4 * * *"))


async def schedule_is(srv: Server, text: str) -> bool:
    return [entry.schedule for entry in await srv.get_schedules()] == [text]


async def test_a_task_with_a_schedule_registered_while_running(srv: Server) -> None:
    async with working(srv):
        await until((await engine_of(srv)).workers)
        ran = asyncio.Event()

        @srv.task(schedule="@every 1s")
        async def ticking() -> None:
            ran.set()

        await asyncio.wait_for(ran.wait(), 10)


Open = Callable[[], Engine]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"
    engine = connect(url, namespace="tasqueue", timeout=5.0, ports=clock.ports)
    await engine.open()
    yield engine
    await engine.close()


async def store(engine: Engine, clock: ManualClock, text: str, id: str = "s") -> None:
    from tasqueue.core import codec, cron

    schedule = cron.parse(text)
    spec = codec.encode_spec(Job("t"), clock.ms, schedule=schedule.text)
    await engine.put_schedule(Schedule(id, schedule.text, "t", "q", 0, spec, clock.ms, schedule.first(clock.ms)))


async def waiting(engine: Engine) -> list[str]:
    return [row.id for row in await engine.pending("q", 100, None)]


def at(clock: ManualClock, seconds: float) -> str:
    date = moment(clock.ms + int(seconds * 1000))
    assert date is not None
    return date.astimezone(UTC).isoformat().replace("+00:00", "Z")


async def test_not_before_its_time_and_of_missed_ticks_only_the_latest(engine: Engine, clock: ManualClock) -> None:
    scheduler = Scheduler(engine, Bus())
    await store(engine, clock, "@every 10s")
    ticks = [at(clock, 10), at(clock, 50)]
    assert await scheduler.tick() == IDLE
    clock.advance(9.9)
    assert 0.0 < await scheduler.tick() <= 0.11
    assert await waiting(engine) == []
    clock.advance(0.1)
    assert await scheduler.tick() == 0.0
    assert await scheduler.tick() == IDLE
    assert [id.partition("@")[0] for id in await waiting(engine)] == ["s"]
    clock.advance(49.0)  # five ticks, at 20 .. 50
    await scheduler.tick()
    ids = await waiting(engine)
    assert [id.partition("@")[2].replace("+00:00", "Z") for id in ids] == ticks
    entry = (await engine.schedules())[0]
    assert (entry.next_at - clock.ms, clock.ms - (entry.last_at or 0)) == (1_000, 9_000)


async def test_two_schedulers_tick_once(engine: Engine, clock: ManualClock) -> None:
    one, two = Scheduler(engine, Bus()), Scheduler(engine, Bus())
    await store(engine, clock, "*/5 * * * *")
    for _ in range(6):
        clock.advance(300)
        await asyncio.gather(one.tick(), two.tick())
    assert len(await waiting(engine)) == 6


async def test_a_deleted_one_ticks_no_more(engine: Engine, clock: ManualClock) -> None:
    scheduler = Scheduler(engine, Bus())
    await store(engine, clock, "@every 10s")
    clock.advance(10)
    await scheduler.tick()
    assert await engine.delete_schedule("s")
    clock.advance(100)
    await scheduler.tick()
    assert len(await waiting(engine)) == 1


async def test_one_that_cannot_be_computed_holds_no_other_back(
    engine: Engine, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = Scheduler(engine, Bus())
    await engine.put_schedule(Schedule("bad", "every blue moon", "t", "q", 0, b"\xc1", clock.ms, clock.ms))
    await store(engine, clock, "@every 10s", "good")
    assert await scheduler.tick() == IDLE  # in no hurry to fail again
    clock.advance(10)
    await scheduler.tick()
    assert [id.partition("@")[0] for id in await waiting(engine)] == ["good"]
    assert "every blue moon" in caplog.text


async def test_many_due_at_once_are_all_moved(engine: Engine, clock: ManualClock) -> None:
    from tasqueue.core import codec
    from tasqueue.core.record import Record

    scheduler = Scheduler(engine, Bus())
    spec = codec.encode_spec(Job("t"), clock.ms)
    await engine.submit([Record(f"j{i}", "q", "t", spec, due=clock.ms + 5_000 + i % 2) for i in range(2500)])
    assert await scheduler.tick() == IDLE
    clock.advance(5.001)
    calls = 0
    while await scheduler.tick() == 0.0:
        calls += 1
    assert calls <= 4
    assert len(await engine.pending("q", 5000, None)) == 2500
