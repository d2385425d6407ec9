"""What is due at a time: ten thousand jobs at one moment with promoters that die (F17), and a fleet that shares a
schedule (F18).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from .fleet import Fleet, Process, job
from .history import judge

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@pytest.mark.timeout(120)
async def test_ten_thousand_jobs_due_at_once(fleet: Fleet) -> None:
    """Two promoters are killed in the middle of it. What they held waits for the end of their lease, here 4 s: four
    workers write as fast as they can, and on a busy machine the beats of a living one may be late by a second or two.
    """
    fleet.settings.update(lease=4.0, default_concurrency=20)
    srv = fleet.server()
    workers = [fleet.worker() for _ in range(4)]
    ids: list[str] = []
    while len(await srv.inspector.workers()) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    due = datetime.now(UTC) + timedelta(seconds=4)
    for start in range(0, 10_000, 1_000):
        ids += await srv.enqueue_many([job("work", f"d{start + i}").replace(eta=due) for i in range(1_000)])
    assert datetime.now(UTC) < due, "enqueueing took too long for this test"
    path = fleet.folder / "history"
    await fleet.until(lambda: path.exists() and path.stat().st_size > 50_000, "nothing becomes due")
    busy = [pid for pid, _ in Counter(run.pid for run in fleet.history().all()).most_common()]
    for pid in [*busy, *(worker.pid for worker in workers if worker.pid not in busy)][:2]:
        fleet.kill(pid)
    await fleet.until_ended(srv)
    history = fleet.history()
    dead = {kill.pid for kill in fleet.kills}
    first = {id: runs[0].wall - due.timestamp() for id, runs in history.runs.items()}
    by_living = sorted(late for id, late in first.items() if history.of(id)[0].pid not in dead)
    last = max(run.wall for run in history.all()) - due.timestamp()
    verdict = judge(history, ids, fleet.kills)
    print(
        f"F17: {verdict}; the first started {min(first.values()) * 1000:.0f} ms after the date, the last"
        f" {by_living[-1]:.2f} s after it, and what the dead held {last:.2f} s after it"
    )
    verdict.check()
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
    while time.monotonic() - began < 20:
        await asyncio.sleep(rand.uniform(0.2, 1.2))
        victims = rand.sample(workers, rand.choice([1, 1, 2, 3]))
        for victim in victims:
            workers.remove(victim)
            fleet.kill(victim.pid)
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
    assert len(ticks) >= 18
    assert all(id.startswith("cron:every-second@") for id in ids)
    assert [b - a for a, b in itertools.pairwise(ticks)] == [timedelta(seconds=1)] * (len(ticks) - 1)
    assert min(late) >= 0
