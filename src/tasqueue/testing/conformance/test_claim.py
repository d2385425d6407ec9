"""Claim: at most what is wanted, to one worker only, each under a fresh token (G4)."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State
from tasqueue.interfaces import WorkerGone

from .harness import SHORT, Harness, end, ids, needs, record, release, retry

pytestmark = pytest.mark.asyncio


async def test_at_most_what_is_wanted(h: Harness) -> None:
    await h.put(*"abcde")
    worker = await h.worker()
    assert ids(await worker.claim(3)) == ["a", "b", "c"]
    assert ids(await worker.claim(3)) == ["d", "e"]
    assert await worker.claim(3) == []


async def test_what_a_lease_says(h: Harness) -> None:
    await h.put(record("a", spec=b"spec", prev=b"previous"))
    lease = await (await h.worker()).take("a")
    assert (lease.id, lease.queue, lease.claim, lease.spec, lease.prev) == ("a", "q", 1, b"spec", b"previous")
    assert (lease.tail, lease.deaths, lease.died_with, lease.death_cause) == (b"", 0, "", "")
    assert (lease.parked_at, lease.link, lease.pos) == (None, "", 0)


async def test_each_queue_has_a_limit_of_its_own(h: Harness) -> None:
    await h.put(*(record(f"{queue}{i}", queue) for i in range(3) for queue in ("one", "two", "three")))
    await h.worker()
    claim = await h.engine.claim("w", 1, {"one": 2, "two": 1, "three": 0})
    assert sorted(ids(claim.leases)) == ["one0", "one1", "two0"]
    assert {lease.queue for lease in claim.leases} == {"one", "two"}


async def test_a_queue_that_nobody_has_used(h: Harness) -> None:
    await h.put("a")
    claim = await (await h.worker()).engine.claim("w", 1, {"nothing": 5})
    assert (list(claim.leases), claim.next_due) == ([], None)


async def test_wanting_nothing(h: Harness) -> None:
    await h.put("a")
    await h.worker()
    assert list((await h.engine.claim("w", 1, {})).leases) == []
    assert list((await h.engine.claim("w", 2, {"q": 0})).leases) == []
    assert await h.ready() == ["a"]


async def test_what_one_holds_no_other_gets(h: Harness) -> None:
    await h.put("a", "b")
    one, two = await h.worker("one"), await h.worker("two", await h.another())
    assert ids(await one.claim(1)) == ["a"]
    assert ids(await two.claim(5)) == ["b"]
    assert await one.claim(5) == []


@needs("live_status")
async def test_a_claimed_job_is_seen_running(h: Harness) -> None:
    await h.put("a")
    before = await h.clock.now()
    await (await h.worker()).take("a")
    row = await h.row("a")
    assert (row.state, row.worker) == (State.RUNNING, "w")
    assert row.claimed_at is not None
    assert before <= row.claimed_at <= await h.clock.now()


async def test_a_worker_that_never_registered(h: Harness) -> None:
    await h.put("a")
    with pytest.raises(WorkerGone):
        await h.engine.claim("stranger", 1, {"q": 1})
    assert await h.ready() == ["a"]


async def test_a_retired_worker_cannot_claim(h: Harness) -> None:
    worker = await h.worker()
    await h.engine.retire("w")
    await h.put("a")
    with pytest.raises(WorkerGone):
        await worker.claim()
    assert await h.ready() == ["a"]


async def test_a_reclaimed_worker_cannot_claim(h: Harness) -> None:
    worker = await h.worker()
    await h.put("a")
    assert await h.engine.reclaim("w", "killed") == ["w"]
    with pytest.raises(WorkerGone):
        await worker.claim()
    with pytest.raises(WorkerGone):
        await worker.claim_again(1)
    assert await h.ready() == ["a"]


async def test_each_claim_hands_out_a_fresh_token(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    tokens: set[int] = set()
    for _ in range(3):
        lease = await worker.take("a")
        tokens.add(lease.claim)
        await worker.settle(release(lease))
    assert tokens == {1, 2, 3}


async def test_the_tail_comes_with_the_next_lease(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(retry(await worker.take("a"), tail=b"one failure"))
    lease = await worker.take("a")
    assert lease.tail == b"one failure"
    assert lease.spec == b"spec of a"


async def test_due_ones_are_claimed_when_their_time_has_come_and_not_before(h: Harness) -> None:
    due = await h.clock.now() + SHORT
    await h.put(record("a", due=due))
    worker = await h.worker()
    assert await worker.claim() == []
    await h.clock.advance(SHORT + 50)
    await worker.take("a")


async def test_no_due_one_is_ever_early(h: Harness) -> None:
    due = await h.clock.now() + 60
    await h.put(record("a", due=due))
    worker = await h.worker()
    while not await worker.claim():
        await h.clock.advance(7)
    assert await h.clock.now() >= due


async def test_the_next_due_date_of_these_queues(h: Harness) -> None:
    now = await h.clock.now()
    await h.put(record("a", due=now + 50_000), record("b", due=now + 40_000), record("c", "other", due=now + 30_000))
    await h.worker()
    assert (await h.engine.claim("w", 1, {"q": 1})).next_due == now + 40_000
    assert (await h.engine.claim("w", 2, {"q": 1, "other": 1})).next_due == now + 30_000
    assert (await h.engine.claim("w", 3, {"third": 1})).next_due is None


async def test_two_workers_share_a_queue_without_overlap(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(20)))
    one, two = await h.worker("one"), await h.worker("two")
    taken: list[str] = []
    for _ in range(5):
        taken += ids(await one.claim(2)) + ids(await two.claim(2))
    assert sorted(taken) == sorted(f"{i}" for i in range(20))


async def test_many_in_one_claim(h: Harness) -> None:
    names = [f"{i}" for i in range(500)]
    await h.put(*names)
    worker = await h.worker()
    leases = await worker.claim(500)
    assert ids(leases) == names
    assert await worker.settle(*map(end, leases)) == [True] * 500
