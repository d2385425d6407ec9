"""A kill at each numbered point, and a lost reply or an error behind each write (F2).

Two processes in a row die at the same point, each beside fresh work; then a healthy one finishes. Nobody else lives
when one dies, so what it held and what it had stored can be read exactly: no more runs are repeated than it held, and
nothing that was stored.
"""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from tasqueue import Chain, Group, Server
from tasqueue.faults import POINTS

from .fleet import PATIENCE, Fleet, Process, job
from .history import Kill, judge
from .stores import on_every_store, on_what_has_two_halves

pytestmark = [pytest.mark.fault, pytest.mark.slow]

PAIRS_ONLY = {"G2.members_written"}
PRODUCER = [point for point in POINTS if point[0] == "E"] + ["G1.record_written"]
WORKER = [point for point in POINTS if point not in {*PRODUCER, *PAIRS_ONLY}]
NOT_ENTERED = {"W1.before_claim", "W2.claimed", "W3.decoded", "W4.before_handler", "W5.entered"}
"""With one slot, no handler of the victim has been entered at its first passage."""
SHORT = 1.0
"""Seconds: the lease of those that die, and live for less than that."""
LOST = ["W2.claimed", "W9.settled", "R2.rescheduled", "M2.moved", "P2.offered", "S2.tick_inserted"]


async def put_work(srv: Server, name: str) -> list[str]:
    """A little of everything, so that every point is passed; the ids of all that has to run."""
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    jobs = [job("flaky", f"{name}-f{i}") for i in range(2)]
    jobs += [job("work", f"{name}-w{i}", s=0.01).replace(on_success=job("after")) for i in range(5)]
    jobs += [job("heard", f"{name}-h{i}") for i in range(2)]
    jobs += [job("work", f"{name}-d{i}").replace(eta=soon + timedelta(seconds=0.2 * i)) for i in range(3)]
    ids = await srv.enqueue_many(jobs)
    await srv.enqueue_chain(Chain([job("step", n=n) for n in range(3)], id=f"{name}-c"))
    await srv.enqueue_group(Group([job("member")] * 3, id=f"{name}-g", on_success=job("callback")))
    derived = [f"{name}-w{i}~s0" for i in range(5)] + [f"{name}-c~c{n}" for n in range(3)]
    return [*ids, *derived, *(f"{name}-g~g{n}" for n in range(3)), f"{name}-g~s0"]


async def finish(fleet: Fleet, srv: Server, ids: list[str], within: float = PATIENCE) -> list[str]:
    """Until all is done; the ids with those of the schedule's ticks, which nobody enqueued."""
    for schedule in await srv.get_schedules():
        ticks = len(fleet.history().all("every-second"))
        await fleet.until(
            lambda ticks=ticks: len(fleet.history().all("every-second")) > ticks, "no tick any more", within
        )
        await srv.delete_schedule(schedule.id)
    await fleet.all_successful(srv, ids, within)
    return [*ids, *{run.id for run in fleet.history().all("every-second")}]


async def dead(fleet: Fleet, process: Process) -> Kill:
    """It has died by its own hand; it holds what it held."""
    await fleet.until(lambda: process.code is not None, "the point was not passed")
    assert process.code == -signal.SIGKILL, process.log
    kill = Kill(process.pid, time.monotonic(), await fleet.held(process.pid))
    fleet.kills.append(kill)
    return kill


async def leases_over(fleet: Fleet) -> None:
    """Until those of all that have died are: who starts now takes back what they held when he first looks."""
    engine = await fleet.engine()
    until = max((row.deadline for row in await engine.workers()), default=0)
    await asyncio.sleep((until - await engine.now()) / 1000)


