"""Results: what a run saved, what a group gathered, and for how long."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State

from .harness import Harness, end, fail, group, retry

pytestmark = pytest.mark.asyncio


async def test_a_failed_or_cancelled_job_keeps_what_it_saved(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a", State.FAILED, b"even so")
    await h.run("b", State.CANCELLED, b"this far")
    assert [(await h.row(name)).result for name in "ab"] == [b"even so", b"this far"]


async def test_a_retry_saves_nothing(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(retry(await worker.take("a")))
    assert (await h.row("a")).result is None


async def test_reopening_drops_it(h: Harness) -> None:
    await h.put("a")
    await h.run("a", State.FAILED, b"old")
    await h.reopen("a")
    assert (await h.row("a")).result is None
    await h.run("a", result=None)
    assert (await h.row("a")).result is None


async def test_a_large_one(h: Harness) -> None:
    saved = bytes(range(256)) * 4096
    await h.put("a")
    await h.run("a", result=saved)
    assert (await h.row("a")).result == saved


async def test_the_results_of_a_group_by_index(h: Harness) -> None:
    members, link = group("x", 5)
    await h.put(*members, links=[link])
    worker = await h.worker()
    leases = await worker.claim()
    steps = [end(lease, result=f"{lease.pos}".encode()) for lease in leases]
    steps[1].result, steps[2] = None, fail(leases[2], result=b"failed")
    await worker.settle(*reversed(steps))
    assert await h.engine.results("g:x", 0, 10) == [b"0", None, b"failed", b"3", b"4"]
    assert await h.engine.results("g:x", 1, 2) == [None, b"failed"]
    assert await h.engine.results("g:x", 4, 10) == [b"4"]
    assert await h.engine.results("g:x", 5, 10) == []
    assert await h.engine.results("g:x", 0, 0) == []


async def test_the_results_of_a_group_that_is_still_at_it(h: Harness) -> None:
    members, link = group("x", 3)
    await h.put(*members, links=[link])
    assert await h.engine.results("g:x", 0, 10) == [None, None, None]
    await h.run("x~g1", result=b"1")
    assert await h.engine.results("g:x", 0, 10) == [None, b"1", None]


async def test_the_results_of_nothing(h: Harness) -> None:
    assert await h.engine.results("g:never", 0, 10) == []
    assert await h.engine.get_link("g:never") is None
    assert await h.engine.get_link("c:never") is None


async def test_a_member_that_ends_again_replaces_its_result(h: Harness) -> None:
    members, link = group("x", 2)
    await h.put(*members, links=[link])
    await h.run("x~g0", State.FAILED, b"old")
    await h.reopen("x~g0")
    assert await h.engine.results("g:x", 0, 10) == [None, None]
    await h.run("x~g0", result=b"new")
    assert await h.engine.results("g:x", 0, 10) == [b"new", None]
