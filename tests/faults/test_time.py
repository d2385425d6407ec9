"""What is due at a time: two thousand jobs at one moment with promoters that die (F17), and a fleet that shares a
schedule (F18).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from datetime import UTC, datetime, timedelta

import pytest

from .fleet import Fleet, Process, job
from .history import judge
from .stores import on_whole_engines

pytestmark = [pytest.mark.fault, pytest.mark.slow, on_whole_engines]


@pytest.mark.timeout(120)
async def test_thousands_of_jobs_due_at_once(fleet: Fleet) -> None:
    """Two of eight promoters are killed in the middle of it. What they held waits for the end of their lease, here 4 s:
    all write as fast as they can, and on a busy machine the beats of a living one may be late by a second or two.
    """
    fleet.settings.update(lease=4.0, default_concurrency=10)
    srv = fleet.server()
    workers = [fleet.worker() for _ in range(8)]
    ids: list[str] = []
    while len(await srv.inspector.workers()) < len(workers):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    due = datetime.now(UTC) + timedelta(seconds=2)
    for start in range(0, 2_000, 500):
        some = [job("work", f"d{start + i}", s=0.02).replace(eta=due) for i in range(500)]
        ids += await srv.enqueue_many(some)
    assert datetime.now(UTC) < due, "enqueueing took too long for this test"
    while datetime.now(UTC) < due:  # somebody always claims, and would take what is offered too early
        ids.append(await srv.enqueue(job("work", f"now{len(ids)}", s=0.02)))
        await asyncio.sleep(0.02)
    busy = lambda: sorted({run.pid for run in fleet.history().open() if run.id[0] == "d"})  # noqa: E731
    await fleet.until(lambda: len(busy()) > 1, "nothing becomes due")
    for pid in busy()[:2]:
        await fleet.kill(pid)
    await fleet.until_ended(srv)
    history = fleet.history()
    dead = {kill.pid for kill in fleet.kills}
    first = {id: runs[0].wall - due.timestamp() for id, runs in history.runs.items() if id[0] == "d"}
    by_living = sorted(late for id, late in first.items() if history.of(id)[0].pid not in dead)
    last = max(run.wall for run in history.all()) - due.timestamp()
    verdict = judge(history, ids, fleet.kills)
    print(
        f"F17: {verdict}; the first started {min(first.values()) * 1000:.0f} ms after the date, the last"
        f" {by_living[-1]:.2f} s after it, and what the dead held {last:.2f} s after it"
    )
    verdict.check()
    assert verdict.held > 0
    assert min(first.values()) >= 0  # none early
    assert by_living[-1] < 15.0  # within 5 s on a quiet machine, see what is printed


@pytest.mark.timeout(180)
async def test_a_fleet_with_one_schedule_killed_at_random(fleet: Fleet) -> None:
    fleet.settings.update(default_concurrency=2, lease=3.0)
    rand = random.Random(18)
    srv = fleet.server()
    start = lambda: fleet.worker(tasks=["every-second"])  # noqa: E731
    workers: list[Process] = [start() for _ in range(16)]
    await fleet.until(lambda: fleet.history().all("every-second"), "no tick")
    began = time.monotonic()
    while time.monotonic() - began < 10:
        await asyncio.sleep(rand.uniform(0.2, 1.2))
        victims = rand.sample(workers, rand.choice([1, 1, 2, 3]))
        for victim in victims:
            workers.remove(victim)
            await fleet.kill(victim.pid)
            workers.append(start())  # the other thirteen or more live
    (schedule,) = await srv.get_schedules()
    await srv.delete_schedule(schedule.id)
    for worker in workers:
        assert worker.code is None
    await fleet.until_ended(srv)
    history = fleet.history()
    ids = sorted(history.runs)
    verdict = judge(history, ids, fleet.kills)
    ticks = [datetime.fromisoformat(id.partition("@")[2]) for id in ids]
    late = [history.of(id)[0].wall - at.timestamp() for id, at in zip(ids, ticks, strict=True)]
    print(f"F18: {verdict}; {len(ticks)} ticks, the latest {max(late) * 1000:.0f} ms after its time")
    verdict.check()
    assert len(ticks) >= 9
    assert all(id.startswith("cron:every-second@") for id in ids)
    assert [b - a for a, b in itertools.pairwise(ticks)] == [timedelta(seconds=1)] * (len(ticks) - 1)
    assert min(late) >= 0
