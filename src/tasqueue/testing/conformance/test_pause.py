"""Pause: a paused queue gives nothing, to anybody, until it is resumed."""

from __future__ import annotations

import pytest

from .harness import Harness, end, ids, needs, record

pytestmark = pytest.mark.asyncio


async def test_a_paused_queue_gives_nothing(h: Harness) -> None:
    await h.put("a", record("b", "other"))
    await h.engine.pause("q", "why", "me")
    worker = await h.worker()
    assert ids(await worker.claim(10, "q", "other")) == ["b"]
    await h.put("c")
    assert await worker.claim() == []
    await h.engine.resume("q")
    assert ids(await worker.claim()) == ["a", "c"]


async def test_it_holds_for_every_engine_on_the_store(h: Harness) -> None:
    other = await h.another()
    await h.put("a")
    await other.pause("q", "", "")
    assert await (await h.worker()).claim() == []


async def test_what_runs_goes_on(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    await h.engine.pause("q", "", "")
    assert await worker.settle(end(a, follow=(record("a~s0"),))) == [True]
    assert await worker.claim() == []
    await h.engine.resume("q")
    assert ids(await worker.claim()) == ["b", "a~s0"]


async def test_a_repeated_claim_still_returns_what_is_held(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.take("a")
    await h.engine.pause("q", "", "")
    assert ids(await worker.claim_again(1)) == ["a"]


async def test_who_paused_it_and_why(h: Harness) -> None:
    before = await h.clock.now()
    await h.engine.pause("q", "disk full ✗", "me@host")
    await h.engine.pause("p", "", "")
    p, q = await h.engine.paused()
    assert (p.queue, q.queue, q.reason, q.by) == ("p", "q", "disk full ✗", "me@host")
    assert before <= q.at <= await h.clock.now()


async def test_beats_name_all_paused_queues(h: Harness) -> None:
    worker = await h.worker()
    await h.engine.pause("q", "", "")
    await h.engine.pause("p", "", "")
    assert sorted((await worker.beat()).paused) == ["p", "q"]
    await h.engine.resume("q")
    assert list((await worker.beat()).paused) == ["p"]


async def test_resuming_what_is_not_paused(h: Harness) -> None:
    await h.engine.resume("never")
    assert await h.engine.paused() == []


async def test_a_due_job_of_a_paused_queue_wakes_nobody(h: Harness) -> None:
    await h.put(record("a", due=await h.clock.now() + 60_000))
    await h.engine.pause("q", "", "")
    await h.worker()
    assert (await h.engine.claim("w", 1, {"q": 1})).next_due is None


@needs("exact_pending")
async def test_its_jobs_are_still_shown(h: Harness) -> None:
    await h.put("a")
    await h.engine.pause("q", "", "")
    assert ids(await h.engine.pending("q", 10, None)) == ["a"]
