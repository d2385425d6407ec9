"""Settle: the one step in which a run ends (G3)."""

from __future__ import annotations

import pytest

from tasqueue.core.record import Kind
from tasqueue.core.status import State

from .harness import SHORT, TTL, Harness, end, fail, ids, needs, record, release, retry, step

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED, State.CANCELLED])
async def test_an_end_stores_state_tail_and_result(h: Harness, state: State) -> None:
    await h.put("a")
    worker = await h.worker()
    before = await h.clock.now()
    assert await worker.settle(end(await worker.take("a"), state, b"saved", tail=b"tail")) == [True]
    row = await h.row("a")
    assert (row.state, row.tail, row.result, row.spec) == (state, b"tail", b"saved", b"spec of a")
    assert row.ended_at is not None
    assert before <= row.ended_at <= await h.clock.now()


async def test_an_end_leaves_nothing_to_claim(h: Harness) -> None:
    await h.put("a")
    await h.run("a")
    assert await h.ready() == []
    assert await h.engine.retire("w") == 0


async def test_a_tail_of_none_keeps_what_is_stored(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(retry(await worker.take("a"), tail=b"kept"))
    await worker.settle(end(await worker.take("a"), tail=None))
    assert (await h.row("a")).tail == b"kept"


async def test_nothing_saved_is_not_the_same_as_nothing_in_it(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    a, b = await worker.claim()
    await worker.settle(end(a, result=None), end(b, result=b""))
    assert ((await h.row("a")).result, (await h.row("b")).result) == (None, b"")


async def test_the_answers_come_in_the_order_of_the_steps(h: Harness) -> None:
    await h.put(*"abcd")
    worker, thief = await h.worker(), await h.worker("thief")
    a, b, c = await worker.claim(3)
    (d,) = await thief.claim()
    assert await worker.settle(end(c), end(d), end(a), retry(d), release(b)) == [True, False, True, False, True]
    assert await h.states("a", "b", "c") == [State.SUCCESSFUL, State.READY, State.SUCCESSFUL]
    assert await thief.settle(end(d)) == [True]


async def test_settling_nothing(h: Harness) -> None:
    assert await (await h.worker()).settle() == []


async def test_an_unknown_id_is_refused(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    lease.id, lease.ref = "never", None
    assert await worker.settle(end(lease)) == [False]
    assert await h.get("never") is None


async def test_follow_ups_come_with_the_end(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    follow = (record("a~s0", prev=b"saved"), record("a~s1", "other", priority=3))
    assert await worker.settle(end(await worker.take("a"), follow=follow)) == [True]
    assert await h.ready() == ["a~s0"]
    assert await h.ready("other") == ["a~s1"]
    assert (await h.row("a~s0")).prev == b"saved"


async def test_a_follow_up_may_be_due_later(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    due = await h.clock.now() + SHORT
    await worker.settle(end(await worker.take("a"), follow=(record("a~s0", due=due),)))
    assert await h.ready() == []
    await h.clock.advance(SHORT + 50)
    assert await h.ready() == ["a~s0"]


async def test_a_follow_up_that_exists_is_left_as_it_is(h: Harness) -> None:
    await h.put("a", record("a~s0", spec=b"first"))
    worker = await h.worker()
    leases = {lease.id: lease for lease in await worker.claim()}
    follow = (record("a~s0", spec=b"second"), record("a~s1"))
    assert await worker.settle(end(leases["a~s0"]), end(leases["a"], follow=follow)) == [True, True]
    assert await h.state("a~s0") is State.SUCCESSFUL
    assert await h.ready() == ["a~s1"]


@needs("atomic_finish")
async def test_a_lost_lease_stores_no_follow_ups(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await h.engine.reclaim("w", "killed")
    assert await worker.settle(end(lease, follow=(record("a~s0"),))) == [False]
    assert await h.get("a~s0") is None


async def test_a_ttl_of_nought_forgets_at_once(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    assert await worker.settle(end(await worker.take("a"), ttl=0, follow=(record("a~s0"),))) == [True]
    assert await h.get("a") is None
    assert await h.engine.ended(State.SUCCESSFUL, 10, None) == []
    assert await h.ready() == ["a~s0"]


async def test_after_a_ttl_of_nought_the_id_is_new(h: Harness) -> None:
    await h.put("a")
    await h.run("a", ttl=0)
    await h.put(record("a", spec=b"again"))
    lease = await (await h.worker()).take("a")
    assert (lease.spec, lease.tail, lease.deaths) == (b"again", b"", 0)


async def test_many_steps_of_every_kind_at_once(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(300)))
    worker = await h.worker()
    leases = await worker.claim(300)
    makers = [end, fail, retry, release]
    assert await worker.settle(*(makers[i % 4](lease) for i, lease in enumerate(leases))) == [True] * 300
    counts = await h.engine.counts()
    assert counts.queues["q"][State.READY] == 150
    assert (counts.ended[State.SUCCESSFUL], counts.ended[State.FAILED]) == (75, 75)
    assert await h.ready() == [f"{i}" for i in range(300) if i % 4 == 3] + [f"{i}" for i in range(300) if i % 4 == 2]


async def test_a_step_may_come_without_the_engines_own_handle(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    lease.ref = None
    assert await worker.settle(step(lease, Kind.END, State.SUCCESSFUL, tail=b"t", ttl=TTL)) == [True]
    assert await h.state("a") is State.SUCCESSFUL
    assert ids([row for row in await h.engine.get(["a"]) if row]) == ["a"]
