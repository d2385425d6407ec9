"""Cancel: what waits ends when the call returns; what runs is asked, and what it does first stands."""

from __future__ import annotations

from typing import Any

import pytest

from tasqueue.core.status import State

from .harness import SHORT, TTL, Harness, end, fail, ids, park, record, release, retry, snooze

pytestmark = pytest.mark.asyncio


async def cancel(h: Harness, *names: str, ttl: int | None = None) -> list[str]:
    answers = await h.engine.cancel(names, ttl)
    return ["done" if answer.done else "asked" if answer.asked else "neither" for answer in answers]


async def test_a_ready_one(h: Harness) -> None:
    await h.put("a", "b")
    before = await h.clock.now()
    assert await cancel(h, "a") == ["done"]
    row = await h.row("a")
    assert (row.state, row.result, row.tail) == (State.CANCELLED, None, b"")
    assert row.ended_at is not None
    assert before <= row.ended_at <= await h.clock.now()
    assert await h.ready() == ["b"]
    assert await h.engine.ended(State.CANCELLED, 10, None) == ["a"]


async def test_a_due_one(h: Harness) -> None:
    await h.put(record("a", due=await h.clock.now() + SHORT))
    assert await cancel(h, "a") == ["done"]
    await h.clock.advance(SHORT + 50)
    await h.engine.promote()
    assert await h.state("a") is State.CANCELLED
    assert await h.ready() == []


@pytest.mark.parametrize("maker", [retry, snooze])
async def test_one_that_waits_for_another_run(h: Harness, maker: Any) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(maker(await worker.take("a"), 60_000, tail=b"what was left"))
    assert await cancel(h, "a") == ["done"]
    row = await h.row("a")
    assert (row.state, row.tail) == (State.CANCELLED, b"what was left")


async def test_a_parked_one(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "task:t"))
    assert await cancel(h, "a") == ["done"]
    await h.worker("knows", tasks={"t": "q"})
    assert await h.state("a") is State.CANCELLED
    assert await h.ready() == []


