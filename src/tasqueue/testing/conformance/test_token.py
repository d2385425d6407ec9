"""The fencing token: whoever has lost a job can change nothing about it (G4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasqueue.core.record import Lease, Step
from tasqueue.core.status import State
from tasqueue.interfaces import WorkerGone

from .harness import LEASE, Harness, chain, end, fail, group, needs, park, record, release, retry, snooze

pytestmark = pytest.mark.asyncio

Maker = Callable[[Lease], Step]
every_kind = pytest.mark.parametrize("maker", [end, fail, retry, snooze, release, park])


@every_kind
async def test_another_claim_number_is_refused_and_changes_nothing(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    before = await h.row("a")
    stale = maker(lease)
    stale.claim = lease.claim + 1
    assert await worker.settle(stale) == [False]
    assert await h.row("a") == before
    assert await worker.settle(end(lease)) == [True]


@every_kind
async def test_another_workers_token_is_refused_and_changes_nothing(h: Harness, maker: Maker) -> None:
    await h.put("a")
    owner, other = await h.worker("owner"), await h.worker("other")
    lease = await owner.take("a")
    before = await h.row("a")
    assert await other.settle(maker(lease)) == [False]
    assert await h.row("a") == before
    assert await owner.settle(end(lease)) == [True]


@every_kind
async def test_after_a_reclaim_the_old_owner_is_refused(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await h.engine.reclaim("w", "killed")
    before = await h.row("a")
    assert await worker.settle(maker(lease)) == [False]
    assert await h.row("a") == before
    assert await h.ready() == ["a"]


@every_kind
async def test_the_new_owners_result_stands(h: Harness, maker: Maker) -> None:
    await h.put("a")
    old = await h.worker("old", lease=LEASE)
    stale = await old.take("a")
    await h.engine.reclaim()
    await h.clock.advance(LEASE + 50)
    await h.engine.reclaim()
    new = await h.worker("new")
    lease = await new.take("a")
    assert await old.settle(maker(stale)) == [False]
    assert await new.settle(end(lease, result=b"new")) == [True]
    ended = await h.row("a")
    assert await old.settle(maker(stale)) == [False]
    assert await h.row("a") == ended
    assert (ended.state, ended.result) == (State.SUCCESSFUL, b"new")


@every_kind
async def test_a_token_of_the_claim_before_is_refused(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    first = await worker.take("a")
    await worker.settle(release(first))
    second = await worker.take("a")
    assert await worker.settle(maker(first)) == [False]
    assert await worker.settle(end(second)) == [True]


@every_kind
async def test_after_retiring_nothing_is_accepted(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await h.engine.retire("w")
    before = await h.row("a")
    assert await worker.settle(maker(lease)) == [False]
    assert await h.row("a") == before


@pytest.mark.parametrize("maker", [retry, snooze, release, park])
async def test_an_end_after_the_job_went_back_is_refused(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    assert await worker.settle(maker(lease)) == [True]
    before = await h.row("a")
    assert await worker.settle(end(lease, result=b"late")) == [False]
    assert await h.row("a") == before


@pytest.mark.parametrize("maker", [fail, retry, snooze, release, park])
async def test_nothing_else_is_accepted_after_an_end(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    assert await worker.settle(end(lease, result=b"first")) == [True]
    before = await h.row("a")
    assert await worker.settle(maker(lease)) == [False]
    assert await h.row("a") == before


async def test_after_a_reopening_the_old_token_is_refused(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await worker.settle(fail(lease))
    await h.reopen("a")
    assert await worker.settle(fail(lease)) == [False]
    assert await worker.settle(end(lease)) == [False]
    assert await h.state("a") is State.READY


async def test_after_a_deletion_the_old_token_is_refused(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await worker.settle(end(lease))
    await h.engine.delete(["a"])
    await h.put("a")
    assert await worker.settle(fail(lease)) == [False]
    assert await h.state("a") is State.READY


async def test_a_stale_end_does_not_move_a_chain(h: Harness) -> None:
    steps, link = chain("x", 2)
    await h.put(*steps, links=[link])
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await h.engine.reclaim("w", "killed")
    assert await worker.settle(end(lease, result=b"stale")) == [False]
    assert (await h.link("c:x")).pos == 0
    row = await h.row("x~c1")
    assert (row.state, row.prev) == (State.HELD, None)


async def test_a_stale_end_does_not_count_in_a_group(h: Harness) -> None:
    members, link = group("x", 1)
    await h.put(*members, links=[link])
    worker = await h.worker()
    lease = await worker.take("x~g0")
    await h.engine.reclaim("w", "killed")
    assert await worker.settle(end(lease)) == [False]
    assert (await h.link("g:x")).members == {}
    assert await h.ready("callbacks") == []


async def test_progress_under_an_old_token_is_dropped(h: Harness) -> None:
    await h.put("a")
    old, new = await h.worker("old"), await h.worker("new")
    stale = await old.take("a")
    await old.settle(release(stale))
    lease = await new.take("a")
    await new.beat(progress=[("a", lease.claim, b"new")])
    await old.beat(progress=[("a", stale.claim, b"old")])
    await new.beat(progress=[("a", lease.claim + 1, b"wrong number")])
    assert (await h.row("a")).progress == b"new"


async def test_progress_of_the_holder_is_shown(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    assert (await h.row("a")).progress is None
    await worker.beat(progress=[("a", lease.claim, b"\x00half\xff")])
    assert (await h.row("a")).progress == b"\x00half\xff"


async def test_a_reclaimed_worker_learns_it_from_its_beat_and_stays_gone(h: Harness) -> None:
    worker = await h.worker()
    assert not (await worker.beat()).lost
    await h.engine.reclaim("w", "killed")
    assert (await worker.beat()).lost
    await h.put("a")
    with pytest.raises(WorkerGone):
        await worker.claim()
    assert await h.engine.workers() == []


@needs("server_fencing")
async def test_of_two_owners_in_one_batch_of_steps_only_the_holder_counts(h: Harness) -> None:
    await h.put("a", "b")
    old = await h.worker("old")
    stale = {lease.id: lease for lease in await old.claim()}
    await old.settle(release(stale["a"]))
    new = await h.worker("new")
    lease = await new.take("a")
    follow = (record("stale"),)
    assert await old.settle(end(stale["a"], follow=follow), end(stale["b"])) == [False, True]
    assert await new.settle(end(lease, result=b"new")) == [True]
    assert await h.get("stale") is None
