"""Reading: rows, pages, counts. What a reader is told is what is there."""

from __future__ import annotations

import pytest

from tasqueue.core.record import Row
from tasqueue.core.status import State
from tasqueue.interfaces import Filter

from .harness import Harness, chain, end, fail, ids, needs, park, record, release, retry

pytestmark = pytest.mark.asyncio


async def test_get_answers_in_order_with_none_for_the_unknown(h: Harness) -> None:
    await h.put("a", "b")
    assert [row and row.id for row in await h.engine.get(["b", "never", "a", "b"])] == ["b", None, "a", "b"]
    assert await h.engine.get([]) == []


async def test_get_many(h: Harness) -> None:
    names = [f"{i}" for i in range(2_000)]
    await h.put(*names)
    assert [row and row.id for row in await h.engine.get(names)] == names


async def test_reading_changes_nothing(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a")
    before = await h.engine.get(["a", "b"])
    for _ in range(2):
        await h.engine.counts()
        await h.engine.jobs(Filter(), 10, None)
        await h.engine.ended(State.SUCCESSFUL, 10, None)
    assert await h.engine.get(["a", "b"]) == before


# -- pending ----------------------------------------------------------------------------------------------------------


@needs("exact_pending")
async def test_pending_is_what_could_start_now_in_claim_order(h: Harness) -> None:
    steps, link = chain("x", 2)
    due = await h.clock.now() + 60_000
    await h.put(
        "a", record("due", due=due), record("high", priority=1), *steps, record("elsewhere", "p"), "b", links=[link]
    )
    worker = await h.worker()
    (high, a) = await worker.claim(2)
    await worker.settle(release(high), retry(a, 60_000))
    assert ids(await h.engine.pending("q", 10, None)) == ["high", "x~c0", "b"]
    assert ids(await h.engine.pending("p", 10, None)) == ["elsewhere"]
    assert await h.engine.pending("never", 10, None) == []


@needs("exact_pending")
async def test_pending_shows_released_ones_at_their_places(h: Harness) -> None:
    await h.put(*"abcdef")
    worker = await h.worker()
    _, b, _, d = await worker.claim(4)
    await worker.settle(release(d), release(b))
    assert ids(await h.engine.pending("q", 10, None)) == ["b", "d", "e", "f"]
    assert ids(await h.engine.pending("q", 10, "d")) == ["e", "f"]


@needs("exact_pending")
async def test_pending_in_pages(h: Harness) -> None:
    names = [f"{i:02}" for i in range(25)]
    await h.put(*(record(name, priority=i % 3) for i, name in enumerate(names)))
    found: list[str] = []
    while page := ids(await h.engine.pending("q", 7, found[-1] if found else None)):
        assert len(page) <= 7
        found += page
    assert found == sorted(names, key=lambda name: -(int(name) % 3))


@needs("exact_pending")
async def test_pending_after_one_that_no_longer_waits_is_from_the_head(h: Harness) -> None:
    await h.put("a", "b", "c", record("other", "p"))
    await h.run("a")
    for after in ("a", "never", "other"):
        assert ids(await h.engine.pending("q", 2, after)) == ["b", "c"]


@needs("exact_pending")
async def test_pending_shows_whole_rows(h: Harness) -> None:
    await h.put(record("a", task="task", priority=4, prev=b"previous"))
    (row,) = await h.engine.pending("q", 10, None)
    assert row == await h.row("a")


# -- ended ------------------------------------------------------------------------------------------------------------


async def test_ended_newest_first_by_state(h: Harness) -> None:
    await h.put(*"abcde")
    for name, state in zip(
        "caebd", [State.SUCCESSFUL, State.FAILED, State.SUCCESSFUL, State.CANCELLED, State.FAILED], strict=True
    ):
        await h.run(name, state)
        await h.clock.advance(5)
    assert await h.engine.ended(State.SUCCESSFUL, 10, None) == ["e", "c"]
    assert await h.engine.ended(State.FAILED, 10, None) == ["d", "a"]
    assert await h.engine.ended(State.CANCELLED, 10, None) == ["b"]


async def test_ended_in_pages(h: Harness) -> None:
    names = [f"{i:02}" for i in range(23)]
    await h.put(*names)
    worker = await h.worker()
    for lease in await worker.claim(23):
        await worker.settle(end(lease))
        await h.clock.advance(2)
    found: list[str] = []
    while page := await h.engine.ended(State.SUCCESSFUL, 5, found[-1] if found else None):
        assert len(page) <= 5
        found += page
    assert found == names[::-1]


async def test_ended_in_pages_of_one_batch_names_each_once(h: Harness) -> None:
    names = [f"{i:02}" for i in range(50)]
    await h.put(*names)
    worker = await h.worker()
    await worker.settle(*map(end, await worker.claim(50)))
    found: list[str] = []
    while page := await h.engine.ended(State.SUCCESSFUL, 7, found[-1] if found else None):
        found += page
    assert sorted(found) == names


async def test_ended_after_one_that_is_unknown_is_from_the_newest(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a")
    await h.clock.advance(5)
    await h.run("b")
    assert await h.engine.ended(State.SUCCESSFUL, 10, "never") == ["b", "a"]


async def test_ended_leaves_out_what_was_deleted_or_reopened(h: Harness) -> None:
    await h.put(*"abcd")
    worker = await h.worker()
    for lease in await worker.claim():
        await worker.settle(fail(lease))
        await h.clock.advance(5)
    await h.engine.delete(["b"])
    await h.reopen("c")
    assert await h.engine.ended(State.FAILED, 10, None) == ["d", "a"]
    assert await h.engine.ended(State.FAILED, 10, "d") == ["a"]
    await h.run("c", State.FAILED)
    assert await h.engine.ended(State.FAILED, 10, None) == ["c", "d", "a"]


# -- jobs and counts --------------------------------------------------------------------------------------------------


async def various(h: Harness) -> None:
    """One job in each state, under its name."""
    steps, link = chain("x", 2)
    await h.put("successful", "failed", "parked", "running", record("cancelled", "p"), links=[])
    worker = await h.worker()
    good, bad, parked, _ = await worker.claim()
    await worker.settle(end(good), fail(bad), park(parked))
    await h.engine.cancel(["cancelled"], None)
    due = await h.clock.now() + 60_000
    await h.put(record("due", "p", due=due), record("other", task="other"), *steps, links=[link])


async def test_jobs_newest_submitted_first(h: Harness) -> None:
    await h.put("a", "b")
    await h.put("c")
    await h.run("b")
    assert ids(await h.engine.jobs(Filter(), 10, None)) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (Filter(), "x~c1 x~c0 other due cancelled running parked failed successful"),
        (Filter(states=[State.READY]), "x~c0 other"),
        (Filter(states=[State.HELD]), "x~c1"),
        (Filter(states=[State.DUE, State.PARKED]), "due parked"),
        (Filter(states=[State.SUCCESSFUL, State.FAILED, State.CANCELLED]), "cancelled failed successful"),
        (Filter(states=[]), ""),
        (Filter(queue="p"), "due cancelled"),
        (Filter(task="other"), "other"),
        (Filter(task="never"), ""),
        (Filter(states=[State.DUE], queue="q"), ""),
        (Filter(states=[State.CANCELLED], queue="p", task="t"), "cancelled"),
    ],
    ids=str,
)
async def test_jobs_that_match(h: Harness, which: Filter, expected: str) -> None:
    await various(h)
    assert ids(await h.engine.jobs(which, 100, None)) == expected.split()


