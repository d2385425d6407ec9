"""What is the memory engine's own: it leaves nothing behind, its orders hold, its fault points are reached."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasqueue import faults
from tasqueue.core.record import Kind, Link, Record, Schedule, Step, Tick
from tasqueue.core.status import State
from tasqueue.engines.memory import MemoryEngine
from tasqueue.engines.memory.order import Ledger, Line, Pile, Retention
from tasqueue.engines.memory.store import Job, Store
from tasqueue.testing.clock import ManualClock


class Bench:
    """An engine on a manual clock, with its store in sight."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store()
        self.engine = MemoryEngine(namespace="n", timeout=1.0, ports=self.clock.ports, store=self.store)

    async def drain(self, state: State, ttl: int) -> None:
        """Run everything there is to its end, in batches."""
        await self.engine.register("w", 1_000_000, b"", {}, 1)
        number = 0
        while True:
            number += 1
            leases = (await self.engine.claim("w", number, {"q": 50, "callbacks": 50})).leases
            if not leases:
                return
            await self.engine.settle(
                "w", [Step(lease.id, lease.claim, Kind.END, state, tail=b"t", ttl=ttl) for lease in leases]
            )

    def sizes(self) -> dict[str, int]:
        """How much the store holds of anything that grows with jobs."""
        store = self.store
        lanes = [lane for queue in store.queues.values() for lane in queue.line._lanes.values()]
        return {
            "jobs": len(store.jobs),
            "queues": len(store.queues),
            "ready": sum(len(lane.tail) + len(lane.back) + len(lane.back._heap) for lane in lanes),
            "parked": len(store.parked) + len(store.overdue) + len(store.overdue._heap),
            "ended": sum(map(len, store.ended.values())),
            "leaving": len(store.leaving) + len(store.leaving._buckets),
            "links": len(store.links) + len(store.leaving_links) + len(store.leaving_links._buckets),
            "held": sum(len(member.held) for member in store.workers.values()),
            "asked": len(store.asked),
            "sleepers": len(store.bells.waiting) + len(store.bells.watched),
        }


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED])
async def test_a_drain_leaves_nothing_behind_after_its_retention(state: State) -> None:
    bench = Bench()
    await bench.engine.submit([Record(f"{i}", "q", "t", b"", i % 3) for i in range(500)])
    for i in range(20):
        steps = [Record(f"c{i}~c{k}", "q", "t", b"", held=k > 0, link=f"c:{i}", pos=k) for k in range(3)]
        members = [Record(f"g{i}~g{k}", "q", "t", b"", link=f"g:{i}", pos=k) for k in range(3)]
        callbacks = (Record(f"g{i}~s0", "callbacks", "t", b""),)
        links = [Link(f"c:{i}", 3, (), (), 1_000, 1_000), Link(f"g:{i}", 3, callbacks, callbacks, 1_000, 1_000)]
        await bench.engine.submit([*steps, *members], links)
    await bench.drain(state, 1_000)
    bench.clock.advance(1.0)
    while await bench.engine.prune():
        pass
    assert bench.sizes() == dict.fromkeys(bench.sizes(), 0)


async def test_cancelled_and_given_back_jobs_leave_nothing_in_the_orders() -> None:
    bench = Bench()
    await bench.engine.register("w", 1_000_000, b"", {}, 1)
    for number in range(1, 101):
        later = bench.clock.ms + 60_000
        await bench.engine.submit(
            [Record(f"{number}-{i}", "q", "t", b"", due=later if i > 9 else None) for i in range(20)]
        )
        leases = (await bench.engine.claim("w", number, {"q": 10})).leases
        kinds = (Kind.RELEASE, Kind.PARK)
        steps = [
            Step(lease.id, lease.claim, kinds[i % 2], key="task:t", delay=60_000) for i, lease in enumerate(leases)
        ]
        assert all(await bench.engine.settle("w", steps))
        await bench.engine.cancel([f"{number}-{i}" for i in range(20)], 0)
    queue = bench.store.queues["q"]
    assert (len(queue.line), len(queue.due), len(bench.store.jobs)) == (0, 0, 0)
    assert len(queue.due._heap) <= 64
    assert bench.sizes()["ready"] <= 64
    assert bench.sizes()["parked"] <= 64
    await bench.engine.prune()
    assert bench.sizes()["queues"] == 0


async def test_a_closed_private_store_is_freed_with_its_engine() -> None:
    engine = MemoryEngine(namespace="n", timeout=1.0, ports=ManualClock().ports)
    await engine.submit([Record("a", "q", "t", b"")])
    store = weakref.ref(engine._store)
    await engine.close()
    del engine
    gc.collect()
    assert store() is None


async def test_a_repeated_end_that_forgot_its_job_is_accepted_while_it_is_remembered() -> None:
    bench = Bench()
    await bench.engine.register("w", 1_000_000, b"", {}, 1)
    await bench.engine.submit([Record(f"{i}", "q", "t", b"") for i in range(1_001)])
    leases = (await bench.engine.claim("w", 1, {"q": 2_000})).leases
    steps = [Step(lease.id, lease.claim, Kind.END, State.SUCCESSFUL, ttl=0) for lease in leases]
    assert await bench.engine.settle("w", steps) == [True] * 1_001
    assert await bench.engine.settle("w", steps) == [False] + [True] * 1_000


@pytest.fixture
def hits() -> Iterator[list[str]]:
    found: list[str] = []
    faults.record(found.append)
    yield found
    faults.record(None)


