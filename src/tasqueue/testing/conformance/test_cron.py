"""Schedules: stored once, fired once per tick whoever promotes it, gone when deleted (G7)."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from tasqueue.core.codec import encode_spec
from tasqueue.core.job import Job
from tasqueue.core.record import Schedule, Tick
from tasqueue.core.status import State

from .harness import Harness, record

pytestmark = pytest.mark.asyncio


def entry(id: str = "s", next_at: int = 1_000, **fields: Any) -> Schedule:
    fields.setdefault("job", encode_spec(Job("t", b"payload"), 1))
    return Schedule(id, "@every 1s", "t", "q", 0, anchor=0, next_at=next_at, **fields)


def tick(expect: int = 1_000, id: str = "s", step: int = 1_000) -> Tick:
    return Tick(id, expect, expect, expect + step, record(f"{id}@{expect}"))


async def test_it_is_stored_as_it_is(h: Harness) -> None:
    stored = Schedule("s", "0 3 * * *", "task", "queue", -7, b"job", anchor=5, next_at=6, last_at=4)
    assert await h.engine.put_schedule(stored) is True
    assert await h.engine.schedules() == [stored]


async def test_the_same_again_changes_nothing(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    await h.engine.fire([tick()])
    before = await h.engine.schedules()
    assert await h.engine.put_schedule(entry(next_at=9_999)) is False
    assert await h.engine.schedules() == before


async def test_when_its_job_was_made_does_not_make_it_another(h: Harness) -> None:
    await h.engine.put_schedule(entry(job=encode_spec(Job("t", b"payload"), 1)))
    assert await h.engine.put_schedule(entry(job=encode_spec(Job("t", b"payload"), 2))) is False


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "@every 2s"},
        {"task": "other"},
        {"queue": "other"},
        {"job": encode_spec(Job("t", b"another payload"), 1)},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_another_under_the_same_id_replaces_it(h: Harness, change: dict[str, Any]) -> None:
    await h.engine.put_schedule(entry())
    changed = replace(entry(next_at=7_000), **change)
    assert await h.engine.put_schedule(changed) is True
    assert await h.engine.schedules() == [changed]


async def test_they_are_listed_by_id(h: Harness) -> None:
    for name in ("b", "c", "a", "d"):
        await h.engine.put_schedule(entry(name))
    assert [one.id for one in await h.engine.schedules()] == ["a", "b", "c", "d"]
    assert [one.id for one in await h.engine.schedules(limit=2)] == ["a", "b"]


async def test_the_due_ones_earliest_first(h: Harness) -> None:
    now = await h.clock.now()
    for name, at in (("a", now - 10), ("b", now + 60_000), ("c", now - 30), ("d", now - 20)):
        await h.engine.put_schedule(entry(name, at))
    assert [one.id for one in await h.engine.schedules(due=True)] == ["c", "d", "a"]
    assert [one.id for one in await h.engine.schedules(due=True, limit=1)] == ["c"]


async def test_a_tick_inserts_its_job_and_moves_the_schedule(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    assert await h.engine.fire([tick()]) == [True]
    (stored,) = await h.engine.schedules()
    assert (stored.next_at, stored.last_at, stored.anchor) == (2_000, 1_000, 0)
    assert await h.ready() == ["s@1000"]


async def test_promote_says_when_the_next_tick_is(h: Harness) -> None:
    now = await h.clock.now()
    await h.engine.put_schedule(entry("a", now + 50_000))
    await h.engine.put_schedule(entry("b", now + 40_000))
    assert await h.engine.promote() == now + 40_000
    await h.put(record("due", due=now + 30_000))
    assert await h.engine.promote() == now + 30_000
    await h.engine.cancel(["due"], None)
    await h.engine.delete_schedule("b")
    assert await h.engine.promote() == now + 50_000


async def test_a_tick_that_has_come_is_named_until_it_is_fired(h: Harness) -> None:
    now = await h.clock.now()
    await h.engine.put_schedule(entry("a", now - 500))
    assert await h.engine.promote() == now - 500
    assert await h.ready() == []
    await h.engine.fire([Tick("a", now - 500, now - 500, now + 60_000, record("a@1"))])
    assert await h.engine.promote() == now + 60_000


async def test_a_tick_that_does_not_stand_inserts_nothing(h: Harness) -> None:
    await h.engine.put_schedule(entry(next_at=5_000))
    assert await h.engine.fire([tick(1_000)]) == [False]
    (stored,) = await h.engine.schedules()
    assert (stored.next_at, stored.last_at) == (5_000, None)
    assert await h.get("s@1000") is None


async def test_a_tick_of_a_deleted_schedule_inserts_nothing(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    assert await h.engine.delete_schedule("s") is True
    assert await h.engine.fire([tick()]) == [False]
    assert await h.engine.schedules() == []
    assert await h.get("s@1000") is None


async def test_deleting_one_leaves_its_jobs_and_the_others(h: Harness) -> None:
    await h.engine.put_schedule(entry("a"))
    await h.engine.put_schedule(entry("b"))
    await h.engine.fire([tick(id="a")])
    assert await h.engine.delete_schedule("a") is True
    assert await h.engine.delete_schedule("never") is False
    assert [one.id for one in await h.engine.schedules()] == ["b"]
    assert await h.ready() == ["a@1000"]


async def test_a_tick_whose_job_exists_only_moves_the_schedule(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    await h.put(record("s@1000", spec=b"there already"))
    await h.run("s@1000")
    assert await h.engine.fire([tick()]) == [True]
    assert await h.state("s@1000") is State.SUCCESSFUL
    assert await h.ready() == []


async def test_several_ticks_in_one_call(h: Harness) -> None:
    await h.engine.put_schedule(entry("a"))
    await h.engine.put_schedule(entry("b", 9_000))
    await h.engine.put_schedule(entry("c"))
    assert await h.engine.fire([tick(id="a"), tick(id="b"), tick(id="never"), tick(id="c")]) == [
        True,
        False,
        False,
        True,
    ]
    assert await h.ready() == ["a@1000", "c@1000"]


async def test_of_two_who_fire_the_same_tick_one_does(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    other = await h.another()
    assert sorted(await h.engine.fire([tick()]) + await other.fire([tick()])) == [False, True]
    assert await h.ready() == ["s@1000"]


async def test_one_tick_after_another(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    for at in (1_000, 2_000, 3_000):
        assert await h.engine.fire([tick(at)]) == [True]
    assert await h.ready() == ["s@1000", "s@2000", "s@3000"]


async def test_the_job_of_a_tick_goes_where_its_record_says(h: Harness) -> None:
    await h.engine.put_schedule(entry())
    await h.engine.fire([Tick("s", 1_000, 1_000, 2_000, record("s@1", "other", priority=5))])
    row = await h.row("s@1")
    assert (row.queue, row.priority, row.state) == ("other", 5, State.READY)
