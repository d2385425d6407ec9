"""A pair, a process that dies (or stands still) between two of its calls, and another that goes on.

`every_gap` runs a scenario again and again, each time in a fresh world, and lets it die at its first, second, third …
call of the broker or the results, either just before that call or just after it was carried out. So no gap is
forgotten: the counting ends with the run in which nobody died. `every_meeting` lets nobody die, but somebody else act
in the gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from tasqueue.core.record import Kind, Lease, Link, Record, Step
from tasqueue.core.status import State
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults
from tasqueue.engines.split import SplitEngine
from tasqueue.testing.clock import ManualClock

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


def step(lease: Lease, kind: Kind = Kind.END, state: State = State.SUCCESSFUL, **fields: Any) -> Step:
    return Step(lease.id, lease.claim, kind, state, b"tail", link=lease.link, pos=lease.pos, **fields)


class Pair:
    """A pair and its clock; each `engine` is another process."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.broker: Any = MemoryBroker(self.clock.time)
        self.results: Any = MemoryResults(self.clock.time)

    def engine(self, **options: Any) -> SplitEngine:
        return SplitEngine(self.broker, self.results, ports=self.clock.ports, **options)


async def take(engine: SplitEngine, worker: str, number: int = 1, queue: str = "q") -> list[Lease]:
    await engine.register(worker, LEASE, b"", {}, 1)
    return list((await engine.claim(worker, number, {queue: 10})).leases)


async def pass_time(pair: Pair, engine: SplitEngine, seconds: float) -> None:
    """With somebody who looks for ended leases each second, as workers do."""
    for _ in range(int(seconds)):
        pair.clock.advance(1.0)
        await engine.reclaim()


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
