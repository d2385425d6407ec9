"""Groups: side by side, ended when all have ended, their callback enqueued exactly once per generation (G6)."""

from __future__ import annotations

from typing import Any

import pytest

from tasqueue.core.codec import unpack_results
from tasqueue.core.record import Link
from tasqueue.core.status import State, Status

from .harness import SHORT, TTL, Harness, end, fail, group, record, retry

pytestmark = pytest.mark.asyncio


async def put_group(h: Harness, n: int = 3, **fields: Any) -> None:
    members, link = group("x", n, **fields)
    await h.put(*members, links=[link])


async def test_a_new_group(h: Harness) -> None:
    await put_group(h)
    link = await h.link("g:x")
    assert (link.key, link.n, link.status, link.generation, link.members) == ("g:x", 3, Status.PROCESSING, 0, {})
    assert await h.ready() == ["x~g0", "x~g1", "x~g2"]
    row = await h.row("x~g1")
    assert (row.link, row.pos) == ("g:x", 1)


async def test_it_is_processing_until_all_have_ended(h: Harness) -> None:
    await put_group(h)
    await h.run("x~g1")
    await h.run("x~g0", State.FAILED)
    link = await h.link("g:x")
    assert link.status is Status.PROCESSING
    assert link.members == {0: Status.FAILED, 1: Status.SUCCESSFUL}
    assert await h.ready("callbacks") == []


async def test_when_all_were_successful(h: Harness) -> None:
    await put_group(h)
    for i in range(3):
        await h.run(f"x~g{i}", result=f"{i}".encode() if i != 1 else None)
    link = await h.link("g:x")
    assert link.status is Status.SUCCESSFUL
    assert link.members == dict.fromkeys(range(3), Status.SUCCESSFUL)
    lease = await (await h.worker()).take("x~s0", "callbacks")
    assert unpack_results(lease.prev or b"") == [b"0", None, b"2"]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
async def test_when_one_was_not(h: Harness, state: State) -> None:
    await put_group(h)
    await h.run("x~g1", state, b"even so")
    await h.run("x~g0", result=b"0")
    await h.run("x~g2", result=b"2")
    assert (await h.link("g:x")).status is Status.FAILED
    lease = await (await h.worker()).take("x~e0", "callbacks")
    assert unpack_results(lease.prev or b"") == [b"0", b"even so", b"2"]


async def test_all_of_them_in_one_batch(h: Harness) -> None:
    await put_group(h, 100)
    worker = await h.worker()
    leases = await worker.claim(100)
    assert await worker.settle(*map(end, leases)) == [True] * 100
    assert (await h.link("g:x")).status is Status.SUCCESSFUL
    assert await h.ready("callbacks") == ["x~s0"]


async def test_members_of_several_groups_in_one_batch(h: Harness) -> None:
    for name in "abc":
        members, link = group(name, 4)
        await h.put(*members, links=[link])
    worker = await h.worker()
    leases = await worker.claim(12)
    steps = [fail(lease) if lease.id == "b~g2" else end(lease) for lease in leases]
    assert await worker.settle(*steps[::2]) == [True] * 6
    assert await h.ready("callbacks") == []
    assert await worker.settle(*steps[1::2]) == [True] * 6
    assert [(await h.link(f"g:{name}")).status for name in "abc"] == [
        Status.SUCCESSFUL,
        Status.FAILED,
        Status.SUCCESSFUL,
    ]
    assert sorted(await h.ready("callbacks")) == ["a~s0", "b~e0", "c~s0"]


async def test_a_group_of_one(h: Harness) -> None:
    await put_group(h, 1)
    await h.run("x~g0", result=b"only")
    assert (await h.link("g:x")).status is Status.SUCCESSFUL
    assert await h.ready("callbacks") == ["x~s0"]


async def test_a_group_without_callbacks(h: Harness) -> None:
    await put_group(h, 2, on_success=(), on_error=())
    await h.run("x~g0")
    await h.run("x~g1")
    assert (await h.link("g:x")).status is Status.SUCCESSFUL


async def test_several_callbacks_where_each_wants_to_be(h: Harness) -> None:
    due = await h.clock.now() + SHORT
    callbacks = (record("x~s0", "one", priority=3), record("x~s1", "two", due=due))
    await put_group(h, 1, on_success=callbacks)
    await h.run("x~g0")
    row = await h.row("x~s0")
    assert (row.queue, row.priority, row.state) == ("one", 3, State.READY)
    assert await h.state("x~s1") is State.DUE
    await h.clock.advance(SHORT + 50)
    assert await h.ready("two") == ["x~s1"]


async def test_results_that_are_too_large_for_the_callback_are_left_to_be_read(h: Harness) -> None:
    await put_group(h, 2, max_prev=100)
    await h.run("x~g0", result=bytes(60))
    await h.run("x~g1", result=bytes(60))
    assert (await h.row("x~s0")).prev is None
    assert await h.engine.results("g:x", 0, 10) == [bytes(60), bytes(60)]


async def test_results_that_just_fit(h: Harness) -> None:
    await put_group(h, 1, max_prev=63)
    await h.run("x~g0", result=bytes(60))  # 1 byte for the array, 2 for the length
    assert (await h.row("x~s0")).prev is not None


async def test_a_retry_is_no_end(h: Harness) -> None:
    await put_group(h, 1)
    worker = await h.worker()
    await worker.settle(retry(await worker.take("x~g0")))
    assert (await h.link("g:x")).members == {}
    await worker.settle(end(await worker.take("x~g0")))
    assert (await h.link("g:x")).status is Status.SUCCESSFUL


