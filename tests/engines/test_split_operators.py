"""A process dies between two calls of a pair while it hands back, cancels, reopens, deletes: repeated, it is as if it
had not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from tests.engines.split_world import (
    DAY,
    LEASE,
    World,
    chain,
    end,
    every_gap,
    group,
    record,
    step,
)

from tasqueue.core.record import Kind
from tasqueue.core.status import State, Status

# -- leases and operators ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["retire", "reclaim"])
async def test_handing_back(verb: str) -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a"), record("b"), record("c")])
        await world.claim()
        world.arm()
        return lambda: getattr(world.first, verb)("first")

    async def check(world: World, died: bool) -> None:
        await world.go_on()
        assert world.ran == ["a", "b", "c"]
        assert max(world.deaths.values()) <= 1
        if verb == "retire" and not died:
            assert set(world.deaths.values()) == {0}

    assert await every_gap(scenario, check) >= 5


async def test_register_that_unparks() -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a"), record("b")])
        leases = await world.claim()
        parked = [step(one, Kind.PARK, State.PARKED, key="task:t", delay=DAY) for one in leases.values()]
        await world.first.settle("first", parked)
        world.arm()
        return lambda: world.first.register("knows", LEASE, b"", {"t": "q"}, 1)

    async def check(world: World, died: bool) -> None:
        start = world.clock.ms
        await world.go_on(t="q")
        assert Counter(world.ran) == Counter(["a", "b"])
        assert world.last_run - start < DAY

    assert await every_gap(scenario, check) >= 10


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("which", ["x~c0", "x~c1", "a", "x~g1"])
async def test_cancel(which: str, again: bool) -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, chained = chain(3)
        members, grouped = group(2)
        await world.healthy.submit([record("a"), *steps, *members], [chained, grouped])
        world.arm()
        return lambda: world.first.cancel([which], None)

    async def check(world: World, died: bool) -> None:
        if again:
            await world.healthy.cancel([which], None)
            found = await world.healthy.get_link("c:x")
            assert found is not None
            assert found.status.final is which.startswith("x~c"), "at once"
        await world.go_on()
        runs = Counter(world.ran)
        cancelled = await world.state(which) is State.CANCELLED
        assert cancelled or not again
        assert runs[which] == (not cancelled)
        assert max(runs.values()) == 1
        links = [await world.healthy.get_link(key) for key in ("c:x", "g:x")]
        assert [link and link.status.value for link in links] == [
            "cancelled" if cancelled and which.startswith("x~c") else "successful",
            "failed" if cancelled and which == "x~g1" else "successful",
        ]
        assert (runs["x~s0"], runs["x~e0"]) == ((0, 1) if cancelled and which == "x~g1" else (1, 0))
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 5


@pytest.mark.parametrize("key", ["c:x", "g:x"])
async def test_cancel_link(key: str) -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, chained = chain(3)
        members, grouped = group(3)
        await world.healthy.submit([*steps, *members], [chained, grouped])
        world.arm()
        return lambda: world.first.cancel_link(key, None)

    async def check(world: World, died: bool) -> None:
        await world.healthy.cancel_link(key, None)
        await world.go_on()
        found = await world.healthy.get_link(key)
        assert found is not None
        assert found.status is (Status.CANCELLED if key == "c:x" else Status.FAILED)
        runs = Counter(world.ran)
        assert max(runs.values()) == 1
        assert [name for name in runs if name.startswith(f"x~{key[0]}")] == [], "each was still waiting"
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 10


@pytest.mark.parametrize("id", ["a", "x~c1", "x~g0"])
async def test_reopen(id: str) -> None:
    """The first generation's follow-ups are due, too: the failed group's callback has run before."""

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, chained = chain(3)
        members, grouped = group(2)
        await world.healthy.submit([record("a"), *steps, *members], [chained, grouped])
        leases = await world.claim()
        await world.first.settle("first", [end(leases["x~c0"])])
        leases |= {one.id: one for one in (await world.first.claim("first", 2, {"q": 9})).leases}
        await world.first.settle("first", [end(leases[name], State.FAILED) for name in ("a", "x~c1", "x~g0")])
        await world.first.settle("first", [end(leases["x~g1"])])
        world.arm()
        (row,) = await world.healthy.get([id])
        assert row is not None
        world.ended_at = row.ended_at or 0
        return lambda: world.first.reopen(id, row.ended_at or 0, b"again")

    async def check(world: World, died: bool) -> None:
        if await world.state(id) is State.FAILED:
            await world.healthy.reopen(id, world.ended_at, b"again")
        await world.go_on()
        runs = Counter(world.ran)
        assert runs[id] == 1
        assert max(runs.values()) == 1
        assert (runs["x~e0"], runs["x~s0.1"]) == (1, id == "x~g0")
        links = [await world.healthy.get_link(key) for key in ("c:x", "g:x")]
        assert [link and link.status.value for link in links] == [
            "successful" if id == "x~c1" else "failed",
            "successful" if id == "x~g0" else "failed",
        ]
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 10


async def test_reopen_of_a_later_step() -> None:
    """It goes back to being held, and the chain goes on from where it is."""

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(3)
        await world.healthy.submit(steps, [link])
        leases = await world.claim()
        await world.first.cancel(["x~c2"], None)
        await world.first.settle("first", [end(leases["x~c0"])])
        (row,) = await world.healthy.get(["x~c2"])
        assert row is not None
        world.ended_at = row.ended_at or 0
        world.arm()
        return lambda: world.first.reopen("x~c2", world.ended_at, b"again")

    async def check(world: World, died: bool) -> None:
        await world.healthy.reopen("x~c2", world.ended_at, b"again")
        await world.go_on()
        assert world.ran == ["x~c1", "x~c2"]
        found = await world.healthy.get_link("c:x")
        assert found is not None
        assert found.status is Status.SUCCESSFUL
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 8


async def test_delete_and_prune() -> None:
    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(2)
        link.failed_ttl = 500
        await world.healthy.submit([record("a"), record("b"), *steps], [link])
        leases = await world.claim()
        ends = [end(leases[name], ttl=1000) for name in "ab"]
        await world.first.settle("first", [*ends, end(leases["x~c0"], State.FAILED, ttl=1000)])
        world.arm()

        async def both() -> None:
            await world.first.delete(["a"])
            world.clock.advance(1.5)
            await world.first.prune()

        return both

    async def check(world: World, died: bool) -> None:
        await world.healthy.delete(["a"])
        world.clock.advance(1.5)
        await world.healthy.prune()
        assert await world.healthy.get(["a", "b", "x~c0"]) == [None] * 3
        assert await world.healthy.get_link("c:x") is None
        await world.go_on()
        assert world.ran == []
        await world.healthy.submit([record("a"), record("b")])
        await world.go_on()
        assert world.ran == ["a", "b"], "the ids are new again"

    assert await every_gap(scenario, check) >= 15