@needs("live_status")
async def test_jobs_that_run(h: Harness) -> None:
    await various(h)
    assert ids(await h.engine.jobs(Filter(states=[State.RUNNING]), 100, None)) == ["running"]


async def test_jobs_in_pages(h: Harness) -> None:
    names = [f"{i:02}" for i in range(23)]
    await h.put(*(record(name, "even" if i % 2 == 0 else "odd") for i, name in enumerate(names)))
    found: list[Row] = []
    while page := await h.engine.jobs(Filter(queue="even"), 5, found[-1].id if found else None):
        assert len(page) <= 5
        found += page
    assert ids(found) == names[::2][::-1]
    assert found[0] == await h.row("22")


async def test_counts(h: Harness) -> None:
    await various(h)
    counts = await h.engine.counts()
    seen = {queue: {state: n for state, n in states.items() if n} for queue, states in counts.queues.items()}
    assert seen == {
        "q": {State.READY: 2, State.RUNNING: 1, State.PARKED: 1, State.HELD: 1},
        "p": {State.DUE: 1},
    }
    assert {state: n for state, n in counts.ended.items() if n} == {
        State.SUCCESSFUL: 1,
        State.FAILED: 1,
        State.CANCELLED: 1,
    }


async def test_counts_of_nothing(h: Harness) -> None:
    counts = await h.engine.counts()
    assert not any(n for states in counts.queues.values() for n in states.values())
    assert not any(counts.ended.values())


async def test_counts_after_everything_has_ended_and_is_forgotten(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(50)))
    worker = await h.worker()
    await worker.settle(*(end(lease, ttl=0) for lease in await worker.claim(50)))
    counts = await h.engine.counts()
    assert not any(n for states in counts.queues.values() for n in states.values())
    assert not any(counts.ended.values())
    assert await h.engine.jobs(Filter(), 10, None) == []


# -- the fleet --------------------------------------------------------------------------------------------------------


async def test_workers_are_listed(h: Harness) -> None:
    for name in ("b", "c", "a"):
        await h.worker(name)
    assert sorted(row.id for row in await h.engine.workers()) == ["a", "b", "c"]


async def test_tasks_are_what_workers_have_announced(h: Harness) -> None:
    assert await h.engine.tasks() == {}
    await h.worker("one", tasks={"add": "q", "mail": "slow"})
    await h.worker("two", tasks={"mail": "fast", "zip": "q"})
    assert await h.engine.tasks() == {"add": "q", "mail": "fast", "zip": "q"}
    await h.engine.retire("one")
    await h.engine.retire("two")
    assert await h.engine.tasks() == {"add": "q", "mail": "fast", "zip": "q"}


# -- delete -----------------------------------------------------------------------------------------------------------


async def test_only_ended_jobs_can_be_deleted(h: Harness) -> None:
    await various(h)
    names = ["successful", "failed", "cancelled", "parked", "due", "other", "x~c1", "never", "running"]
    assert await h.engine.delete(names) == [True, True, True, False, False, False, False, False, False]
    assert ids(await h.engine.jobs(Filter(), 100, None)) == ["x~c1", "x~c0", "other", "due", "running", "parked"]
    assert not any((await h.engine.counts()).ended.values())
