"""Chains: one step after another, each finding what the one before saved; the finish of each moves the whole."""

from __future__ import annotations

import pytest

from tasqueue.core.record import Link
from tasqueue.core.status import State, Status

from .harness import SHORT, TTL, Harness, chain, end, fail, record

pytestmark = pytest.mark.asyncio


async def put_chain(h: Harness, n: int = 3, result_ttl: int | None = None, failed_ttl: int | None = None) -> None:
    steps, link = chain("x", n, result_ttl=result_ttl, failed_ttl=failed_ttl)
    await h.put(*steps, links=[link])


async def where(h: Harness) -> tuple[Status, int]:
    link = await h.link("c:x")
    return link.status, link.pos


async def test_a_new_chain(h: Harness) -> None:
    await put_chain(h)
    link = await h.link("c:x")
    assert (link.key, link.n, link.status, link.pos, link.generation) == ("c:x", 3, Status.PROCESSING, 0, 0)
    row = await h.row("x~c1")
    assert (row.state, row.link, row.pos, row.prev) == (State.HELD, "c:x", 1, None)


async def test_a_step_that_succeeds_readies_the_next_one_with_its_result(h: Harness) -> None:
    await put_chain(h)
    await h.run("x~c0", result=b"zero")
    assert await where(h) == (Status.PROCESSING, 1)
    assert await h.ready() == ["x~c1"]
    assert (await (await h.worker()).take("x~c1")).prev == b"zero"


async def test_a_step_that_saves_nothing_goes_on_all_the_same(h: Harness) -> None:
    await put_chain(h)
    await h.run("x~c0", result=None)
    assert (await (await h.worker()).take("x~c1")).prev is None


async def test_to_the_end(h: Harness) -> None:
    await put_chain(h)
    for i in range(3):
        assert await h.ready() == [f"x~c{i}"]
        await h.run(f"x~c{i}", result=f"{i}".encode())
    assert await where(h) == (Status.SUCCESSFUL, 3)
    assert await h.ready() == []
    assert (await h.row("x~c2")).prev == b"1"


@pytest.mark.parametrize(("state", "status"), [(State.FAILED, Status.FAILED), (State.CANCELLED, Status.CANCELLED)])
async def test_any_other_end_of_a_step_ends_it(h: Harness, state: State, status: Status) -> None:
    await put_chain(h)
    await h.run("x~c0")
    await h.run("x~c1", state)
    assert await where(h) == (status, 1)
    assert await h.state("x~c2") is State.HELD
    assert await h.ready() == []


async def test_a_failing_last_step(h: Harness) -> None:
    await put_chain(h, 2)
    await h.run("x~c0")
    await h.run("x~c1", State.FAILED)
    assert await where(h) == (Status.FAILED, 1)


async def test_a_reopened_step_goes_on_from_there(h: Harness) -> None:
    await put_chain(h)
    await h.run("x~c0", result=b"zero")
    await h.run("x~c1", State.FAILED)
    assert await h.reopen("x~c1") is True
    assert await where(h) == (Status.PROCESSING, 1)
    lease = await (await h.worker("looks")).take("x~c1")
    assert lease.prev == b"zero"
    await h.engine.retire("looks")
    await h.run("x~c1", result=b"one")
    await h.run("x~c2")
    assert await where(h) == (Status.SUCCESSFUL, 3)


async def test_the_next_step_may_be_due_later(h: Harness) -> None:
    due = await h.clock.now() + SHORT
    key = "c:x"
    steps = [record("x~c0", link=key, pos=0), record("x~c1", link=key, pos=1, held=True, due=due)]
    await h.put(*steps, links=[Link(key, 2)])
    await h.run("x~c0")
    assert await h.state("x~c1") is State.DUE
    assert await h.ready() == []
    await h.clock.advance(SHORT + 50)
    assert await h.ready() == ["x~c1"]


async def test_a_first_step_may_be_due_later(h: Harness) -> None:
    due = await h.clock.now() + SHORT
    steps, link = chain("x", 2)
    steps[0].due = due
    await h.put(*steps, links=[link])
    assert await h.states("x~c0", "x~c1") == [State.DUE, State.HELD]
    await h.clock.advance(SHORT + 50)
    assert await h.ready() == ["x~c0"]


async def test_its_steps_may_be_in_different_queues(h: Harness) -> None:
    steps, link = chain("x", 2)
    steps[1].queue = "other"
    await h.put(*steps, links=[link])
    await h.run("x~c0")
    assert await h.ready() == []
    assert await h.ready("other") == ["x~c1"]


async def test_cancelling_a_waiting_current_step_ends_it(h: Harness) -> None:
    await put_chain(h)
    (answer,) = await h.engine.cancel(["x~c0"], None)
    assert answer.done
    assert await where(h) == (Status.CANCELLED, 0)
    assert await h.ready() == []


async def test_cancelling_a_later_step_ends_it_at_once(h: Harness) -> None:
    await put_chain(h)
    (answer,) = await h.engine.cancel(["x~c2"], None)
    assert answer.done
    assert await h.states("x~c0", "x~c1", "x~c2") == [State.READY, State.HELD, State.CANCELLED]
    assert await where(h) == (Status.CANCELLED, 0)


async def test_a_success_after_its_end_moves_the_position_and_readies_nothing(h: Harness) -> None:
    await put_chain(h)
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await h.engine.cancel(["x~c2"], None)
    assert await worker.settle(end(lease, result=b"zero")) == [True]
    assert await where(h) == (Status.CANCELLED, 1)
    row = await h.row("x~c1")
    assert (row.state, row.prev) == (State.HELD, b"zero")
    assert await h.ready() == []