@on_every_store
@pytest.mark.parametrize("point", WORKER)
async def test_workers_die_at_a_point(fleet: Fleet, point: str) -> None:
    tasks = ["every-second"] if point[0] == "S" else []
    srv = fleet.server()
    ids: list[str] = []
    stored: dict[str, int] = {}
    if point[0] == "P":  # somebody has to be dead already
        ids += await put_work(srv, "v")
        await dead(fleet, fleet.worker("W5:kill", lease=SHORT))
        await leases_over(fleet)
    for name in "ab":
        ids += await put_work(srv, name)
        await dead(fleet, fleet.worker(f"{point}:kill", default_concurrency=1, lease=SHORT, tasks=tasks))
        for id in await srv.get_success(limit=1000):
            stored.setdefault(id, len(fleet.history().of(id)))
    await leases_over(fleet)
    fleet.worker(tasks=tasks)
    ids = await finish(fleet, srv, ids)
    history = fleet.history()
    assert {id: len(history.of(id)) for id in stored} == stored  # what was stored is not run again
    verdict = judge(history, ids, fleet.kills, retries=True)
    print(f"F2 {point}: {verdict}")
    verdict.check()
    if point in NOT_ENTERED:
        assert verdict.extra == []


@on_every_store
@pytest.mark.parametrize("point", PRODUCER)
async def test_producers_die_at_a_point(fleet: Fleet, point: str) -> None:
    srv = fleet.server()
    for nth in (1, 2) if point[0] == "E" else (1, 1):
        await dead_producer(fleet, f"{point}:kill:{nth}")
    await finish_producing(fleet, srv)


@on_what_has_two_halves
@pytest.mark.parametrize("point", sorted(PAIRS_ONLY))
async def test_producers_die_between_the_writes_of_a_pair(fleet: Fleet, point: str) -> None:
    srv = fleet.server()
    for _ in range(2):
        await dead_producer(fleet, f"{point}:kill")
    await finish_producing(fleet, srv)


async def dead_producer(fleet: Fleet, fault: str) -> None:
    process = fleet.producer("mixed", 10, fault)
    await fleet.until(lambda: process.code is not None, "the point was not passed")
    assert process.code == -signal.SIGKILL, process.log


async def finish_producing(fleet: Fleet, srv: Server) -> None:
    """What they were told is stored is there; a producer that starts over adds what is missing, and nothing twice."""
    accepted, _ = fleet.produced()
    for id in accepted:
        await srv.get_job(id) if not id.endswith("~s0") else None
    assert await fleet.producer("mixed", 10).ended() == 0
    accepted, attempted = fleet.produced()
    assert accepted == attempted
    fleet.worker()
    await fleet.all_successful(srv, accepted)
    verdict = judge(fleet.history(), accepted)
    verdict.check()
    assert (verdict.accepted, verdict.extra) == (1 + 10 + 3 + 4, [])


@on_every_store
@pytest.mark.parametrize("nth", [1, 2])
async def test_a_producer_that_never_learns_that_its_jobs_are_stored(fleet: Fleet, nth: int) -> None:
    srv = fleet.server()
    assert await fleet.producer("mixed", 10, f"E3:drop-reply:{nth}").ended() == 0
    await finish_producing(fleet, srv)


@on_every_store
@pytest.mark.parametrize("action", ["drop-reply", "raise"])
@pytest.mark.parametrize("point", LOST)
async def test_an_answer_that_is_lost_strands_nothing(fleet: Fleet, point: str, action: str) -> None:
    """The worker goes on, so no lease ever ends: it has to find out by asking again."""
    fleet.may_complain = action == "raise"
    tasks = ["every-second"] if point[0] == "S" else []
    srv = fleet.server()
    ids: list[str] = []
    if point[0] == "P":
        ids += await put_work(srv, "v")
        await dead(fleet, fleet.worker("W5:kill", lease=SHORT))
        await leases_over(fleet)
    ids += await put_work(srv, "a")
    worker = fleet.worker(f"{point}:{action}", tasks=tasks)
    await fleet.until(lambda: "fault point" in worker.log or action in worker.log, "the point was not passed", 20)
    ids = await finish(fleet, srv, ids, 20)
    assert worker.code is None
    verdict = judge(fleet.history(), ids, fleet.kills, retries=True)
    verdict.check()
    assert verdict.extra == []
