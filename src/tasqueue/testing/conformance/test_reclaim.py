"""Reclaim: what dead workers held is offered again, deaths counted, and nobody is dead because a clock jumped (G10)."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State

from .harness import LEASE, LONG, Harness, end, fail, ids, needs, release, retry

pytestmark = pytest.mark.asyncio


async def test_a_worker_whose_lease_has_ended(h: Harness) -> None:
    await h.put("a", "b", "c")
    dying, living = await h.worker("dying", lease=LEASE), await h.worker("living")
    await dying.claim(2)
    (c,) = await living.claim(1)
    await h.engine.reclaim()
    assert await h.engine.reclaim() == []
    await h.clock.advance(LEASE + 50)
    assert await h.engine.reclaim() == ["dying"]
    assert await h.ready() == ["a", "b"]
    assert [(await h.row(name)).deaths for name in "abc"] == [1, 1, 0]
    assert [row.id for row in await h.engine.workers()] == ["living"]
    assert await living.settle(end(c)) == [True]


async def test_the_next_lease_tells_of_the_death(h: Harness) -> None:
    await h.put("a")
    await (await h.worker("dying", lease=LEASE)).take("a")
    await h.engine.reclaim()
    await h.clock.advance(LEASE + 50)
    await h.engine.reclaim()
    lease = await (await h.worker("next")).take("a")
    assert (lease.deaths, lease.died_with) == (1, "dying")
    assert "lease" in lease.death_cause


async def test_one_that_is_declared_dead_at_once_with_the_cause(h: Harness) -> None:
    await h.put("a")
    await (await h.worker("killed", lease=LONG)).take("a")
    assert await h.engine.reclaim("killed", "signal 9") == ["killed"]
    row = await h.row("a")
    assert (row.state, row.deaths) == (State.READY, 1)
    lease = await (await h.worker("next")).take("a")
    assert (lease.deaths, lease.died_with, lease.death_cause) == (1, "killed", "signal 9")


@needs("instant_handback")
async def test_what_it_held_is_offered_at_once(h: Harness) -> None:
    await h.put("a", "b")
    await (await h.worker("killed")).claim(1)
    await (await h.another()).reclaim("killed", "signal 9")
    assert await h.ready() == ["a", "b"]


async def test_declaring_a_stranger_dead(h: Harness) -> None:
    assert await h.engine.reclaim("stranger", "killed") == []


async def test_after_a_gap_nothing_is_taken_and_every_lease_begins_again(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker(lease=LEASE)
    lease = await worker.take("a")
    await h.engine.reclaim()
    await h.clock.advance(3_200)
    now = await h.clock.now()
    assert await h.engine.reclaim() == []
    (row,) = await h.engine.workers()
    assert now + LEASE <= row.deadline <= await h.clock.now() + LEASE
    assert not (await worker.beat(LEASE)).lost
    assert await worker.settle(end(lease)) == [True]


async def test_after_the_gap_those_who_stay_away_are_taken(h: Harness) -> None:
    await h.put("a")
    await (await h.worker(lease=LEASE)).take("a")
    await h.engine.reclaim()
    await h.clock.advance(3_200)
    await h.engine.reclaim()
    await h.clock.advance(LEASE + 50)
    assert await h.engine.reclaim() == ["w"]
    assert (await h.row("a")).deaths == 1


async def test_the_gap_counts_from_the_last_reclaim_by_anybody(h: Harness) -> None:
    other = await h.another()
    await h.put("a")
    await (await h.worker(lease=LEASE)).take("a")
    await h.engine.reclaim()
    await h.clock.advance(LEASE // 2)
    await other.reclaim()
    await h.clock.advance(LEASE)
    assert await h.engine.reclaim() == ["w"]


async def test_a_gap_does_not_save_one_that_is_declared_dead(h: Harness) -> None:
    await h.put("a")
    await (await h.worker()).take("a")
    await h.engine.reclaim()
    await h.clock.advance(3_200)
    assert await h.engine.reclaim("w", "killed") == ["w"]
    assert (await h.row("a")).deaths == 1


async def test_deaths_add_up(h: Harness) -> None:
    await h.put("a")
    for k in range(1, 4):
        await (await h.worker(f"w{k}")).take("a")
        await h.engine.reclaim(f"w{k}", f"cause {k}")
        assert (await h.row("a")).deaths == k
    lease = await (await h.worker("last")).take("a")
    assert (lease.deaths, lease.died_with, lease.death_cause) == (3, "w3", "cause 3")


async def test_a_retry_keeps_the_deaths(h: Harness) -> None:
    await h.put("a")
    await (await h.worker("dies")).take("a")
    await h.engine.reclaim("dies", "killed")
    worker = await h.worker()
    await worker.settle(retry(await worker.take("a")))
    assert (await worker.take("a")).deaths == 1


async def test_a_release_counts_no_death(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(release(await worker.take("a")))
    lease = await worker.take("a")
    assert (lease.deaths, lease.died_with) == (0, "")


async def test_a_release_of_one_whose_child_process_died_counts_a_death(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    a, b = await worker.claim()
    await worker.settle(release(a, died=True, reason="signal 11"), release(b))
    again = {lease.id: lease for lease in await worker.claim()}
    assert (again["a"].deaths, again["a"].died_with, again["a"].death_cause) == (1, "w", "signal 11")
    assert again["b"].deaths == 0
    assert not (await worker.beat()).lost


async def test_the_end_of_one_whose_child_process_died_counts_a_death(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    a, b = await worker.claim()
    assert await worker.settle(fail(a, died=True, reason="exit code 7"), fail(b)) == [True, True]
    rows = await h.engine.get(["a", "b"])
    assert [(row.state, row.deaths) for row in rows if row is not None] == [(State.FAILED, 1), (State.FAILED, 0)]


async def test_reopening_forgets_the_deaths(h: Harness) -> None:
    await h.put("a")
    await (await h.worker("dies")).take("a")
    await h.engine.reclaim("dies", "killed")
    await h.run("a", State.FAILED)
    assert (await h.row("a")).deaths == 1
    await h.reopen("a")
    lease = await (await h.worker("next")).take("a")
    assert (lease.deaths, lease.died_with, lease.death_cause, lease.tail) == (0, "", "", b"again")


async def test_what_had_ended_stays_ended(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    a, _ = await worker.claim()
    await worker.settle(end(a, result=b"saved"))
    await h.engine.reclaim("w", "killed")
    row = await h.row("a")
    assert (row.state, row.result, row.deaths) == (State.SUCCESSFUL, b"saved", 0)
    assert await h.ready() == ["b"]


async def test_a_worker_that_held_nothing(h: Harness) -> None:
    await h.worker(lease=LEASE)
    await h.engine.reclaim()
    await h.clock.advance(LEASE + 50)
    assert await h.engine.reclaim() == ["w"]


async def test_many_jobs_of_many_dead_workers(h: Harness) -> None:
    names = [f"{i:03}" for i in range(200)]
    await h.put(*names)
    for k in range(4):
        assert ids(await (await h.worker(f"w{k}", lease=LEASE)).claim(50)) == names[k * 50 : k * 50 + 50]
    await h.engine.reclaim()
    await h.clock.advance(LEASE + 50)
    assert sorted(await h.engine.reclaim()) == ["w0", "w1", "w2", "w3"]
    assert await h.ready() == names
