"""Order: by priority, then FIFO; what is given back returns to its old place, all else goes behind (G13)."""

from __future__ import annotations

import pytest

from .harness import LEASE, SHORT, Harness, fail, ids, needs, park, record, release, retry, snooze

pytestmark = pytest.mark.asyncio


async def test_first_in_first_out(h: Harness) -> None:
    for name in "abc":
        await h.put(name)
    await h.put(*"def")
    worker = await h.worker()
    assert ids(await worker.claim(2)) == ["a", "b"]
    assert ids(await worker.claim(10)) == ["c", "d", "e", "f"]


async def test_higher_priorities_first(h: Harness) -> None:
    await h.put(*(record(f"{p}", priority=p) for p in (0, -100, 5, 100, -1)))
    assert await h.ready() == ["100", "5", "0", "-1", "-100"]


async def test_first_in_first_out_within_a_priority(h: Harness) -> None:
    await h.put(*(record(f"{p}{name}", priority=p) for name in "abc" for p in (0, 1)))
    assert await h.ready() == ["1a", "1b", "1c", "0a", "0b", "0c"]


async def test_a_claim_takes_the_first_across_priorities(h: Harness) -> None:
    await h.put(record("low", priority=-1), record("mid"), record("high", priority=1))
    worker = await h.worker()
    assert ids(await worker.claim(2)) == ["high", "mid"]
    assert ids(await worker.claim(2)) == ["low"]


async def test_each_queue_has_its_own_order(h: Harness) -> None:
    await h.put(record("a", "one"), record("b", "two"), record("c", "one"), record("d", "two"))
    assert await h.ready("one") == ["a", "c"]
    assert await h.ready("two") == ["b", "d"]


async def test_released_ones_return_to_their_old_places_in_whatever_order(h: Harness) -> None:
    await h.put(*"abcdef")
    worker = await h.worker()
    a, b, c, d = await worker.claim(4)
    await worker.settle(release(c))
    await worker.settle(release(a))
    assert await h.ready() == ["a", "c", "e", "f"]
    await worker.settle(release(d), release(b))
    assert await h.ready() == ["a", "b", "c", "d", "e", "f"]


async def test_a_released_one_keeps_its_place_within_its_priority(h: Harness) -> None:
    await h.put(record("a", priority=1), record("b", priority=1), record("c"))
    worker = await h.worker()
    a, b = await worker.claim(2)
    await h.put(record("d", priority=1), record("e", priority=2))
    await worker.settle(release(b), release(a))
    assert await h.ready() == ["e", "a", "b", "d", "c"]


async def test_reclaimed_ones_return_to_their_old_places(h: Harness) -> None:
    await h.put(*"abcd")
    dying, other = await h.worker("dying", lease=LEASE), await h.worker("other")
    await dying.claim(1)
    (b,) = await other.claim(1)
    await dying.claim(1)
    await h.engine.reclaim()
    await h.clock.advance(LEASE + 50)
    assert await h.engine.reclaim() == ["dying"]
    await other.settle(release(b))
    assert await h.ready() == ["a", "b", "c", "d"]


@needs("instant_handback")
async def test_what_a_retired_worker_held_returns_to_its_old_place(h: Harness) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    await worker.claim(2)
    assert await (await h.another()).retire("w") == 2
    assert await h.ready() == ["a", "b", "c"]


@pytest.mark.parametrize("again", [retry, snooze])
async def test_a_retried_or_snoozed_one_goes_behind(h: Harness, again: type[object]) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    await worker.settle(again(a))  # type: ignore[arg-type]
    assert await h.ready() == ["b", "c", "a"]


async def test_a_due_one_goes_behind_those_that_were_ready_before(h: Harness) -> None:
    await h.put(record("due", due=await h.clock.now() + SHORT), "a")
    await h.clock.advance(SHORT // 2)
    await h.put("b")
    await h.clock.advance(SHORT)
    await h.engine.promote()
    await h.put("c")
    assert await h.ready() == ["a", "b", "due", "c"]


async def test_due_ones_become_ready_in_the_order_of_their_dates(h: Harness) -> None:
    now = await h.clock.now()
    await h.put(*(record(f"{i}", due=now + SHORT - i * 20) for i in range(5)))
    await h.clock.advance(SHORT + 50)
    assert await h.ready() == ["4", "3", "2", "1", "0"]


async def test_ones_due_at_the_same_time_become_ready_in_the_order_of_submission(h: Harness) -> None:
    due = await h.clock.now() + SHORT
    await h.put(*(record(f"{i}", due=due) for i in range(5)))
    await h.clock.advance(SHORT + 50)
    assert await h.ready() == ["0", "1", "2", "3", "4"]


async def test_a_due_one_is_still_served_by_priority(h: Harness) -> None:
    await h.put("a", record("high", due=await h.clock.now() + SHORT, priority=1))
    await h.clock.advance(SHORT + 50)
    assert await h.ready() == ["high", "a"]


async def test_an_unparked_one_returns_to_its_old_place(h: Harness) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    await worker.settle(park(a, "task:t"))
    assert await h.ready() == ["b", "c"]
    await h.worker("knows", tasks={"t": "q"})
    assert await h.ready() == ["a", "b", "c"]


async def test_a_reopened_one_goes_behind(h: Harness) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    await worker.settle(fail(a))
    assert await h.reopen("a")
    assert await h.ready() == ["b", "c", "a"]


async def test_cancelled_ones_leave_no_gap(h: Harness) -> None:
    await h.put(*"abcde")
    worker = await h.worker()
    a, b = await worker.claim(2)
    await worker.settle(release(b), release(a))
    await h.engine.cancel(["a", "d"], None)
    assert await h.ready() == ["b", "c", "e"]


async def test_a_cancelled_and_reopened_one_is_there_once(h: Harness) -> None:
    await h.put(*"abc")
    await h.engine.cancel(["a"], None)
    await h.reopen("a")
    await h.engine.cancel(["a"], None)
    await h.reopen("a")
    assert await h.ready() == ["b", "c", "a"]


async def test_a_long_mixed_history_keeps_the_order(h: Harness) -> None:
    names = [f"{i:03}" for i in range(60)]
    await h.put(*names)
    worker = await h.worker()
    for size in (7, 13, 2, 29):
        leases = await worker.claim(size)
        assert ids(leases) == names[:size]
        await worker.settle(*(release(lease) for lease in reversed(leases)))
    await h.engine.cancel(names[::3], None)
    assert await h.ready() == [name for i, name in enumerate(names) if i % 3]
