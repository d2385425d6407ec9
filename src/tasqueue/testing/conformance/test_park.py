"""Parking: a job that nobody here can run waits for somebody who can, and not for ever (G11)."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State

from .harness import SHORT, Harness, chain, fail, ids, park, record, release

pytestmark = pytest.mark.asyncio


async def test_a_parked_job_says_why_and_is_not_offered(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    assert await worker.settle(park(a, "task:t", "no worker knows t")) == [True]
    row = await h.row("a")
    assert (row.state, row.parked, row.tail, row.deaths) == (State.PARKED, "no worker knows t", b"", 0)
    assert await h.ready() == ["b"]


async def test_its_due_date_is_the_end_of_the_waiting(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    before = await h.clock.now()
    await worker.settle(park(lease, delay=10_000))
    due = (await h.row("a")).due
    assert due is not None
    assert before + 10_000 <= due <= await h.clock.now() + 10_000
    assert await h.engine.promote() == due


async def test_a_worker_that_announces_the_task_frees_it(h: Harness) -> None:
    await h.put("a", record("b", task="other"))
    worker = await h.worker()
    a, b = await worker.claim()
    await worker.settle(park(a, "task:t"), park(b, "task:other"))
    await h.worker("stranger", tasks={"third": "q"})
    assert await h.states("a", "b") == [State.PARKED, State.PARKED]
    await h.worker("knows", tasks={"t": "q", "more": "q"})
    assert await h.states("a", "b") == [State.READY, State.PARKED]
    assert (await h.row("a")).parked == ""


async def test_a_task_registered_while_running_frees_it(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "task:t"))
    await h.engine.register("w", 60_000, b"", {"t": "q"}, 1)
    await worker.take("a")


@pytest.mark.parametrize(("announced", "state"), [(1, State.PARKED), (2, State.READY), (3, State.READY)])
async def test_a_worker_of_that_version_or_later_frees_it(h: Harness, announced: int, state: State) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "version:2"))
    await h.worker("other", version=announced)
    assert await h.state("a") is state


async def test_versions_are_numbers(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "version:10"))
    await h.worker("nine", version=9)
    assert await h.state("a") is State.PARKED
    await h.worker("eleven", version=11)
    assert await h.state("a") is State.READY


async def test_a_task_whose_name_looks_like_a_version(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "task:version:1"))
    await h.worker("other", tasks={"1": "q", "version": "q"}, version=9)
    assert await h.state("a") is State.PARKED
    await h.worker("knows", tasks={"version:1": "q"})
    assert await h.state("a") is State.READY


async def test_when_its_time_is_over_it_is_offered_once_more(h: Harness) -> None:
    await h.put("a", "b")
    worker = await h.worker()
    (a,) = await worker.claim(1)
    before = await h.clock.now()
    await worker.settle(park(a, delay=SHORT))
    await h.engine.promote()
    assert await h.state("a") is State.PARKED
    await h.clock.advance(SHORT + 50)
    await h.engine.promote()
    assert await h.state("a") is State.READY
    leases = await worker.claim()
    assert ids(leases) == ["a", "b"]
    assert leases[0].parked_at is not None
    assert before <= leases[0].parked_at < await h.clock.now() - SHORT
    assert await worker.settle(fail(leases[0])) == [True]


async def test_the_waiting_counts_from_the_first_time(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "task:t", delay=10_000))
    first = (await h.row("a")).due
    await h.clock.advance(200)
    await h.worker("knows", tasks={"t": "q"})
    lease = await worker.take("a")
    assert lease.parked_at is not None
    await worker.settle(park(lease, "version:7", delay=10_000))
    assert (await h.row("a")).due == first


async def test_that_it_was_parked_is_remembered_until_it_is_reopened(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    await worker.settle(park(await worker.take("a"), "task:t"))
    await h.worker("knows", tasks={"t": "q"})
    lease = await worker.take("a")
    await worker.settle(release(lease))
    lease = await worker.take("a")
    assert lease.parked_at is not None
    await worker.settle(fail(lease))
    await h.reopen("a")
    assert (await worker.take("a")).parked_at is None


async def test_many_under_one_key(h: Harness) -> None:
    names = [f"{i:02}" for i in range(50)]
    await h.put(*names)
    worker = await h.worker()
    leases = await worker.claim(50)
    await worker.settle(*(park(lease, "task:t") for lease in reversed(leases)))
    assert (await h.engine.counts()).queues["q"][State.PARKED] == 50
    await h.worker("knows", tasks={"t": "q"})
    assert await h.ready() == names


async def test_a_parked_step_holds_its_chain(h: Harness) -> None:
    steps, link = chain("x", 2)
    await h.put(*steps, links=[link])
    worker = await h.worker()
    await worker.settle(park(await worker.take("x~c0"), "task:t"))
    assert await h.states("x~c0", "x~c1") == [State.PARKED, State.HELD]
    await h.worker("knows", tasks={"t": "q"})
    await h.run("x~c0")
    assert await h.ready() == ["x~c1"]