async def test_a_released_one(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(release(await worker.take("a")))
    assert await cancel(h, "a") == ["done"]
    assert await h.ready() == []


async def test_unknown_and_ended_ones(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a")
    await h.run("b", State.FAILED)
    assert await cancel(h, "a", "never", "b") == ["neither", "neither", "neither"]
    assert await h.states("a", "b") == [State.SUCCESSFUL, State.FAILED]


async def test_several_at_once_answered_in_order(h: Harness) -> None:
    await h.put("a", "b", "c")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    assert await cancel(h, "c", "never", "a", "b", "c") == ["done", "neither", "asked", "done", "neither"]
    assert await worker.settle(end(a)) == [True]
    assert await cancel(h) == []


async def test_the_holder_of_a_running_one_is_told_with_each_beat(h: Harness) -> None:
    await h.put("a", "b")
    worker, other = await h.worker(), await h.worker("other")
    (a,) = await worker.claim(1)
    await other.claim(1)
    assert await cancel(h, "a") == ["asked"]
    for _ in range(2):
        assert list((await worker.beat()).cancels) == ["a"]
    assert list((await other.beat()).cancels) == []
    assert await worker.settle(end(a, State.CANCELLED)) == [True]
    assert list((await worker.beat()).cancels) == []
    assert await h.state("a") is State.CANCELLED


@pytest.mark.parametrize("maker", [end, fail])
async def test_an_end_that_came_first_stands(h: Harness, maker: Any) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await cancel(h, "a")
    step = maker(lease)
    assert await worker.settle(step) == [True]
    assert await h.state("a") is step.state
    assert list((await worker.beat()).cancels) == []


@pytest.mark.parametrize("maker", [retry, snooze])
async def test_a_request_is_forgotten_when_the_job_goes_back_by_itself(h: Harness, maker: Any) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await cancel(h, "a")
    await worker.settle(maker(lease))
    await worker.take("a")
    assert list((await worker.beat()).cancels) == []


async def test_a_request_outlives_a_release(h: Harness) -> None:
    await h.put("a")
    one, two = await h.worker("one"), await h.worker("two")
    lease = await one.take("a")
    await cancel(h, "a")
    await one.settle(release(lease))
    assert list((await one.beat()).cancels) == []
    await two.take("a")
    assert list((await two.beat()).cancels) == ["a"]


async def test_a_request_outlives_the_death_of_the_holder(h: Harness) -> None:
    await h.put("a")
    await (await h.worker("dies")).take("a")
    await cancel(h, "a")
    await h.engine.reclaim("dies", "killed")
    next_one = await h.worker("next")
    await next_one.take("a")
    assert list((await next_one.beat()).cancels) == ["a"]


@pytest.mark.parametrize("way", ["release", "retire", "reclaim"])
async def test_the_claim_after_a_request_says_so(h: Harness, way: str) -> None:
    """Its holder was not told, or could not act: whoever claims it next need not run it."""
    await h.put("a", "b")
    first, second = await h.worker("first"), await h.worker("second")
    leases = await first.claim()
    assert [lease.asked for lease in leases] == [False, False]
    assert await cancel(h, "a") == ["asked"]
    if way == "release":
        assert await first.settle(*map(release, leases)) == [True, True]
    elif way == "retire":
        assert await h.engine.retire("first") == 2
    else:
        assert await h.engine.reclaim("first", "killed") == ["first"]
    found = await second.claim()
    assert {lease.id: lease.asked for lease in found} == {"a": True, "b": False}
    again = await second.claim_again(second.number)
    assert {lease.id: lease.asked for lease in again} == {"a": True, "b": False}
    assert await second.settle(*(end(lease, State.CANCELLED) if lease.asked else end(lease) for lease in found))
    assert await h.states("a", "b") == [State.CANCELLED, State.SUCCESSFUL]


async def test_a_claim_says_nothing_of_a_request_that_is_forgotten(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    a, b = await worker.claim()
    assert await cancel(h, "a", "b") == ["asked", "asked"]
    await worker.settle(retry(a))
    assert (await worker.take("a")).asked is False
    await worker.settle(fail(b))
    await h.reopen("b")
    assert (await worker.take("b")).asked is False


async def test_a_request_does_not_outlive_the_job(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await cancel(h, "a")
    await worker.settle(end(lease, State.CANCELLED))
    await h.reopen("a")
    await worker.take("a")
    assert list((await worker.beat()).cancels) == []


async def test_a_request_does_not_reach_a_later_job_of_the_same_id(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await cancel(h, "a")
    await worker.settle(end(lease, ttl=0))
    await h.put("a")
    await worker.take("a")
    assert list((await worker.beat()).cancels) == []


async def test_its_retention_is_the_callers(h: Harness) -> None:
    await h.put("a", "b", "c")
    await cancel(h, "a", ttl=0)
    await cancel(h, "b", ttl=TTL)
    await cancel(h, "c", ttl=None)
    assert await h.states("a", "b", "c") == [None, State.CANCELLED, State.CANCELLED]
    await h.clock.advance(TTL + 50)
    await h.engine.prune()
    assert await h.states("a", "b", "c") == [None, None, State.CANCELLED]


async def test_a_cancelled_one_may_be_reopened(h: Harness) -> None:
    await h.put("a", "b")
    await cancel(h, "a")
    assert await h.reopen("a", b"put back") is True
    row = await h.row("a")
    assert (row.state, row.tail, row.ended_at) == (State.READY, b"put back", None)
    assert await h.engine.ended(State.CANCELLED, 10, None) == []
    assert ids(await (await h.worker()).claim()) == ["b", "a"]


async def test_reopening_what_has_no_such_end(h: Harness) -> None:
    await h.put("a", "b", "c")
    await h.run("a")
    await h.run("b", State.FAILED)
    ended_at = (await h.row("b")).ended_at or 0
    assert await h.reopen("a") is False
    assert await h.engine.reopen("b", ended_at - 1, b"") is False
    assert await h.engine.reopen("c", 0, b"") is False
    assert await h.engine.reopen("never", ended_at, b"") is False
    assert await h.states("a", "b", "c") == [State.SUCCESSFUL, State.FAILED, State.READY]
    assert await h.engine.reopen("b", ended_at, b"") is True
