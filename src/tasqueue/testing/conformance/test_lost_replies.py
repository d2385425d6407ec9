"""Lost replies: every call may be said again; it does nothing more, and answers as it would have (G14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasqueue.core.record import Lease, Schedule, Step, Tick
from tasqueue.core.status import State, Status

from .harness import SHORT, TTL, Harness, chain, end, fail, group, ids, park, record, release, retry, snooze

pytestmark = pytest.mark.asyncio


async def test_submit(h: Harness) -> None:
    steps, chained = chain("x", 3)
    members, grouped = group("y", 3)
    for _ in range(3):
        await h.put("a", record("later", due=await h.clock.now() + 60_000), *steps, *members, links=[chained, grouped])
    assert await h.ready() == ["a", "x~c0", "y~g0", "y~g1", "y~g2"]
    counts = (await h.engine.counts()).queues["q"]
    assert (counts[State.READY], counts[State.DUE], counts[State.HELD]) == (5, 1, 2)


async def test_a_claim_under_its_number(h: Harness) -> None:
    await h.put(*"abcd")
    worker = await h.worker()
    first = await worker.claim(2)
    again = await worker.claim_again(1, 2)
    assert [(lease.id, lease.claim, lease.spec) for lease in again] == [(one.id, one.claim, one.spec) for one in first]
    assert await h.ready() == ["c", "d"]
    assert await worker.settle(*map(end, again)) == [True, True]


async def test_a_claim_that_took_nothing_takes_nothing_when_repeated(h: Harness) -> None:
    worker = await h.worker()
    assert await worker.claim() == []
    await h.put("a")
    assert await worker.claim_again(1) == []
    assert ids(await worker.claim()) == ["a"]


async def test_a_repeated_claim_returns_what_is_still_held(h: Harness) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    a, b, c = await worker.claim()
    await worker.settle(end(a), release(b))
    assert ids(await worker.claim_again(1)) == ["c"]
    await worker.settle(end(c))
    assert await worker.claim_again(1) == []
    assert await h.ready() == ["b"]


async def test_a_number_before_the_last_takes_nothing(h: Harness) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    await worker.claim(1)
    await worker.claim(1)
    assert ids(await worker.claim_again(1)) == ["a"]
    assert ids(await worker.claim_again(2)) == ["b"]
    assert await h.ready() == ["c"]


@pytest.mark.parametrize("maker", [end, fail, retry, snooze, release, park])
async def test_each_step(h: Harness, maker: Callable[[Lease], Step]) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    assert await worker.settle(maker(a)) == [True]
    once = await h.row("a")
    await h.clock.advance(10)
    assert await worker.settle(maker(a)) == [True]
    assert await h.row("a") == once
    assert sorted(await h.ready()) == (["b"] if maker in (end, fail, park) else ["a", "b"])


async def test_a_step_twice_in_one_batch(h: Harness) -> None:
    members, link = group("x", 2)
    await h.put(*members, links=[link])
    worker = await h.worker()
    one, two = await worker.claim()
    assert await worker.settle(end(one), end(one)) == [True, True]
    assert (await h.link("g:x")).status is Status.PROCESSING
    assert await worker.settle(end(two)) == [True]
    assert (await h.link("g:x")).status is Status.SUCCESSFUL


async def test_a_delayed_retry_keeps_its_date(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await worker.settle(retry(lease, 10_000))
    due = (await h.row("a")).due
    await h.clock.advance(100)
    assert await worker.settle(retry(lease, 10_000)) == [True]
    assert (await h.row("a")).due == due


async def test_a_death_is_counted_once(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    for _ in range(3):
        assert await worker.settle(release(lease, died=True, reason="killed")) == [True]
    assert (await h.row("a")).deaths == 1


async def test_an_end_with_follow_ups_that_have_run_meanwhile(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    step = end(lease, result=b"saved", follow=(record("a~s0"),))
    assert await worker.settle(step) == [True]
    await h.run("a~s0")
    assert await worker.settle(step) == [True]
    assert await h.state("a~s0") is State.SUCCESSFUL
    assert await h.ready() == []


async def test_a_chain_step_whose_follower_has_run_meanwhile(h: Harness) -> None:
    steps, link = chain("x", 3)
    await h.put(*steps, links=[link])
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await worker.settle(end(lease, result=b"0"))
    await h.run("x~c1", result=b"1")
    assert await worker.settle(end(lease, result=b"0")) == [True]
    assert (await h.link("c:x")).pos == 2
    assert (await h.row("x~c2")).prev == b"1"
    assert await h.ready() == ["x~c2"]


async def test_a_member_of_a_group_counts_once(h: Harness) -> None:
    members, link = group("x", 3)
    await h.put(*members, links=[link])
    worker = await h.worker()
    a, b, c = await worker.claim()
    for _ in range(3):
        assert await worker.settle(end(a), end(b)) == [True, True]
    assert (await h.link("g:x")).status is Status.PROCESSING
    assert await h.ready("callbacks") == []
    assert await worker.settle(end(c)) == [True]
    assert (await h.link("g:x")).status is Status.SUCCESSFUL
    assert await h.ready("callbacks") == ["x~s0"]


async def test_the_last_member_of_a_group(h: Harness) -> None:
    members, link = group("x", 2)
    await h.put(*members, links=[link])
    worker = await h.worker()
    leases = await worker.claim()
    for _ in range(3):
        assert await worker.settle(*map(end, leases)) == [True, True]
    assert await h.ready("callbacks") == ["x~s0"]
    await h.run("x~s0")
    assert await worker.settle(*map(end, leases)) == [True, True]
    assert await h.ready("callbacks") == []
    assert (await h.link("g:x")).generation == 0


async def test_an_end_that_forgot_the_job_does_nothing_more(h: Harness) -> None:
    steps, link = chain("x", 3)
    await h.put(*steps, links=[link])
    worker = await h.worker()
    lease = await worker.take("x~c0")
    assert await worker.settle(end(lease, ttl=0, result=b"0")) == [True]
    await h.run("x~c1", result=b"1")
    await worker.settle(end(lease, ttl=0, result=b"0"))  # the answer depends on what the engine still knows
    assert (await h.link("c:x")).pos == 2
    assert (await h.row("x~c2")).prev == b"1"
    assert await h.get("x~c0") is None


async def test_register(h: Harness) -> None:
    await h.put("a")
    for _ in range(2):
        await h.engine.register("w", 60_000, b"info", {"t": "q"}, 1)
    assert [row.id for row in await h.engine.workers()] == ["w"]


async def test_retire(h: Harness) -> None:
    await h.put("a")
    await (await h.worker()).take("a")
    assert await h.engine.retire("w") == 1
    assert await h.engine.retire("w") == 0
    assert (await h.row("a")).deaths == 0


async def test_reclaim(h: Harness) -> None:
    await h.put("a")
    await (await h.worker()).take("a")
    assert await h.engine.reclaim("w", "killed") == ["w"]
    assert await h.engine.reclaim("w", "killed") == []
    assert (await h.row("a")).deaths == 1


async def test_promote(h: Harness) -> None:
    now = await h.clock.now()
    await h.put(record("a", due=now + SHORT), record("b", due=now + 50_000))
    await h.clock.advance(SHORT + 50)
    assert await h.engine.promote() == now + 50_000
    assert await h.engine.promote() == now + 50_000
    assert await h.ready() == ["a"]


async def test_cancel(h: Harness) -> None:
    await h.put("a", "b")
    await (await h.worker()).claim(1)
    (running, waiting) = await h.engine.cancel(["a", "b"], TTL)
    assert (running.asked, waiting.done) == (True, True)
    ended = await h.row("b")
    await h.clock.advance(10)
    (running, waiting) = await h.engine.cancel(["a", "b"], TTL)
    assert (running.asked, waiting.done, waiting.asked) == (True, False, False)
    assert await h.row("b") == ended


async def test_reopen(h: Harness) -> None:
    await h.put("a")
    await h.run("a", State.FAILED)
    ended_at = (await h.row("a")).ended_at or 0
    assert await h.engine.reopen("a", ended_at, b"one") is True
    assert await h.engine.reopen("a", ended_at, b"two") is False
    row = await h.row("a")
    assert (row.state, row.tail) == (State.READY, b"one")
    assert await h.ready() == ["a"]


async def test_delete(h: Harness) -> None:
    await h.put("a")
    await h.run("a")
    assert await h.engine.delete(["a"]) == [True]
    assert await h.engine.delete(["a"]) == [False]


async def test_pause_and_resume(h: Harness) -> None:
    await h.put("a")
    for _ in range(2):
        await h.engine.pause("q", "why", "me")
    assert [row.queue for row in await h.engine.paused()] == ["q"]
    for _ in range(2):
        await h.engine.resume("q")
    assert await h.engine.paused() == []
    assert await h.ready() == ["a"]


async def test_fire(h: Harness) -> None:
    await h.engine.put_schedule(Schedule("s", "@hourly", "t", "q", 0, b"job", anchor=0, next_at=1_000))
    tick = Tick("s", expect=1_000, at=1_000, next_at=2_000, record=record("s@1"))
    assert await h.engine.fire([tick]) == [True]
    await h.run("s@1", ttl=0)
    assert await h.engine.fire([tick]) == [False]
    assert await h.get("s@1") is None
    (entry,) = await h.engine.schedules()
    assert (entry.next_at, entry.last_at) == (2_000, 1_000)


async def test_delete_schedule(h: Harness) -> None:
    await h.engine.put_schedule(Schedule("s", "@hourly", "t", "q", 0, b"job", anchor=0, next_at=1_000))
    assert await h.engine.delete_schedule("s") is True
    assert await h.engine.delete_schedule("s") is False


async def test_prune(h: Harness) -> None:
    await h.put("a")
    await h.run("a", ttl=SHORT)
    await h.clock.advance(SHORT + 50)
    assert await h.engine.prune() == 1
    assert await h.engine.prune() == 0


async def test_cancel_link(h: Harness) -> None:
    members, link = group("x", 2)
    await h.put(*members, links=[link])
    assert await h.engine.cancel_link("g:x", None) is True
    assert await h.engine.cancel_link("g:x", None) is False
    assert await h.ready("callbacks") == ["x~e0"]
