"""Somebody else acts, from beginning to end, between two calls of a pair: of two decisions one stands, and all follows
from it.

In the first tests the one process has died at some call, and the other comes before anybody was handed its message
again.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from tests.engines.split_world import (
    LEASE,
    LONG,
    Died,
    World,
    chain,
    end,
    every_gap,
    every_meeting,
    group,
    record,
)

from tasqueue.core.status import State, Status
from tasqueue.interfaces import WorkerGone

# -- somebody else acts in the gap ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["delete", "reopen", "prune"])
async def test_what_follows_is_done_before_an_end_is_undone_or_forgotten(verb: str) -> None:
    """The settler dies; before anybody is handed its message again, an operator comes."""
    follow = (record("a~e0"),)

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a")])
        leases = await world.claim()
        world.arm()
        return lambda: world.first.settle("first", [end(leases["a"], State.FAILED, follow=follow, ttl=2_000)])

    async def check(world: World, died: bool) -> None:
        (row,) = await world.healthy.get(["a"])
        assert row is not None
        accepted = row.state is State.FAILED
        if verb == "delete":
            assert await world.healthy.delete(["a"]) == [accepted]
        elif verb == "reopen":
            assert await world.healthy.reopen("a", row.ended_at or 0, b"again") is accepted
        else:
            world.clock.advance(2.5)
            await world.healthy.prune()
        await world.go_on()
        reruns = verb == "reopen" or not accepted
        assert Counter(world.ran) == Counter(["a~e0"] * accepted + ["a"] * reruns)
        await world.nothing_is_left()

    assert await every_gap(scenario, check) >= 10


async def test_follow_ups_that_are_over_and_forgotten_do_not_come_again() -> None:
    """They run, and are forgotten at once, before the message of their cause is offered again."""
    follow = (record("a~s0"), record("a~s1", "other"))

    async def scenario(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a")])
        leases = await world.claim()
        world.arm()
        world.follow["a"] = follow
        return lambda: world.first.settle("first", [end(leases["a"], follow=follow, ttl=0)])

    async def check(world: World, died: bool) -> None:
        world.ttl = 0
        await world.run_all()
        await world.go_on()
        runs = Counter(world.ran)
        assert (runs["a~s0"], runs["a~s1"]) == (1, 1)
        assert runs["a"] <= died

    assert await every_gap(scenario, check) >= 10


async def test_an_old_owner_settles_while_a_new_one_runs() -> None:
    """Of two that both believe to hold the job exactly one is accepted, and only its follow-ups come."""

    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(2)
        await world.healthy.submit([record("a"), *steps], [link])
        leases = await world.claim()
        world.arm()
        world.follow["a"] = (record("a~new"),)
        ends = [end(leases["a"], follow=(record("a~old"),)), end(leases["x~c0"])]

        async def settle() -> None:
            world.accepted = await world.first.settle("first", ends)

        return settle

    async def check(world: World) -> None:
        await world.go_on()
        runs = Counter(world.ran)
        assert [runs["a"] == 0, runs["x~c0"] == 0] == world.accepted
        assert (runs["a~old"], runs["a~new"]) == ((1, 0) if world.accepted[0] else (0, 1))
        assert runs["x~c1"] == 1
        assert world.prev["x~c1"] == (b"first x~c0" if world.accepted[1] else b"x~c0")
        await world.nothing_is_left()

    assert await every_meeting(prepare, World.go_on, check) >= 15


async def test_who_sees_that_a_member_has_ended_finds_what_it_saved() -> None:
    seen: list[tuple[int, bytes | None]] = []

    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        members, link = group(2)
        await world.healthy.submit(members, [link])
        leases = await world.claim()
        world.arm()
        return lambda: world.first.settle("first", [end(lease) for lease in leases.values()])

    async def look(world: World) -> None:
        found = await world.healthy.get_link("g:x")
        saved = await world.healthy.results("g:x", 0, 2)
        assert found is not None
        seen.extend((pos, saved[pos]) for pos in found.members)

    async def check(world: World) -> None:
        await look(world)

    assert await every_meeting(prepare, look, check) >= 10
    assert set(seen) == {(0, b"first x~g0"), (1, b"first x~g1")}


async def test_a_worker_is_declared_dead_while_it_claims() -> None:
    """Either who declares it so can see what it holds, or it learns of it and has taken nothing."""
    held = 0
    claimed: list[str] = []

    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        await world.healthy.submit([record("a"), record("b")])
        await world.healthy.register("first", LEASE, b"", {}, 1)
        world.arm()
        claimed.clear()

        async def claim() -> None:
            with contextlib.suppress(WorkerGone):
                claimed.extend(lease.id for lease in (await world.first.claim("first", 1, {"q": 10})).leases)

        return claim

    async def meanwhile(world: World) -> None:
        nonlocal held
        held = (await world.healthy.workers())[0].held
        assert await world.healthy.reclaim("first", "declared dead") == ["first"]

    async def check(world: World) -> None:
        if await world.healthy.workers():
            return  # nobody came
        assert len(claimed) == held
        await (world.go_on() if claimed else world.run_all())
        assert world.ran == ["a", "b"]
        assert set(world.deaths.values()) == {int(held > 0)}
        await world.nothing_is_left()

    assert await every_meeting(prepare, meanwhile, check) >= 5


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("id", ["x~c0", "x~g0"])
async def test_a_late_repetition_meets_a_reopening(id: str, runs: bool) -> None:
    """The settler died. Who is handed the message again tells the chain or group, while somebody reopens the job."""

    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        steps, chained = chain(2)
        members, grouped = group(2)
        await world.healthy.submit([*steps, *members], [chained, grouped])
        leases = await world.claim()
        await world.first.settle("first", [end(leases["x~g1"])])
        world.arm()
        world.fuse.left, world.fuse.after = 4, False  # the worker, the record, the record's write; then no more
        with pytest.raises(Died):
            await world.first.settle("first", [end(leases[id], State.FAILED)])
        assert await world.state(id) is State.FAILED
        await world.end_leases()
        world.reborn()
        await world.first.register("third", LONG, b"", {}, 1)
        return lambda: world.first.claim("third", 1, {"q": 9})

    async def meanwhile(world: World) -> None:
        (row,) = await world.healthy.get([id])
        assert row is not None
        if await world.healthy.reopen(id, row.ended_at or 0, b"again") and runs:
            await world.run_all()

    async def check(world: World) -> None:
        await world.first.retire("third")
        reopened = (await world.state(id)) is not State.FAILED
        await world.go_on()
        found = await world.healthy.get_link("c:x" if id == "x~c0" else "g:x")
        assert found is not None
        assert found.status is (Status.SUCCESSFUL if reopened else Status.FAILED)
        assert max(Counter(world.ran).values()) == 1
        await world.nothing_is_left()

    assert await every_meeting(prepare, meanwhile, check) >= 10


async def test_a_chain_is_cancelled_while_its_step_ends() -> None:
    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(3)
        await world.healthy.submit(steps, [link])
        leases = await world.claim()
        world.arm()
        return lambda: world.first.settle("first", [end(leases["x~c0"])])

    async def check(world: World) -> None:
        await world.go_on()
        found = await world.healthy.get_link("c:x")
        assert found is not None
        if found.status is Status.CANCELLED:
            assert world.ran == []
        else:
            assert world.ran == ["x~c1", "x~c2"]
        await world.nothing_is_left()

    assert await every_meeting(prepare, lambda world: world.healthy.cancel_link("c:x", None), check) >= 10


async def test_one_id_from_two_producers() -> None:
    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        steps, link = chain(2)
        world.arm()
        return lambda: world.first.submit([record("a"), *steps], [link])

    async def meanwhile(world: World) -> None:
        steps, link = chain(2)
        await world.healthy.submit([record("a"), *steps], [link])
        await world.run_all()

    async def check(world: World) -> None:
        await world.go_on()
        assert Counter(world.ran) == Counter(["a", "x~c0", "x~c1"])
        await world.nothing_is_left()

    assert await every_meeting(prepare, meanwhile, check) >= 10


async def test_an_id_that_is_run_and_forgotten_while_another_submits_it() -> None:
    """Over before the first look, the id is new; after that the submit is a no-op, though its message is out."""

    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        world.arm()
        return lambda: world.first.submit([record("a")])

    async def meanwhile(world: World) -> None:
        world.ttl = 0
        await world.healthy.submit([record("a")])
        await world.run_all()

    async def check(world: World) -> None:
        await world.go_on()
        assert world.ran == (["a", "a"] if world.nth == 1 else ["a"])

    assert await every_meeting(prepare, meanwhile, check) >= 4


async def test_a_member_runs_before_the_producer_has_written_all() -> None:
    """The expander and the first jobs are run by the other process while the producer stands still, then goes on."""

    async def prepare(world: World) -> Callable[[], Awaitable[object]]:
        members, link = group(4)
        steps, chained = chain(3)
        world.arm()
        return lambda: world.first.submit([*steps, *members], [chained, link])

    async def check(world: World) -> None:
        await world.go_on()
        assert Counter(world.ran) == Counter(["x~c0", "x~c1", "x~c2", "x~g0", "x~g1", "x~g2", "x~g3", "x~s0", "x~s1"])
        await world.nothing_is_left()

    assert await every_meeting(prepare, World.go_on, check) >= 20
