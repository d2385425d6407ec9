"""The lease: it belongs to the incarnation, and a beat renews it for all that it holds."""

from __future__ import annotations

import asyncio

import pytest

from .harness import LEASE, LONG, Harness, end, ids, needs

pytestmark = pytest.mark.asyncio


async def test_a_registered_worker_is_listed(h: Harness) -> None:
    now = await h.clock.now()
    await h.engine.register("w", 5_000, b"\x00info\xff", {}, 1)
    (row,) = await h.engine.workers()
    assert (row.id, row.info, row.held) == ("w", b"\x00info\xff", 0)
    assert now + 5_000 <= row.deadline <= await h.clock.now() + 5_000


async def test_how_many_it_holds_is_counted(h: Harness) -> None:
    await h.put("a", "b", "c")
    worker = await h.worker()
    leases = await worker.claim(2)
    assert [row.held for row in await h.engine.workers()] == [2]
    await worker.settle(end(leases[0]))
    assert [row.held for row in await h.engine.workers()] == [1]


async def test_a_beat_moves_the_deadline_and_replaces_the_info(h: Harness) -> None:
    worker = await h.worker(lease=1_000)
    await h.clock.advance(500)
    now = await h.clock.now()
    beat = await worker.beat(2_000, b"new")
    assert (beat.lost, list(beat.cancels), list(beat.paused), beat.drain) == (False, [], [], False)
    (row,) = await h.engine.workers()
    assert row.info == b"new"
    assert now + 2_000 <= row.deadline <= await h.clock.now() + 2_000


async def test_a_beat_without_info_keeps_what_is_stored(h: Harness) -> None:
    worker = await h.worker(lease=1_000)
    await worker.beat(2_000, b"told")
    await worker.beat(LONG, b"")
    (row,) = await h.engine.workers()
    assert row.info == b"told"
    assert row.deadline > await h.clock.now() + 2_000


async def test_a_beat_that_says_nothing_keeps_the_info(h: Harness) -> None:
    worker = await h.worker()
    await worker.beat(info=b"said")
    await worker.beat(info=b"")
    assert [row.info for row in await h.engine.workers()] == [b"said"]


async def test_one_beat_keeps_everything_it_holds(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(100)))
    worker = await h.worker(lease=LEASE)
    await worker.claim(100)
    await h.engine.reclaim()
    for _ in range(3):
        await h.clock.advance(LEASE // 2)
        await worker.beat(LEASE)
        assert await h.engine.reclaim() == []
    assert [row.held for row in await h.engine.workers()] == [100]


async def test_claiming_and_settling_do_not_renew_the_lease(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker(lease=LEASE)
    await h.engine.reclaim()
    await h.clock.advance(LEASE - 150)
    (a,) = await worker.claim(1)
    assert await worker.settle(end(a)) == [True]
    await worker.claim(1)
    await h.clock.advance(200)
    assert await h.engine.reclaim() == ["w"]
    assert await h.ready() == ["b"]


async def test_a_beat_of_a_stranger(h: Harness) -> None:
    assert (await h.engine.beat("stranger", LONG, b"")).lost
    assert await h.engine.workers() == []


async def test_registering_again_keeps_the_incarnation(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker(tasks={"one": "q"})
    (a,) = await worker.claim(1)
    await h.engine.register("w", 2 * LONG, b"more", {"one": "q", "two": "p"}, 1)
    (row,) = await h.engine.workers()
    assert (row.info, row.held) == (b"more", 1)
    assert row.deadline > await h.clock.now() + LONG
    assert await h.engine.tasks() == {"one": "q", "two": "p"}
    assert ids(await worker.claim_again(1)) == ["a"]
    assert await worker.settle(end(a)) == [True]


async def test_a_retired_worker_is_not_listed_and_counts_no_death(h: Harness) -> None:
    await h.put("a")
    await (await h.worker()).take("a")
    assert await h.engine.retire("w") == 1
    assert await h.engine.workers() == []
    assert (await h.row("a")).deaths == 0


async def test_retiring_a_stranger(h: Harness) -> None:
    assert await h.engine.retire("stranger") == 0


async def test_a_request_to_drain_comes_with_the_beats(h: Harness) -> None:
    one, two = await h.worker("one"), await h.worker("two")
    assert await h.engine.drain("one") is True
    assert await h.engine.drain("stranger") is False
    assert [(await worker.beat()).drain for worker in (one, two, one)] == [True, False, True]


@needs("thread_beat")
async def test_a_twin_beats_from_another_thread_while_the_loop_is_blocked(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker(lease=LEASE)
    lease = await worker.take("a")
    twin = h.engine.twin()

    async def keep() -> None:
        await twin.open()
        try:
            beat = await twin.beat("w", LEASE, b"from the thread", [("a", lease.claim, b"progress")])
            assert not beat.lost
        finally:
            await twin.close()

    await h.engine.reclaim()
    await h.clock.advance(LEASE - 100)
    await asyncio.to_thread(asyncio.run, keep())
    await h.clock.advance(200)
    assert await h.engine.reclaim() == []
    assert [row.info for row in await h.engine.workers()] == [b"from the thread"]
    assert (await h.row("a")).progress == b"progress"
    assert await worker.settle(end(lease)) == [True]


@needs("thread_beat")
async def test_a_twin_may_be_opened_and_closed_again(h: Harness) -> None:
    await h.put("a")
    twin = h.engine.twin()
    for _ in range(2):
        await twin.open()
        assert ids([row for row in await twin.get(["a"]) if row]) == ["a"]
        await twin.close()
    await twin.close()
    assert await h.ready() == ["a"]