async def test_reopening_a_later_step_puts_it_back_and_goes_on_from_where_it_is(h: Harness) -> None:
    await put_chain(h)
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await h.engine.cancel(["x~c2"], None)
    await worker.settle(end(lease, result=b"zero"))
    assert await h.reopen("x~c2") is True
    assert await where(h) == (Status.PROCESSING, 1)
    assert await h.states("x~c1", "x~c2") == [State.READY, State.HELD]
    assert (await worker.take("x~c1")).prev == b"zero"
    await h.engine.retire("w")
    await h.run("x~c1")
    await h.run("x~c2")
    assert await where(h) == (Status.SUCCESSFUL, 3)


async def test_reopening_a_later_step_while_the_current_one_still_runs(h: Harness) -> None:
    await put_chain(h)
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await h.engine.cancel(["x~c1"], None)
    assert await h.reopen("x~c1") is True
    assert await where(h) == (Status.PROCESSING, 0)
    assert await h.state("x~c1") is State.HELD
    assert await h.ready() == []
    await worker.settle(end(lease, result=b"zero"))
    assert (await worker.take("x~c1")).prev == b"zero"


async def test_reopening_a_cancelled_step_that_the_chain_has_come_to(h: Harness) -> None:
    await put_chain(h)
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await h.engine.cancel(["x~c1"], None)
    await worker.settle(end(lease, result=b"zero"))
    assert await where(h) == (Status.CANCELLED, 1)
    assert await h.reopen("x~c1") is True
    assert await where(h) == (Status.PROCESSING, 1)
    assert (await worker.take("x~c1")).prev == b"zero"


async def test_the_failure_of_a_step_after_the_chains_end_changes_nothing_more(h: Harness) -> None:
    await put_chain(h)
    worker = await h.worker()
    lease = await worker.take("x~c0")
    await h.engine.cancel(["x~c2"], None)
    await worker.settle(fail(lease))
    assert await where(h) == (Status.CANCELLED, 0)


async def test_cancelling_the_whole_while_its_step_waits(h: Harness) -> None:
    await put_chain(h)
    assert await h.engine.cancel_link("c:x", TTL) is True
    assert await where(h) == (Status.CANCELLED, 0)
    assert await h.states("x~c0", "x~c1", "x~c2") == [State.CANCELLED, State.HELD, State.HELD]
    assert await h.ready() == []


async def test_cancelling_the_whole_while_its_step_runs(h: Harness) -> None:
    await put_chain(h)
    worker = await h.worker()
    lease = await worker.take("x~c0")
    assert await h.engine.cancel_link("c:x", TTL) is True
    assert await where(h) == (Status.CANCELLED, 0)
    assert list((await worker.beat()).cancels) == ["x~c0"]
    assert await worker.settle(end(lease, State.CANCELLED)) == [True]
    assert await where(h) == (Status.CANCELLED, 0)
    assert await h.ready() == []


async def test_cancelling_one_that_is_unknown_or_has_ended(h: Harness) -> None:
    assert await h.engine.cancel_link("c:never", None) is False
    await put_chain(h, 2)
    await h.run("x~c0", State.FAILED)
    assert await h.engine.cancel_link("c:x", None) is False
    assert await where(h) == (Status.FAILED, 0)


async def test_after_cancelling_the_whole_its_step_may_be_reopened(h: Harness) -> None:
    await put_chain(h, 2)
    await h.engine.cancel_link("c:x", None)
    assert await h.reopen("x~c0") is True
    assert await where(h) == (Status.PROCESSING, 0)
    await h.run("x~c0")
    await h.run("x~c1")
    assert await where(h) == (Status.SUCCESSFUL, 2)


async def test_steps_forgotten_at_their_end_do_not_stop_it(h: Harness) -> None:
    await put_chain(h)
    await h.run("x~c0", result=b"zero", ttl=0)
    assert await h.get("x~c0") is None
    assert (await h.row("x~c1")).prev == b"zero"
    await h.run("x~c1", ttl=0)
    await h.run("x~c2", ttl=0)
    assert await where(h) == (Status.SUCCESSFUL, 3)


async def test_a_death_on_the_way_changes_nothing(h: Harness) -> None:
    await put_chain(h, 2)
    await (await h.worker("dies")).take("x~c0")
    await h.engine.reclaim("dies", "killed")
    assert await where(h) == (Status.PROCESSING, 0)
    await h.run("x~c0")
    await h.run("x~c1")
    assert await where(h) == (Status.SUCCESSFUL, 2)


async def test_steps_of_many_chains_in_one_batch(h: Harness) -> None:
    for name in "abc":
        steps, link = chain(name, 3)
        await h.put(*steps, links=[link])
    worker = await h.worker()
    for i in range(3):
        leases = await worker.claim()
        assert sorted(lease.id for lease in leases) == [f"{name}~c{i}" for name in "abc"]
        assert await worker.settle(*(end(lease, result=lease.id.encode()) for lease in leases)) == [True] * 3
    assert [(await h.link(f"c:{name}")).status for name in "abc"] == [Status.SUCCESSFUL] * 3
    assert (await h.row("b~c2")).prev == b"b~c1"


async def test_a_long_one(h: Harness) -> None:
    await put_chain(h, 100)
    worker = await h.worker()
    for i in range(100):
        await worker.settle(end(await worker.take(f"x~c{i}"), result=f"{i}".encode()))
    assert await where(h) == (Status.SUCCESSFUL, 100)
    assert (await h.row("x~c99")).prev == b"98"
