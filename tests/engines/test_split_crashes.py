"""A process dies between two calls of a pair, each two of them: nothing is lost, no id is doubled, order is kept.

Every scenario is a call of the engine. It is made again and again, each time in a fresh world, and dies at its first,
second, third … call of the broker or the results, either just before that call or just after it was carried out. So
no gap is forgotten: the counting ends with the run in which nobody died. Then the leases end and a second engine, on
the same pair, does all there is to do; what its handlers would have seen is the evidence. In the last part nobody dies,
but somebody else acts in the gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from tasqueue.core.record import Kind, Lease, Link, Record, Schedule, Step, Tick
from tasqueue.core.status import State, Status
from tasqueue.engines.split import SplitEngine
from tasqueue.testing.clock import ManualClock
from tasqueue.testing.pair import MemoryBroker, MemoryResults

LEASE = 10_000
LONG = 1 << 50
QUEUES = ("q", "other", "callbacks")
DAY = 86_400_000


class Died(Exception):
    """The process is gone."""


class Fuse:
    """Blows at the n-th call; from then on the process is dead and calls nobody."""

    def __init__(self, nth: int, after: bool) -> None:
        self.left = nth
        self.after = after
        self.blown = False

    async def call(self, method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        if self.blown:
            raise Died
        self.left -= 1
        if self.left:
            return await method(*args, **kwargs)
        self.blown = True
        if self.after:
            await method(*args, **kwargs)
        raise Died


class Doomed:
    """A half of a pair, as seen by a process that will die."""

    def __init__(self, half: object, fuse: Fuse) -> None:
        self._half = half
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._half, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._fuse.call(method, *args, **kwargs)

        return call


class World:
    """A pair, a clock, and two processes: one that dies, one that goes on."""

    def __init__(self, nth: int, after: bool) -> None:
        self.clock = ManualClock(seed=nth)
        self.broker, self.results = MemoryBroker(self.clock.time), MemoryResults(self.clock.time)
        self.nth = nth
        self.fuse = Fuse(nth, after)
        self.healthy = SplitEngine(self.broker, self.results, ports=self.clock.ports)
        self.first: SplitEngine = self.healthy
        self.ran: list[str] = []
        """Ids, in the order in which the second process ran them."""
        self.number = 0
        self.ttl: int | None = None
        self.accepted: list[bool] = []
        self.ended_at = 0
        self.again: Callable[[], Awaitable[object]] | None = None
        self.last_run = 0
        self.prev: dict[str, bytes | None] = {}
        self.deaths: dict[str, int] = {}
        self.follow: dict[str, tuple[Record, ...]] = {}

    def arm(self) -> None:
        """From now on the first process counts its calls. What it holds it goes on holding."""
        doomed: Any = [Doomed(half, self.fuse) for half in (self.broker, self.results)]
        self.first = SplitEngine(*doomed, ports=self.clock.ports)
        self.first._hands, self.first._parked = self.healthy._hands, self.healthy._parked
        self.healthy = SplitEngine(self.broker, self.results, ports=self.clock.ports)

    async def claim(self, *queues: str) -> dict[str, Lease]:
        """By the worker "first", in the process that will die."""
        await self.first.register("first", LEASE, b"", {}, 1)
        claim = await self.first.claim("first", 1, dict.fromkeys(queues or QUEUES, 100))
        return {lease.id: lease for lease in claim.leases}

    async def end_leases(self) -> None:
        """Everybody's lease ends; somebody looks every second."""
        for _ in range(LEASE // 1000 + 3):
            self.clock.advance(1.0)
            await self.healthy.reclaim()

    def reborn(self, fuse: Fuse | None = None) -> None:
        """The first process is started again, with another fuse or none."""
        self.fuse = fuse or Fuse(1 << 40, False)
        doomed: Any = [Doomed(half, self.fuse) for half in (self.broker, self.results)]
        self.first = SplitEngine(*doomed, ports=self.clock.ports)

    async def meet(
        self, nth: int, act: Callable[[], Awaitable[object]], meanwhile: Callable[[World], Awaitable[object]]
    ) -> bool:
        """The first process acts, and before its n-th call `meanwhile` is done. Whether it made so many calls."""
        calls, met = count(1), False

        async def call(method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
            nonlocal met
            if next(calls) == nth:
                await meanwhile(self)
                met = True
            return await method(*args, **kwargs)

        self.fuse.call = call  # type: ignore[method-assign]
        await act()
        return met

    async def go_on(self, **tasks: str) -> None:
        """The leases end; then the second process does all there is."""
        await self.end_leases()
        await self.run_all(**tasks)

    async def run_all(self, **tasks: str) -> None:
        """The second process: a worker that runs all there is, and moves the clock to what is due later."""
        engine = self.healthy
        await engine.register("second", LONG, b"", tasks, 1)
        empty = 0
        while True:
            self.number += 1
            claim = await engine.claim("second", self.number, dict.fromkeys(QUEUES, 3))
            for lease in claim.leases:
                self.ran.append(lease.id)
                self.last_run = self.clock.ms
                self.prev[lease.id], self.deaths[lease.id] = lease.prev, lease.deaths
                step = Step(lease.id, lease.claim, Kind.END, State.SUCCESSFUL, b"tail", lease.id.encode())
                step.follow, step.ttl = self.follow.get(lease.id, ()), self.ttl
                assert await engine.settle("second", [step]) == [True]
            # Finishing what somebody has left undone can bring new work, so once nothing comes, look once more.
            empty = 0 if claim.leases else empty + 1
            if empty > 2 and claim.next_due is None:
                return
            if empty > 2 and claim.next_due is not None:
                self.clock.advance(max(0.0, (claim.next_due - self.clock.ms) / 1000))

    async def state(self, id: str) -> State | None:
        (row,) = await self.healthy.get([id])
        return row and row.state

    async def nothing_is_left(self) -> None:
        """Each stored job has ended, or is held back by a chain that has; and each is listed once where it belongs."""
        counts = await self.healthy.counts()
        waiting = {queue: states for queue, states in counts.queues.items() if set(states) - {State.HELD}}
        assert waiting == {}
        for state in (State.SUCCESSFUL, State.FAILED, State.CANCELLED):
            listed = await self.healthy.ended(state, 1000, None)
            assert Counter(listed).total() == len(set(listed)) == counts.ended[state]


def record(id: str, queue: str = "q", **fields: Any) -> Record:
    return Record(id, queue, "t", b"spec of " + id.encode(), **fields)


def chain(n: int = 3) -> tuple[list[Record], Link]:
    return [record(f"x~c{i}", held=i > 0, link="c:x", pos=i) for i in range(n)], Link("c:x", n)


def group(n: int = 3) -> tuple[list[Record], Link]:
    members = [record(f"x~g{i}", ("q", "other")[i % 2], link="g:x", pos=i) for i in range(n)]
    callbacks = (record("x~s0", "callbacks"), record("x~s1", "callbacks"))
    return members, Link("g:x", n, on_success=callbacks, on_error=(record("x~e0", "callbacks"),))


def end(lease: Lease, state: State = State.SUCCESSFUL, **fields: Any) -> Step:
    fields.setdefault("result", b"first " + lease.id.encode())
    return step(lease, Kind.END, state, **fields)


def step(lease: Lease, kind: Kind, state: State, **fields: Any) -> Step:
    return Step(lease.id, lease.claim, kind, state, b"tail", link=lease.link, pos=lease.pos, **fields)


Scenario = Callable[[World], Awaitable[Callable[[], Awaitable[object]]]]
Check = Callable[[World, bool], Awaitable[None]]


async def every_gap(scenario: Scenario, check: Check) -> int:
    """Run a scenario (which prepares, and returns the call that is to die) with a death at each gap. How many gaps."""
    gaps = 0
    for after in (False, True):
        for nth in range(1, 500):
            world = World(nth, after)
            act = await scenario(world)
            try:
                await act()
            except Died:
                assert world.fuse.blown
            died = world.fuse.blown
            try:
                await check(world, died)
            except BaseException as error:
                error.add_note(
                    f"the process died {'after' if after else 'before'} call {nth}" if died else "nobody died"
                )
                raise
            if not died:
                break
            gaps += 1
        else:
            pytest.fail("never came to its end")
    return gaps


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


async def every_meeting(
    prepare: Callable[[World], Awaitable[Callable[[], Awaitable[object]]]],
    meanwhile: Callable[[World], Awaitable[object]],
    check: Callable[[World], Awaitable[None]],
) -> int:
    """Before each call of one process another does `meanwhile` from beginning to end. How many such calls."""
    for nth in range(1, 500):
        world = World(nth, False)
        act = await prepare(world)
        met = await world.meet(nth, act, meanwhile)
        try:
            await check(world)
        except BaseException as error:
            error.add_note(f"the other acted before call {nth}" if met else "the other did not act")
            raise
        if not met:
            return nth - 1
    pytest.fail("never came to its end")


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
