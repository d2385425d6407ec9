"""A process dies between two calls of a pair, each two of them: nothing is lost, no id is doubled, order is kept.

Afterwards the leases end and a second engine, on the same pair, does all there is to do; what its handlers would have
seen is the evidence. Here: producers and workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.engines.split_world import (
    DAY,
    LEASE,
    Died,
    Fuse,
    World,
    chain,
    end,
    every_gap,
    group,
    record,
    step,
)

from tasqueue.core.record import Kind, Link, Record, Schedule, Tick
from tasqueue.core.status import State, Status
from tasqueue.testing.clock import ManualClock

# -- submit -----------------------------------------------------------------------------------------------------------


async def submit_then_again(world: World, records: list[Record], links: list[Link], died: bool) -> Counter[str]:
    """First what has come of it without the producer; then the producer says it again. How often each ran."""
    await world.go_on()
    once = Counter(world.ran)
    if not died:
        assert once == Counter({r.id: 1 for r in records})
    await world.healthy.submit(records, links)
    await world.go_on()
    await world.nothing_is_left()
    return once


async def test_submit_of_plain_jobs() -> None:
    def records(world: World) -> list[Record]:
        return [
            record("a"),
            record("b", "other", priority=5),
            record("later", due=world.clock.ms + 60_000),
            record("c"),
        ]

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        world.arm()
        return lambda: world.first.submit(records(world))

    async def check(world: World, died: bool) -> None:
        await submit_then_again(world, records(world), [], died)
        assert Counter(world.ran) == Counter(["a", "b", "later", "c"])
        assert [id for id in world.ran if id in "ac"] == ["a", "c"]

    assert await every_gap(scenario, check) >= 10


async def test_submit_of_a_chain() -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(4)
        world.arm()
        return lambda: world.first.submit(steps, [link])

    async def check(world: World, died: bool) -> None:
        steps, link = chain(4)
        names = [s.id for s in steps]
        once = await submit_then_again(world, steps, [link], died)
        assert once in (Counter(), Counter(names)), "neither all of it nor none of it"
        assert world.ran == names
        assert [world.prev[name] for name in names] == [None, *(name.encode() for name in names[:-1])]
        found = await world.healthy.get_link("c:x")
        assert found is not None
        assert (found.status, found.pos) == (Status.SUCCESSFUL, 4)

    assert await every_gap(scenario, check) >= 16


async def test_said_again_all_of_it_is_stored_when_the_call_returns() -> None:
    """Whatever an earlier call has left undone, and with no worker about (G1)."""

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(4)
        world.arm()
        return lambda: world.first.submit(steps, [link])

    async def check(world: World, died: bool) -> None:
        steps, link = chain(4)
        await world.healthy.submit(steps, [link])
        assert None not in await world.healthy.get([s.id for s in steps])
        await world.go_on()
        assert world.ran == [s.id for s in steps]
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 16


async def test_submit_of_a_group() -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        members, link = group(5)
        world.arm()
        return lambda: world.first.submit(members, [link])

    async def check(world: World, died: bool) -> None:
        members, link = group(5)
        names = [*(m.id for m in members), "x~s0", "x~s1"]
        await world.go_on()
        once = Counter(world.ran)
        assert once in (Counter(), Counter(names)), "neither all of it nor none of it"
        await world.healthy.submit(members, [link])
        await world.go_on()
        assert Counter(world.ran) == Counter(names)
        assert world.ran[-2:] == ["x~s0", "x~s1"]
        found = await world.healthy.get_link("g:x")
        assert found is not None
        assert (found.status, len(found.members)) == (Status.SUCCESSFUL, 5)
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 20


@pytest.mark.parametrize("nth", range(2, 9))
async def test_who_completes_a_chain_dies_too(nth: int) -> None:
    """The producer died, then the worker that was handed the expander; others run what is there before it returns."""

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(3)
        second, world.fuse = world.fuse, Fuse(nth, False)
        world.arm()
        with pytest.raises(Died):
            await world.first.submit(steps, [link])
        world.reborn(second)
        await world.healthy.register("third", LEASE, b"", {}, 1)
        return lambda: world.first.claim("third", 1, {"q": 9})

    async def check(world: World, died: bool) -> None:
        await world.run_all()
        await world.go_on()
        if not died:
            world.fuse.left = 1 << 40
            await world.first.retire("third")
            await world.go_on()
        found = await world.healthy.get_link("c:x")
        if found is None:
            assert world.ran == []
        else:
            assert world.ran == ["x~c0", "x~c1", "x~c2"]
            assert found.status is Status.SUCCESSFUL
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 4


# -- claim ------------------------------------------------------------------------------------------------------------


async def test_claim() -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(2)
        await world.healthy.submit([record("a"), *steps, record("b")], [link])
        await world.healthy.register("first", LEASE, b"", {}, 1)
        world.arm()
        return lambda: world.first.claim("first", 1, {"q": 10})

    async def check(world: World, died: bool) -> None:
        await world.go_on()
        assert Counter(world.ran) == Counter(["a", "b", "x~c0", "x~c1"])
        assert [id for id in world.ran if id != "x~c1"] == ["a", "x~c0", "b"], "the places are kept"
        assert all(deaths <= 1 for deaths in world.deaths.values())
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 10


async def test_claim_repeated_under_its_number() -> None:
    """The worker lives, only its call failed: the same number gives it all that it has, and nobody died."""

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a"), record("b")])
        await world.healthy.register("first", LEASE, b"", {}, 1)
        world.arm()
        return lambda: world.first.claim("first", 1, {"q": 10})

    async def check(world: World, died: bool) -> None:
        world.fuse.blown, world.fuse.left = False, 1 << 40
        found = list((await world.first.claim("first", 1, {"q": 10})).leases)
        again = list((await world.first.claim("first", 2, {"q": 10})).leases)
        leases = [*found, *again]
        if not leases:  # the reply of `consume` was lost: the broker thinks that we have them
            await world.first.beat("first", 1 << 40, b"")
            world.clock.advance(LEASE / 1000 + 1)
            leases = list((await world.first.claim("first", 3, {"q": 10})).leases)
        assert [(lease.id, lease.deaths) for lease in leases] == [("a", 0), ("b", 0)]
        assert await world.first.settle("first", [end(lease) for lease in leases]) == [True, True]
        await world.go_on()
        assert world.ran == []

    assert await every_gap(scenario, check) >= 8


# -- settle -----------------------------------------------------------------------------------------------------------


async def test_end_with_follow_ups() -> None:
    follow = (record("a~s0"), record("a~s1", "other"), record("a~s2", due=10**15))

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a"), record("b")])
        leases = await world.claim()
        world.arm()
        world.follow["a"] = follow
        return lambda: world.first.settle("first", [end(leases["a"], follow=follow), end(leases["b"])])

    async def check(world: World, died: bool) -> None:
        await world.go_on()
        runs = Counter(world.ran)
        assert [runs[f"a~s{i}"] for i in range(3)] == [1, 1, 1]
        assert runs["a"] <= died
        assert runs["b"] <= died
        saved = {row.result for row in await world.healthy.get(["a"]) if row}
        assert saved == {b"a" if runs["a"] else b"first a"}
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 20


async def test_an_end_that_is_forgotten_at_once() -> None:
    follow = (record("a~s0"),)

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a")])
        leases = await world.claim()
        world.arm()
        world.follow["a"] = follow
        return lambda: world.first.settle("first", [end(leases["a"], follow=follow, ttl=0)])

    async def check(world: World, died: bool) -> None:
        accepted = await world.state("a") is None
        await world.go_on()
        assert Counter(world.ran) == Counter(["a~s0"] if accepted else ["a", "a~s0"])

    assert await every_gap(scenario, check) >= 10


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED])
async def test_a_chain_step(state: State) -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(3)
        await world.healthy.submit(steps, [link])
        leases = await world.claim()
        world.arm()
        return lambda: world.first.settle("first", [end(leases["x~c0"], state)])

    async def check(world: World, died: bool) -> None:
        await world.go_on()
        found = await world.healthy.get_link("c:x")
        assert found is not None
        if await world.state("x~c0") is State.FAILED:
            assert (world.ran, found.status, found.pos) == ([], Status.FAILED, 0)
        else:
            assert world.ran in (["x~c1", "x~c2"], ["x~c0", "x~c1", "x~c2"])
            assert world.prev["x~c1"] == (b"first x~c0" if len(world.ran) == 2 else b"x~c0")
            assert (found.status, found.pos) == (Status.SUCCESSFUL, 3)
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 10


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED])
async def test_the_last_members_of_a_group(state: State) -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        members, link = group(3)
        await world.healthy.submit(members, [link])
        leases = await world.claim()
        await world.first.settle("first", [end(leases["x~g1"])])
        world.arm()
        return lambda: world.first.settle("first", [end(leases["x~g0"]), end(leases["x~g2"], state)])

    async def check(world: World, died: bool) -> None:
        await world.go_on()
        found = await world.healthy.get_link("g:x")
        assert found is not None
        assert found.status.final
        runs = Counter(world.ran)
        callbacks = [runs[f"x~{name}"] for name in ("s0", "s1", "e0")]
        assert callbacks == ([1, 1, 0] if found.status is Status.SUCCESSFUL else [0, 0, 1])
        assert runs["x~g1"] == 0
        saved = await world.healthy.results("g:x", 0, 10)
        assert [item and item.removeprefix(b"first ") for item in saved] == [b"x~g0", b"x~g1", b"x~g2"]
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 20


@pytest.mark.parametrize(
    ("kind", "state", "fields"),
    [
        (Kind.RETRY, State.DUE, {"delay": 5_000}),
        (Kind.RETRY, State.DUE, {}),
        (Kind.SNOOZE, State.DUE, {"delay": 60_000}),
        (Kind.RELEASE, State.READY, {}),
        (Kind.RELEASE, State.READY, {"died": True, "reason": "segfault"}),
        (Kind.PARK, State.PARKED, {"key": "task:t", "reason": "nobody knows it", "delay": DAY}),
    ],
)
async def test_a_step_that_puts_it_back(kind: Kind, state: State, fields: dict[str, Any]) -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a"), record("b")])
        leases = await world.claim()
        world.arm()
        steps = [step(lease, kind, state, **fields) for lease in leases.values()]
        return lambda: world.first.settle("first", steps)

    async def check(world: World, died: bool) -> None:
        start = world.clock.ms
        await world.go_on(t="q")
        assert Counter(world.ran) == Counter(["a", "b"])
        assert max(world.deaths.values()) <= died + bool(fields.get("died"))
        assert world.last_run - start < DAY, "a parked one is found by whoever knows its task"
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 5


async def test_settle_repeated_after_an_error() -> None:
    """The worker lives and says it again: accepted, and everything that follows is there once."""
    follow = (record("a~s0"),)

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(2)
        await world.healthy.submit([record("a"), *steps, record("r")], [link])
        leases = await world.claim()
        world.arm()
        back = step(leases["r"], Kind.RETRY, State.DUE, delay=100)
        what = [end(leases["a"], follow=follow), end(leases["x~c0"]), back]
        world.again = lambda: world.first.settle("first", what)
        return world.again

    async def check(world: World, died: bool) -> None:
        world.fuse.blown, world.fuse.left = False, 1 << 40
        assert world.again is not None
        assert await world.again() == [True, True, True]
        await world.go_on()
        assert Counter(world.ran) == Counter(["a~s0", "x~c1", "r"])
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 15


# -- schedules --------------------------------------------------------------------------------------------------------


async def test_fire() -> None:
    def tick(entry: Schedule) -> Tick:
        return Tick(
            entry.id, entry.next_at, entry.next_at, entry.next_at + 1000 * DAY, record(f"{entry.id}@{entry.next_at}")
        )

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        now = world.clock.ms
        for name in ("one", "two"):
            await world.healthy.put_schedule(Schedule(name, "@daily", "t", "q", 0, b"job", now, now))
        ticks = [tick(entry) for entry in await world.healthy.schedules(due=True)]
        world.arm()
        return lambda: world.first.fire(ticks)

    async def check(world: World, died: bool) -> None:
        ticks = [tick(entry) for entry in await world.healthy.schedules(due=True)]
        assert await world.healthy.fire(ticks) == [True] * len(ticks)
        await world.go_on()
        start = int(ManualClock().time() * 1000)
        assert Counter(world.ran) == Counter([f"one@{start}", f"two@{start}"])
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 12
