"""Due dates: an ETA, a backoff, a snooze. Never early, moved in batches, and always known when to come again (G12)."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State

from .harness import SHORT, Harness, ids, record, retry

pytestmark = pytest.mark.asyncio


async def test_promote_makes_ready_what_is_due(h: Harness) -> None:
    now = await h.clock.now()
    await h.put(record("a", due=now + SHORT), record("b", "other", due=now + SHORT), record("c", due=now + 60_000))
    await h.clock.advance(SHORT + 50)
    await h.engine.promote()
    assert await h.states("a", "b", "c") == [State.READY, State.READY, State.DUE]


async def test_promote_says_when_to_come_again(h: Harness) -> None:
    assert await h.engine.promote() is None
    now = await h.clock.now()
    await h.put(record("a", due=now + 50_000), record("b", "other", due=now + 40_000), "c")
    assert await h.engine.promote() == now + 40_000
    assert await h.states("a", "b") == [State.DUE, State.DUE]


async def test_promote_is_never_early(h: Harness) -> None:
    due = await h.clock.now() + 60
    await h.put(record("a", due=due))
    while await h.state("a") is State.DUE:
        await h.engine.promote()
        if await h.state("a") is State.READY:
            break
        await h.clock.advance(7)
    assert await h.clock.now() >= due


async def test_promote_moves_a_thousand_at_a_time(h: Harness) -> None:
    due = await h.clock.now() + SHORT
    names = [f"{i:04}" for i in range(1_500)]
    await h.put(*(record(name, due=due) for name in names))
    await h.clock.advance(SHORT + 50)
    again = await h.engine.promote()
    assert again is not None
    assert again <= await h.clock.now()
    assert (await h.engine.counts()).queues["q"][State.DUE] == 500
    assert await h.engine.promote() is None
    worker = await h.worker()
    assert ids(await worker.claim(2_000)) == names


async def test_a_cancelled_one_is_not_waited_for(h: Harness) -> None:
    now = await h.clock.now()
    await h.put(record("a", due=now + 10_000), record("b", due=now + 20_000))
    await h.engine.cancel(["a"], None)
    assert await h.engine.promote() == now + 20_000
    await h.engine.cancel(["b"], None)
    assert await h.engine.promote() is None


async def test_the_date_of_a_retry_counts_from_its_settle(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    before = await h.clock.now()
    await worker.settle(retry(lease, 10_000))
    row = await h.row("a")
    assert row.state is State.DUE
    assert row.due is not None
    assert before + 10_000 <= row.due <= await h.clock.now() + 10_000
    assert await h.engine.promote() == row.due


async def test_a_due_job_of_a_paused_queue_is_not_run(h: Harness) -> None:
    await h.put(record("a", due=await h.clock.now() + SHORT))
    await h.engine.pause("q", "", "")
    await h.clock.advance(SHORT + 50)
    await h.engine.promote()
    assert await h.ready() == []
    await h.engine.resume("q")
    assert await h.ready() == ["a"]


async def test_far_in_the_future_and_far_in_the_past(h: Harness) -> None:
    await h.put(record("future", due=253_402_300_799_000), record("past", due=0))
    assert await h.ready() == ["past"]
    assert (await h.row("future")).due == 253_402_300_799_000
    assert await h.engine.promote() == 253_402_300_799_000
