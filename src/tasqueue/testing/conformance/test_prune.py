"""Retention: what has ended is forgotten when its time is over, all of it together, and not before."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State
from tasqueue.interfaces import Filter

from .harness import TTL, Harness, chain, end, fail, group, ids

pytestmark = pytest.mark.asyncio


async def test_record_result_and_index_go_together(h: Harness) -> None:
    await h.put("a")
    await h.run("a", result=b"saved", ttl=TTL)
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 1
    assert await h.get("a") is None
    assert await h.engine.ended(State.SUCCESSFUL, 10, None) == []
    assert await h.engine.jobs(Filter(), 10, None) == []
    assert not any((await h.engine.counts()).ended.values())


async def test_not_before_their_time(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a", ttl=60_000)
    await h.run("b", State.FAILED, ttl=None)
    await h.clock.advance(TTL)
    assert await h.engine.prune() == 0
    assert await h.states("a", "b") == [State.SUCCESSFUL, State.FAILED]


async def test_each_has_a_span_of_its_own(h: Harness) -> None:
    await h.put(*"abc")
    worker = await h.worker()
    a, b, c = await worker.claim()
    await worker.settle(end(a, ttl=60_000), fail(b, ttl=TTL), end(c, ttl=TTL))
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 2
    assert await h.states("a", "b", "c") == [State.SUCCESSFUL, None, None]


async def test_what_has_not_ended_is_never_forgotten(h: Harness) -> None:
    steps, link = chain("x", 2, result_ttl=0, failed_ttl=0)
    await h.put("running", "waiting", *steps, links=[link])
    worker = await h.worker()
    (running,) = await worker.claim(1)
    await h.clock.advance(4 * TTL)
    assert await h.engine.prune() == 0
    assert await h.states("waiting", "x~c0", "x~c1") == [State.READY, State.READY, State.HELD]
    assert await worker.settle(end(running)) == [True]


async def test_a_forgotten_id_is_new(h: Harness) -> None:
    await h.put("a")
    await h.run("a", ttl=TTL)
    await h.clock.advance(TTL + 50)
    await h.engine.prune()
    await h.put("a")
    assert await h.ready() == ["a"]


async def test_reopening_stops_the_clock(h: Harness) -> None:
    await h.put("a")
    await h.run("a", State.FAILED, ttl=TTL)
    await h.reopen("a")
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 0
    assert await h.state("a") is State.READY
    await h.run("a", ttl=TTL)
    assert await h.engine.prune() == 0
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 1


async def test_a_thousand_at_a_time(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(1_200)))
    worker = await h.worker()
    await worker.settle(*(end(lease, ttl=TTL) for lease in await worker.claim(1_200)))
    await h.clock.advance(TTL + 50)
    assert [await h.engine.prune() for _ in range(3)] == [1_000, 200, 0]


async def test_a_chain_counts_from_its_own_end(h: Harness) -> None:
    steps, link = chain("x", 2, result_ttl=TTL)
    await h.put(*steps, links=[link])
    await h.run("x~c0")
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 0
    await h.run("x~c1")
    assert await h.engine.prune() == 0
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 1
    assert await h.engine.get_link("c:x") is None
    assert await h.states("x~c0", "x~c1") == [State.SUCCESSFUL, State.SUCCESSFUL]


async def test_a_failed_chain_is_kept_as_long_as_failed_ones_are(h: Harness) -> None:
    steps, link = chain("x", 2, result_ttl=0, failed_ttl=TTL)
    await h.put(*steps, links=[link])
    await h.run("x~c0", State.FAILED)
    assert await h.engine.prune() == 0
    await h.clock.advance(TTL + 50)
    await h.engine.prune()
    assert await h.engine.get_link("c:x") is None


async def test_the_jobs_still_held_back_go_with_their_chain(h: Harness) -> None:
    steps, link = chain("x", 4, failed_ttl=TTL)
    await h.put(*steps, links=[link])
    await h.run("x~c0")
    await h.run("x~c1", State.FAILED)
    assert await h.states("x~c2", "x~c3") == [State.HELD, State.HELD]
    await h.clock.advance(TTL + 50)
    await h.engine.prune()
    assert await h.states("x~c0", "x~c1", "x~c2", "x~c3") == [State.SUCCESSFUL, State.FAILED, None, None]
    assert not (await h.engine.counts()).queues.get("q", {}).get(State.HELD, 0)


async def test_a_chain_with_a_ttl_of_nought_is_forgotten_at_its_end(h: Harness) -> None:
    steps, link = chain("x", 3, result_ttl=0, failed_ttl=0)
    await h.put(*steps, links=[link])
    await h.run("x~c0", State.FAILED)
    assert await h.engine.get_link("c:x") is None
    await h.engine.prune()
    assert await h.states("x~c0", "x~c1", "x~c2") == [State.FAILED, None, None]


async def test_a_group_counts_from_its_own_end_and_keeps_the_results_until_then(h: Harness) -> None:
    members, link = group("x", 2, result_ttl=TTL)
    await h.put(*members, links=[link])
    await h.run("x~g0", result=b"0", ttl=TTL)
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 1
    assert await h.get("x~g0") is None
    assert await h.engine.results("g:x", 0, 10) == [b"0", None]
    await h.run("x~g1", result=b"1")
    assert await h.engine.results("g:x", 0, 10) == [b"0", b"1"]
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 1
    assert await h.engine.get_link("g:x") is None
    assert await h.engine.results("g:x", 0, 10) == []
    assert await h.states("x~g1", "x~s0") == [State.SUCCESSFUL, State.READY]


async def test_a_group_with_a_ttl_of_nought_still_enqueues_its_callback(h: Harness) -> None:
    members, link = group("x", 1, result_ttl=0)
    await h.put(*members, links=[link])
    await h.run("x~g0", result=b"0", ttl=0)
    assert await h.engine.get_link("g:x") is None
    assert ids([await h.row("x~s0")]) == ["x~s0"]
    assert await h.ready("callbacks") == ["x~s0"]


async def test_a_reopened_chain_is_not_forgotten(h: Harness) -> None:
    steps, link = chain("x", 2, failed_ttl=TTL)
    await h.put(*steps, links=[link])
    await h.run("x~c0", State.FAILED)
    await h.reopen("x~c0")
    await h.clock.advance(TTL + 50)
    assert await h.engine.prune() == 0
    assert (await h.link("c:x")).pos == 0


async def test_reopening_a_job_whose_link_is_forgotten(h: Harness) -> None:
    members, link = group("x", 1, failed_ttl=0)
    await h.put(*members, links=[link])
    await h.run("x~g0", State.FAILED)
    assert await h.engine.get_link("g:x") is None
    assert await h.reopen("x~g0") is True
    await h.run("x~g0")
    assert await h.state("x~g0") is State.SUCCESSFUL
    assert await h.ready("callbacks") == ["x~e0"]
