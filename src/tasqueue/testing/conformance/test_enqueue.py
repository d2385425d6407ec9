"""Submit: stored when it returns, once per id, all or nothing (G1, G13)."""

from __future__ import annotations

import pytest

from tasqueue.core.status import State

from .harness import SHORT, Harness, chain, end, group, ids, record

pytestmark = pytest.mark.asyncio


async def test_what_was_submitted_is_stored(h: Harness) -> None:
    await h.put(record("a", "queue", task="task", spec=b"spec", priority=7, prev=b"previous"))
    row = await h.row("a")
    assert (row.id, row.queue, row.task, row.spec, row.priority, row.prev) == (
        "a",
        "queue",
        "task",
        b"spec",
        7,
        b"previous",
    )
    assert (row.state, row.tail, row.result, row.ended_at, row.deaths) == (State.READY, b"", None, None, 0)


async def test_another_engine_on_the_store_sees_it(h: Harness) -> None:
    await h.put("a")
    other = await h.another()
    assert ids([row for row in await other.get(["a"]) if row]) == ["a"]


async def test_the_same_id_again_changes_nothing(h: Harness) -> None:
    await h.put(record("a", spec=b"first"))
    await h.put(record("a", "elsewhere", spec=b"second", priority=9))
    row = await h.row("a")
    assert (row.spec, row.queue, row.priority) == (b"first", "q", 0)
    assert await h.ready() == ["a"]
    assert await h.ready("elsewhere") == []


async def test_the_same_id_twice_in_a_batch_is_one_job(h: Harness) -> None:
    await h.put(record("a", spec=b"first"), record("b"), record("a", spec=b"second"))
    assert (await h.row("a")).spec == b"first"
    assert await h.ready() == ["a", "b"]


async def test_known_ids_in_a_batch_do_not_keep_the_others_out(h: Harness) -> None:
    await h.put("b")
    await h.put("a", "b", "c")
    assert await h.ready() == ["b", "a", "c"]


async def test_an_id_that_is_running_is_known(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    await h.put("a")
    assert await h.ready() == []
    assert await worker.settle(end(lease)) == [True]
    assert await h.state("a") is State.SUCCESSFUL


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED, State.CANCELLED])
async def test_an_id_that_has_ended_is_known(h: Harness, state: State) -> None:
    await h.put("a")
    await h.run("a", state)
    await h.put("a")
    assert await h.state("a") is state
    assert await h.ready() == []


async def test_an_id_that_was_deleted_is_new(h: Harness) -> None:
    await h.put(record("a", spec=b"first"))
    await h.run("a", result=b"saved")
    assert await h.engine.delete(["a"]) == [True]
    await h.put(record("a", spec=b"second"))
    row = await h.row("a")
    assert (row.spec, row.state, row.result, row.tail) == (b"second", State.READY, None, b"")
    assert await h.ready() == ["a"]


async def test_a_thousand_in_one_call_keep_their_order(h: Harness) -> None:
    names = [f"job-{i}" for i in range(1000)]
    await h.put(*names)
    assert await h.ready() == names


async def test_an_empty_submit(h: Harness) -> None:
    await h.put()
    assert await h.ready() == []


async def test_a_large_record(h: Harness) -> None:
    spec = bytes(range(256)) * 4096
    await h.put(record("large", spec=spec))
    assert (await h.row("large")).spec == spec
    assert (await (await h.worker()).take("large")).spec == spec


async def test_one_that_is_due_later_is_not_ready(h: Harness) -> None:
    due = await h.clock.now() + 60_000
    await h.put(record("later", due=due), "now")
    row = await h.row("later")
    assert (row.state, row.due) == (State.DUE, due)
    assert await h.ready() == ["now"]


async def test_one_whose_due_date_has_passed_is_ready(h: Harness) -> None:
    await h.put(record("a", due=await h.clock.now() - SHORT))
    assert await h.state("a") is State.READY
    assert await h.ready() == ["a"]


async def test_a_held_record_waits_for_its_chain(h: Harness) -> None:
    steps, link = chain("x", 3)
    await h.put(*steps, links=[link])
    assert await h.states("x~c0", "x~c1", "x~c2") == [State.READY, State.HELD, State.HELD]
    assert await h.ready() == ["x~c0"]


async def test_chains_groups_and_plain_jobs_in_one_call(h: Harness) -> None:
    steps, chained = chain("x", 2)
    members, grouped = group("y", 2)
    await h.put("a", *steps, *members, "b", links=[chained, grouped])
    assert await h.ready() == ["a", "x~c0", "y~g0", "y~g1", "b"]
    assert ((await h.link("c:x")).n, (await h.link("g:y")).n) == (2, 2)


async def test_a_link_that_exists_keeps_all_of_its_records_out(h: Harness) -> None:
    members, link = group("x", 2)
    await h.put(*members, links=[link])
    bigger, again = group("x", 3)
    await h.put(*bigger, "alone", links=[again])
    assert (await h.link("g:x")).n == 2
    assert await h.ready() == ["x~g0", "x~g1", "alone"]


async def test_a_record_whose_link_is_not_submitted_with_it_is_not_stored(h: Harness) -> None:
    members, link = group("x", 2)
    await h.put(*members, "alone")
    assert await h.states("x~g0", "x~g1", "alone") == [None, None, State.READY]
    assert await h.engine.get_link(link.key) is None


async def test_a_link_that_was_forgotten_is_new_though_its_jobs_are_still_kept(h: Harness) -> None:
    steps, link = chain("x", 2, result_ttl=0)
    await h.put(*steps, links=[link])
    await h.run("x~c0", result=b"old")
    await h.run("x~c1")
    assert await h.engine.get_link("c:x") is None
    assert await h.states("x~c0", "x~c1") == [State.SUCCESSFUL, State.SUCCESSFUL]

    await h.put(*steps, links=[link])
    assert await h.states("x~c0", "x~c1") == [State.READY, State.HELD]
    await h.run("x~c0", result=b"new")
    assert (await h.row("x~c1")).prev == b"new"