async def test_its_fault_points_are_hit_in_order(hits: list[str]) -> None:
    bench = Bench()
    engine = bench.engine
    await engine.submit([Record("a", "q", "t", b"", due=bench.clock.ms + 10)])
    assert hits == ["E2.before_write", "E3.written"]
    hits.clear()
    callbacks = (Record("x~s0", "callbacks", "t", b""),)
    await engine.submit([Record("x~g0", "q", "t", b"", link="g:x")], [Link("g:x", 1, callbacks)])
    assert hits == ["E2.before_write", "G1.record_written", "E3.written"]
    hits.clear()
    await bench.drain(State.SUCCESSFUL, 0)
    assert hits == [
        "W2.claimed", "G3.last_member", "G4.callback_enqueued", "W9.settled",
        "W2.claimed", "W9.settled",
    ]  # fmt: skip
    hits.clear()
    bench.clock.advance(1)
    await engine.promote()
    assert hits == ["M1.due_read", "M2.moved"]
    hits.clear()
    await engine.reclaim("w", "killed")
    assert hits == ["P1.expired_read", "P2.offered"]
    hits.clear()
    await engine.put_schedule(Schedule("s", "@hourly", "t", "q", 0, b"", 0, 1))
    await engine.fire([Tick("s", 1, 1, 2, Record("s@1", "q", "t", b""))])
    assert hits == ["S2.tick_inserted"]


async def test_a_fault_inside_a_step_leaves_the_whole_step_done() -> None:
    bench = Bench()
    await bench.engine.register("w", 1_000_000, b"", {}, 1)
    callbacks = (Record("x~s0", "callbacks", "t", b""),)
    await bench.engine.submit(
        [Record("x~g0", "q", "t", b"", link="g:x"), Record("b", "q", "t", b"")], [Link("g:x", 1, callbacks)]
    )
    leases = (await bench.engine.claim("w", 1, {"q": 2})).leases
    steps = [Step(lease.id, lease.claim, Kind.END, State.SUCCESSFUL) for lease in leases]
    faults.arm("G3:drop-reply")
    try:
        with pytest.raises(faults.ReplyDropped):
            await bench.engine.settle("w", steps)
    finally:
        faults.disarm()
    rows = await bench.engine.get(["x~g0", "b", "x~s0"])
    assert [row and row.state for row in rows] == [State.SUCCESSFUL, State.SUCCESSFUL, State.READY]
    assert await bench.engine.settle("w", steps) == [True, True]


# -- the orders -------------------------------------------------------------------------------------------------------


def job(ord: int, priority: int) -> Job:
    return Job(f"{ord}", "q", "t", b"", priority, None, None, "", 0, ord, ord)


@given(st.lists(st.tuples(st.sampled_from(["new", "take", "back", "remove"]), st.integers(0, 9)), max_size=80))
def test_a_line_is_a_sort_by_priority_and_place(acts: list[tuple[str, int]]) -> None:
    line: Line[Job] = Line()
    inside: list[Job] = []
    out: list[Job] = []
    for n, (act, k) in enumerate(acts):
        if act == "new":
            inside.append(job(n, k % 3))
            line.append(inside[-1])
        elif act == "take":
            expected, inside = inside[:k], inside[k:]
            assert line.take(k) == expected
            out += expected
        elif act == "back" and out:
            inside.append(out.pop(k % len(out)))
            line.put_back(inside[-1])
        elif act == "remove" and inside:
            line.remove(inside.pop(k % len(inside)))
        inside.sort(key=lambda one: (-one.priority, one.ord))
        assert list(line) == inside
        assert len(line) == len(inside)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200))
def test_a_pile_gives_the_smallest_first(acts: list[tuple[bool, int]]) -> None:
    pile: Pile[int, str] = Pile()
    inside: set[int] = set()
    for add, key in acts:
        if add and key not in inside:
            pile.add(key, f"{key}")
            inside.add(key)
        elif not add and key in inside:
            pile.remove(key)
            inside.remove(key)
        assert pile.first() == min(inside, default=None)
        assert [key for key, _ in pile] == sorted(inside)
    assert [pile.pop() for _ in range(len(pile))] == [f"{key}" for key in sorted(inside)]
    with pytest.raises(LookupError):
        pile.pop()


def test_a_pile_does_not_grow_with_what_was_taken_out() -> None:
    pile: Pile[int, int] = Pile()
    for key in range(10_000):
        pile.add(key, key)
        if key >= 10:
            pile.remove(key - 5)
    assert len(pile) == 10
    assert len(pile._heap) <= 2 * len(pile) + 65


def test_a_ledger_pages_by_number() -> None:
    ledger: Ledger[str] = Ledger()
    numbers = [ledger.add(f"{i}") for i in range(10)]
    for i in (0, 1, 5):
        ledger.remove(numbers[i])
    assert ledger.page(3, None) == ["9", "8", "7"]
    assert ledger.page(3, numbers[7]) == ["6", "4", "3"]
    assert ledger.page(3, numbers[3]) == ["2"]
    assert ledger.page(3, numbers[2]) == []
    assert len(ledger) == 7


def test_retention_keeps_what_is_not_over() -> None:
    retention = Retention()
    for i in range(5):
        retention.add(f"a{i}", 100, now=i)
    retention.add("b", 50, now=0)
    assert sorted(retention.over(102, 10)) == [("a0", 100), ("a1", 100), ("a2", 100), ("b", 50)]
    assert len(retention.over(102, 2)) == 2
    retention.remove("a1", 100)
    retention.remove("b", 50)
    assert sorted(retention.over(102, 10)) == [("a0", 100), ("a2", 100)]
    assert len(retention) == 4
