"""Retry and snooze: back after a delay, behind those that wait, with what the run has left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasqueue.core.record import Step
from tasqueue.core.status import State

from .harness import SHORT, Harness, chain, end, ids, record, retry, snooze

pytestmark = pytest.mark.asyncio

Maker = Callable[..., Step]
either = pytest.mark.parametrize("maker", [retry, snooze])


@either
async def test_it_is_back_after_its_delay_and_not_before(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    assert await worker.settle(maker(await worker.take("a"), SHORT)) == [True]
    assert await h.state("a") is State.DUE
    assert await worker.claim() == []
    await h.clock.advance(SHORT + 50)
    await worker.take("a")


@either
async def test_its_tail_is_stored(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(maker(await worker.take("a"), 60_000, tail=b"the first run"))
    row = await h.row("a")
    assert (row.tail, row.result, row.ended_at, row.spec) == (b"the first run", None, None, b"spec of a")


@either
async def test_without_a_delay_it_is_ready_at_once_behind_the_others(h: Harness, maker: Maker) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    await worker.settle(maker(a))
    assert await h.state("a") is State.READY
    assert await h.ready() == ["b", "a"]


@either
async def test_as_often_as_it_likes(h: Harness, maker: Maker) -> None:
    await h.put("a")
    worker = await h.worker()
    for k in range(10):
        lease = await worker.take("a")
        assert lease.tail == (f"run {k}".encode() if k else b"")
        assert await worker.settle(maker(lease, tail=f"run {k + 1}".encode())) == [True]
    assert await worker.settle(end(await worker.take("a"))) == [True]


@either
async def test_it_keeps_its_priority_and_its_previous_result(h: Harness, maker: Maker) -> None:
    await h.put(record("a", priority=5, prev=b"previous"), "b")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    await worker.settle(maker(a))
    (again,) = await worker.claim(1)
    assert (again.id, again.prev) == ("a", b"previous")


async def test_many_with_delays_of_their_own(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(5)))
    worker = await h.worker()
    leases = await worker.claim()
    await worker.settle(*(retry(lease, SHORT - i * 20) for i, lease in enumerate(leases)))
    await h.clock.advance(SHORT + 50)
    assert ids(await worker.claim()) == ["4", "3", "2", "1", "0"]


async def test_a_retried_step_of_a_chain_is_still_the_one_it_is_at(h: Harness) -> None:
    steps, link = chain("x", 2)
    await h.put(*steps, links=[link])
    worker = await h.worker()
    await worker.settle(retry(await worker.take("x~c0")))
    assert (await h.link("c:x")).pos == 0
    assert await h.state("x~c1") is State.HELD
    lease = await worker.take("x~c0")
    assert (lease.link, lease.pos) == ("c:x", 0)
    await worker.settle(end(lease))
    assert await h.ready() == ["x~c1"]
