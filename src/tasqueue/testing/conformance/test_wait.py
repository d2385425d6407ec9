"""Waiting: sleepers wake when there may be work, and when what they watch has ended; nobody needs to poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tasqueue.core.status import State

from .harness import Harness, chain, end, group, record, release, retry

pytestmark = pytest.mark.asyncio

PATIENCE = 10.0
"""Seconds until a test gives up on a sleeper that should have woken."""


async def work_in(h: Harness, queues: list[str], id: str) -> None:
    """What a consumer does: claim, and wait while there is nothing; over when it has got `id`."""
    worker = await h.worker("waits", await h.another())
    while True:
        leases = await worker.claim(1, *queues)
        if any(lease.id == id for lease in leases):
            return
        await worker.settle(*map(release, leases))
        await worker.engine.wait(queues, None)


async def woken(sleeper: Coroutine[Any, Any, None], act: Callable[[], Awaitable[object]]) -> None:
    """The sleeper sleeps until `act`, and then wakes."""
    task = asyncio.create_task(sleeper)
    try:
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done, "woke before there was any reason to"
        await act()
        await asyncio.wait_for(task, PATIENCE)
    finally:
        task.cancel()


async def test_a_new_job_wakes_a_consumer(h: Harness) -> None:
    await woken(work_in(h, ["q"], "a"), lambda: h.put("a"))


async def test_a_job_in_any_of_its_queues_wakes_it(h: Harness) -> None:
    await woken(work_in(h, ["p", "q", "r"], "a"), lambda: h.put("a"))


async def test_a_released_job_wakes_it(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await woken(work_in(h, ["q"], "a"), lambda: worker.settle(release(lease)))


async def test_a_retry_without_delay_wakes_it(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await woken(work_in(h, ["q"], "a"), lambda: worker.settle(retry(lease)))


async def test_a_follow_up_wakes_it(h: Harness) -> None:
    await h.put(record("a", "first"))
    worker = await h.worker()
    lease = await worker.take("a", "first")
    await woken(work_in(h, ["q"], "b"), lambda: worker.settle(end(lease, follow=(record("b"),))))


async def test_the_next_step_of_a_chain_wakes_it(h: Harness) -> None:
    steps, link = chain("x", 2)
    steps[0].queue = "first"
    await h.put(*steps, links=[link])
    await woken(work_in(h, ["q"], "x~c1"), lambda: h.run("x~c0"))


async def test_a_groups_callback_wakes_it(h: Harness) -> None:
    members, link = group("x", 1)
    await h.put(*members, links=[link])
    await woken(work_in(h, ["callbacks"], "x~s0"), lambda: h.run("x~g0"))


async def test_a_reclaim_wakes_it(h: Harness) -> None:
    await h.put("a")
    await (await h.worker("dies")).take("a")
    await woken(work_in(h, ["q"], "a"), lambda: h.engine.reclaim("dies", "killed"))


async def test_a_reopened_job_wakes_it(h: Harness) -> None:
    await h.put("a")
    await h.run("a", State.FAILED)
    await woken(work_in(h, ["q"], "a"), lambda: h.reopen("a"))


async def test_resuming_its_queue_wakes_it(h: Harness) -> None:
    await h.engine.pause("q", "", "")
    await h.put("a")
    await woken(work_in(h, ["q"], "a"), lambda: h.engine.resume("q"))


async def test_what_became_ready_since_the_last_claim_is_not_slept_through(h: Harness) -> None:
    worker = await h.worker()
    assert await worker.claim() == []
    await h.put("a")
    await asyncio.wait_for(h.engine.wait(["q"], None), PATIENCE)
    await worker.take("a")


async def test_a_wait_is_over_at_its_date(h: Harness) -> None:
    await (await h.worker()).claim()
    await asyncio.wait_for(h.engine.wait(["q"], await h.clock.now() + 30), PATIENCE)
    await asyncio.wait_for(h.engine.wait(["q"], await h.clock.now() - 1), PATIENCE)


async def test_a_cancelled_wait_leaves_the_engine_usable(h: Harness) -> None:
    await (await h.worker()).claim()
    sleepers = [h.engine.wait(["q"], None), h.engine.watch([("job", "b")], None)]
    await h.put(record("b", "elsewhere"))
    tasks = [asyncio.create_task(sleeper) for sleeper in sleepers]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
    await h.put("a")
    assert await h.ready() == ["a"]


# -- watch ------------------------------------------------------------------------------------------------------------


async def ended(h: Harness, id: str) -> None:
    """What somebody who waits for a job does."""
    engine = await h.another()
    while True:
        (row,) = await engine.get([id])
        if row is None or row.ended_at is not None:
            return
        await engine.watch([("job", id)], None)


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED, State.CANCELLED])
async def test_an_end_wakes_who_watches_the_job(h: Harness, state: State) -> None:
    await h.put("a")
    await woken(ended(h, "a"), lambda: h.run("a", state))


async def test_an_end_that_forgets_the_job_wakes_too(h: Harness) -> None:
    await h.put("a")
    await woken(ended(h, "a"), lambda: h.run("a", ttl=0))


async def test_a_cancel_wakes_too(h: Harness) -> None:
    await h.put("a")
    await woken(ended(h, "a"), lambda: h.engine.cancel(["a"], None))


async def test_what_has_ended_or_is_unknown_is_not_waited_for(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a")
    for key in ("a", "never"):
        await asyncio.wait_for(h.engine.watch([("job", "b"), ("job", key)], None), PATIENCE)
    await asyncio.wait_for(h.engine.watch([("chain", "never")], None), PATIENCE)
    await asyncio.wait_for(h.engine.watch([("group", "never")], None), PATIENCE)


async def link_ended(h: Harness, kind: Any, key: str) -> None:
    engine = await h.another()
    while True:
        link = await engine.get_link(key)
        if link is None or link.status.final:
            return
        await engine.watch([(kind, key[2:])], None)


async def test_the_end_of_a_chain_wakes_who_watches_it(h: Harness) -> None:
    steps, link = chain("x", 1)
    await h.put(*steps, links=[link])
    await woken(link_ended(h, "chain", "c:x"), lambda: h.run("x~c0"))


async def test_the_end_of_a_group_wakes_who_watches_it(h: Harness) -> None:
    members, link = group("x", 1)
    await h.put(*members, links=[link])
    await woken(link_ended(h, "group", "g:x"), lambda: h.run("x~g0"))


async def test_a_cancelled_chain_wakes_who_watches_it(h: Harness) -> None:
    steps, link = chain("x", 2)
    await h.put(*steps, links=[link])
    await woken(link_ended(h, "chain", "c:x"), lambda: h.engine.cancel_link("c:x", None))


async def test_a_watch_is_over_at_its_date(h: Harness) -> None:
    await h.put("a")
    await asyncio.wait_for(h.engine.watch([("job", "a")], await h.clock.now() + 30), PATIENCE)
    assert await h.state("a") is State.READY


async def test_many_watch_the_same_job(h: Harness) -> None:
    await h.put("a")
    engine = await h.another()

    async def watch() -> None:
        while (await engine.get(["a"]))[0] is not None:
            await engine.watch([("job", "a")], None)

    tasks = [asyncio.create_task(watch()) for _ in range(10)]
    await asyncio.sleep(0.01)
    await h.run("a", ttl=0)
    await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
