"""kill -9 of workers, of all of them, and of everything: nothing is lost, nothing is stuck, and no run is repeated
that no kill explains (F1, F7, F19).

Where nobody sees the death the lease has to end: 4 s, so that three beats in a row (one a second, from a thread of
its own) may be late while all write as fast as they can. A job taken from a living worker would be an unexplained
run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import pytest

from tasqueue import Chain, Group, Status

from .fleet import PATIENCE, Fleet, Process, job
from .history import chain_faults, group_faults, judge
from .stores import on_every_engine, on_every_store

pytestmark = [pytest.mark.fault, pytest.mark.slow]


async def kill_in_steps(
    fleet: Fleet, times: int, total: int, pids: Callable[[], Collection[int]], killed: Callable[[int], None]
) -> None:
    """Kill a process of `pids` in the middle of a job, `times` times, each after another share of the work is done."""
    for k in range(1, times + 1):
        found: list[int] = []

        def busy(k: int = k, found: list[int] = found) -> bool:
            history = fleet.history()
            if history.done() < total * k // (times + 5):
                return False
            living = set(pids()) - {kill.pid for kill in fleet.kills}
            found[:] = [run.pid for run in history.open() if run.pid in living]
            return bool(found)

        await fleet.until(busy, f"kill {k}: nobody is in the middle of a job")
        await fleet.kill(found[0])
        killed(found[0])


@on_every_engine
@pytest.mark.timeout(180)
@pytest.mark.parametrize("supervised", [False, True], ids=["alone", "supervised"])
async def test_workers_killed_in_the_middle_of_jobs(fleet: Fleet, supervised: bool) -> None:
    srv = fleet.server()
    fleet.settings["lease"] = 10.0 if supervised and await at_once(fleet) else 4.0
    total = int(5_000 * fleet.store.volume)
    ids = await srv.enqueue_many([job("work", f"j{i}", s=0.006 / fleet.store.volume) for i in range(total)])
    settings = {"default_concurrency": 10}
    began = time.monotonic()
    if supervised:
        boss = fleet.supervised(3, **settings)
        await kill_in_steps(fleet, 20, len(ids), boss.children, lambda pid: None)
    else:
        workers = {p.pid: p for p in (fleet.worker(**settings) for _ in range(3))}

        def replace(pid: int) -> None:
            del workers[pid]
            fresh = fleet.worker(**settings)
            workers[fresh.pid] = fresh

        await kill_in_steps(fleet, 20, len(ids), workers.keys, replace)
    await fleet.all_successful(srv, ids)
    verdict = judge(fleet.history(), ids, fleet.kills)
    print(f"F1 {'supervised' if supervised else 'alone'}: {verdict}, {time.monotonic() - began:.1f} s")
    verdict.check()
    assert verdict.kills == 20
    assert verdict.held >= 20  # each was in the middle of at least one


async def at_once(fleet: Fleet) -> bool:
    """Whether what a dead worker held is offered at once."""
    return (await fleet.engine()).capabilities.instant_handback


@on_every_engine
async def test_a_killed_childs_job_runs_again_at_once(fleet: Fleet) -> None:
    """Or else, where the store cannot give it back, when its lease ends."""
    instant = await at_once(fleet)
    lease = fleet.settings["lease"] = 10.0 if instant else 3.0
    srv = fleet.server()
    ids = await srv.enqueue_many([job("first_waits", f"j{i}") for i in range(4)])
    boss = fleet.supervised(2, default_concurrency=4)
    await fleet.until(lambda: len(fleet.history().open()) == 4 and len(boss.children()) == 2, "the jobs do not start")
    victims = {run.pid for run in fleet.history().open()}
    kill = await fleet.kill(victims.pop())
    lost = [run.id for run in fleet.history().open(kill.pid)]
    await fleet.until(lambda: all(len(fleet.history().of(id)) == 2 for id in lost), "no second run")
    took = max(fleet.history().of(id)[1].start for id in lost) - kill.at
    print(f"recovery under the supervisor: {took * 1000:.0f} ms for {len(lost)} job(s), the lease being {lease:g} s")
    assert took < (3.0 if instant else lease + 1.0)  # the former under 1 s on a quiet machine, see what is printed
    (fleet.folder / "go").touch()
    await fleet.all_successful(srv, ids)
    judge(fleet.history(), ids, fleet.kills).check()


@on_every_store
@pytest.mark.timeout(180)
async def test_chains_and_groups_under_kills(fleet: Fleet) -> None:
    fleet.settings["lease"] = 10.0 if await at_once(fleet) else 3.0
    n_chains, n_groups = int(100 * fleet.store.volume), int(50 * fleet.store.volume)
    seconds = 0.003 / fleet.store.volume
    srv = fleet.server()
    for i in range(n_chains):
        await srv.enqueue_chain(Chain([job("step", n=n, s=seconds) for n in range(5)], id=f"c{i}"))
    for i in range(n_groups):
        await srv.enqueue_group(
            Group([job("member", s=seconds) for _ in range(20)], id=f"g{i}", on_success=job("callback"))
        )
    chains = [[f"c{i}~c{n}" for n in range(5)] for i in range(n_chains)]
    callbacks = [f"g{i}~s0" for i in range(n_groups)]
    ids = [
        *(id for steps in chains for id in steps),
        *(f"g{i}~g{n}" for i in range(n_groups) for n in range(20)),
        *callbacks,
    ]
    boss = fleet.supervised(3, default_concurrency=10)
    await kill_in_steps(fleet, 10, len(ids), boss.children, lambda pid: None)
    await fleet.all_successful(srv, ids)
    history = fleet.history()
    verdict = judge(history, ids, fleet.kills)
    print(f"F19: {verdict}")
    verdict.check()
    assert [wrong for steps in chains for wrong in chain_faults(history, steps)] == []
    for i in range(n_chains):
        chain = await srv.get_chain(f"c{i}")
        assert (chain.status, len(chain.prev_jobs)) == (Status.SUCCESSFUL, 5)
    for i, callback in enumerate(callbacks):
        assert (await srv.get_group(f"g{i}")).status is Status.SUCCESSFUL
        assert await srv.get_result(callback) == b"20"
        assert group_faults(history, [f"g{i}~g{n}" for n in range(20)], callback) == []
    assert {run.id for run in history.all("callback")} == set(callbacks)


@on_every_engine
@pytest.mark.timeout(180)
async def test_everything_killed_at_once(fleet: Fleet) -> None:
    """As a power cut, less what the disk forgets: supervisor, workers and producer, three times during the work."""
    fleet.settings["lease"] = 4.0
    srv = fleet.server()
    few = int(400 * fleet.store.volume)
    for _ in range(3):
        boss: Process = fleet.supervised(2, default_concurrency=10)
        producer = fleet.producer("stream", 200)
        before = fleet.history().done()
        await fleet.until(lambda before=before: fleet.history().done() > before + few, "nothing is done")
        workers = boss.children()
        for pid in [boss.pid, producer.pid]:
            await fleet.kill(pid)
        for pid in workers:
            await fleet.kill(pid)
        for process in (boss, producer):
            await process.ended(PATIENCE)
    accepted, attempted = fleet.produced()
    began = time.monotonic()
    fleet.supervised(2, default_concurrency=10)
    await fleet.until_ended(srv)
    verdict = judge(fleet.history(), accepted, fleet.kills, attempted)
    print(f"all at once, three times: {verdict}, drained {time.monotonic() - began:.1f} s after the restart")
    verdict.check()
    assert verdict.accepted > 1_000 * fleet.store.volume