async def test_it_keeps_what_its_members_saved_when_they_are_forgotten(h: Harness) -> None:
    await put_group(h, 3)
    await h.run("x~g0", result=b"0", ttl=0)
    await h.run("x~g1", result=b"1")
    await h.engine.delete(["x~g1"])
    assert await h.states("x~g0", "x~g1") == [None, None]
    assert await h.engine.results("g:x", 0, 10) == [b"0", b"1", None]
    await h.run("x~g2", result=b"2", ttl=0)
    assert (await h.link("g:x")).status is Status.SUCCESSFUL
    assert unpack_results((await h.row("x~s0")).prev or b"") == [b"0", b"1", b"2"]


async def test_reopening_a_member_before_the_group_has_ended(h: Harness) -> None:
    await put_group(h, 2)
    await h.run("x~g0", State.FAILED)
    assert await h.reopen("x~g0") is True
    link = await h.link("g:x")
    assert (link.members, link.generation) == ({}, 0)
    await h.run("x~g0")
    await h.run("x~g1")
    assert (await h.link("g:x")).status is Status.SUCCESSFUL
    assert await h.ready("callbacks") == ["x~s0"]


async def test_reopening_a_member_after_the_group_has_ended_makes_a_new_generation(h: Harness) -> None:
    await put_group(h, 2)
    await h.run("x~g0", result=b"0")
    await h.run("x~g1", State.FAILED)
    assert await h.ready("callbacks") == ["x~e0"]
    assert await h.reopen("x~g1") is True
    link = await h.link("g:x")
    assert (link.status, link.members, link.generation) == (Status.PROCESSING, {0: Status.SUCCESSFUL}, 1)
    assert await h.engine.results("g:x", 0, 10) == [b"0", None]
    await h.run("x~g1", result=b"1")
    assert (await h.link("g:x")).status is Status.SUCCESSFUL
    assert await h.ready("callbacks") == ["x~e0", "x~s0.1"]
    assert unpack_results((await h.row("x~s0.1")).prev or b"") == [b"0", b"1"]


async def test_each_generation_has_its_own_callback(h: Harness) -> None:
    await put_group(h, 1)
    for k in range(3):
        await h.run("x~g0", State.FAILED)
        assert (await h.link("g:x")).generation == k
        await h.reopen("x~g0")
    assert await h.ready("callbacks") == ["x~e0", "x~e0.1", "x~e0.2"]


async def test_two_members_reopened_are_one_generation(h: Harness) -> None:
    await put_group(h, 2)
    await h.run("x~g0", State.FAILED)
    await h.run("x~g1", State.FAILED)
    await h.reopen("x~g0")
    await h.reopen("x~g1")
    assert (await h.link("g:x")).generation == 1
    await h.run("x~g0")
    assert (await h.link("g:x")).status is Status.PROCESSING
    await h.run("x~g1")
    assert await h.ready("callbacks") == ["x~e0", "x~s0.1"]


async def test_cancelling_a_waiting_member(h: Harness) -> None:
    await put_group(h, 2)
    await h.engine.cancel(["x~g0"], None)
    assert (await h.link("g:x")).members == {0: Status.CANCELLED}
    await h.run("x~g1")
    assert (await h.link("g:x")).status is Status.FAILED
    assert await h.ready("callbacks") == ["x~e0"]


async def test_cancelling_the_last_member_ends_it(h: Harness) -> None:
    await put_group(h, 2)
    await h.run("x~g0")
    await h.engine.cancel(["x~g1"], 0)
    assert (await h.link("g:x")).status is Status.FAILED
    assert await h.ready("callbacks") == ["x~e0"]


async def test_cancelling_the_whole_while_all_wait(h: Harness) -> None:
    await put_group(h, 3)
    assert await h.engine.cancel_link("g:x", TTL) is True
    assert await h.states("x~g0", "x~g1", "x~g2") == [State.CANCELLED] * 3
    link = await h.link("g:x")
    assert (link.status, link.members) == (Status.FAILED, dict.fromkeys(range(3), Status.CANCELLED))
    assert await h.ready("callbacks") == ["x~e0"]


async def test_cancelling_the_whole_while_one_runs_and_one_has_ended(h: Harness) -> None:
    await put_group(h, 3)
    await h.run("x~g0", result=b"0")
    worker = await h.worker()
    (running,) = await worker.claim(1)
    assert await h.engine.cancel_link("g:x", TTL) is True
    assert await h.states("x~g0", "x~g2") == [State.SUCCESSFUL, State.CANCELLED]
    assert (await h.link("g:x")).status is Status.PROCESSING
    assert list((await worker.beat()).cancels) == ["x~g1"]
    assert await worker.settle(end(running, State.CANCELLED)) == [True]
    assert (await h.link("g:x")).status is Status.FAILED
    assert await h.ready("callbacks") == ["x~e0"]


async def test_cancelling_one_that_is_unknown_or_has_ended(h: Harness) -> None:
    assert await h.engine.cancel_link("g:never", None) is False
    await put_group(h, 1)
    await h.run("x~g0")
    assert await h.engine.cancel_link("g:x", None) is False


async def test_a_chain_and_a_group_of_the_same_name_are_two_things(h: Harness) -> None:
    members, link = group("x", 1)
    step = record("x~c0", link="c:x", pos=0)
    await h.put(*members, step, links=[link, Link("c:x", 1)])
    await h.run("x~c0")
    assert ((await h.link("c:x")).status, (await h.link("g:x")).status) == (Status.SUCCESSFUL, Status.PROCESSING)
