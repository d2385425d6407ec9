"""The halves of a pair: their errors, their time limits, what they may bring along, and the example of them."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.engines.split_world import LEASE, Pair, pass_time, record, step, take

from tasqueue.core.status import State
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults
from tasqueue.engines.split import SplitEngine
from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import Conflict, Delivery, Durability, Finding, Message
from tasqueue.testing.clock import ManualClock
from tasqueue.testing.conformance.harness import Harness


@pytest.fixture
def pair() -> Pair:
    return Pair()


# -- errors and time limits -------------------------------------------------------------------------------------------


class Broken:
    """A half whose calls fail, or never answer, while `how` says so."""

    def __init__(self, half: object) -> None:
        self._half = half
        self.how: BaseException | str | None = None
        self.cured = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._half, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if isinstance(self.how, BaseException):
                raise self.how
            if self.how is not None:
                await self.cured.wait()
            return await method(*args, **kwargs)

        return call


@pytest.mark.parametrize("half", ["broker", "results"])
@pytest.mark.parametrize(
    "how", [ConnectionResetError("gone"), OSError(5, "disk"), TimeoutError("slow"), "silent"], ids=str
)
async def test_no_answer_is_a_typed_error_with_the_ids(pair: Pair, half: str, how: Any) -> None:
    broken = Broken(getattr(pair, half))
    setattr(pair, half, broken)
    engine = pair.engine(timeout=0.05)
    broken.how = how
    with pytest.raises(EngineUnavailable) as caught:
        await engine.submit([record("a"), record("b")])
    assert caught.value.ids == ("a", "b")
    broken.how = None
    await engine.submit([record("a"), record("b")])
    assert [lease.id for lease in await take(engine, "w")] == ["a", "b"]


async def test_another_error_of_a_half_is_its_own(pair: Pair) -> None:
    broken = Broken(pair.results)
    pair.results = broken
    engine = pair.engine()
    broken.how = ValueError("a bug in somebody's class")
    with pytest.raises(ValueError, match="somebody's"):
        await engine.submit([record("a")])


class _Outage:
    """An opened store whose halves can be made silent, as the conformance suite's outage asks for."""

    def __init__(self) -> None:
        self._halves: list[Broken] = []

    def engine(self, ports: Any, timeout: float = 2.0) -> SplitEngine:
        if not self._halves:
            self._halves = [Broken(MemoryBroker(ports.now)), Broken(MemoryResults(ports.now))]
        broker: Any = self._halves[0]
        results: Any = self._halves[1]
        return SplitEngine(broker, results, ports=ports, timeout=timeout)

    def discard(self) -> None:
        """Nothing is kept."""

    @property
    def outage(self) -> Any:
        return self._silent()

    @contextmanager
    def _silent(self) -> Iterator[None]:
        for half in self._halves:
            half.how = "silent"
        try:
            yield
        finally:
            for half in self._halves:
                half.how = None
                half.cured.set()


class Outage:
    """A source for `Harness`."""

    name = "split"

    def fresh(self, folder: Any) -> Any:
        return _Outage()


async def run_suite(module: str, source: Any, config: pytest.Config, folder: Path) -> int:
    """A topic of the conformance suite on another pair than its own, without what asks for more than that declares."""
    config.addinivalue_line("markers", "needs(*capabilities): see the conformance suite")
    topic = importlib.import_module(f"tasqueue.testing.conformance.{module}")
    run = 0
    for name, test in vars(topic).items():
        if not name.startswith("test_") or set(inspect.signature(test).parameters) != {"h"}:
            continue
        harness = await Harness.start(source, folder)
        try:
            marks = getattr(test, "pytestmark", [])
            needs = {flag for mark in marks if mark.name == "needs" for flag in mark.args}
            if all(getattr(harness.engine.capabilities, flag) for flag in needs):
                await test(harness)
                run += 1
        except BaseException as error:
            error.add_note(f"in {module}.{name}")
            raise
        finally:
            await harness.stop()
    return run


async def test_the_suites_outage(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    assert await run_suite("test_outage", Outage(), pytestconfig, tmp_path) >= 4


# -- what a half may bring along --------------------------------------------------------------------------------------


class Twinned:
    """A half that may be used from any thread and loop: one lock around each call, none of which awaits anything."""

    shared = True
    durable = True

    def __init__(self, half: object, lock: Any = None) -> None:
        self._half = half
        self._lock = lock or threading.Lock()

    def twin(self) -> Twinned:
        return Twinned(self._half, self._lock)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._half, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)  # so that others get in between
            with self._lock:
                return await method(*args, **kwargs)

        return call


@pytest.fixture
def twinned(pair: Pair) -> Pair:
    pair.broker, pair.results = Twinned(pair.broker), Twinned(pair.results)
    return pair


async def test_twins_share_what_they_hold(twinned: Pair) -> None:
    engine = twinned.engine()
    assert engine.capabilities.thread_beat
    await engine.submit([record("a")])
    (lease,) = await take(engine, "w")
    twin, other = engine.twin(), twinned.engine()

    async def beats() -> None:
        for _ in range(3):
            await pass_time(twinned, other, LEASE / 1000 - 2)
            assert not (await twin.beat("w", LEASE, b"")).lost

    await asyncio.to_thread(asyncio.run, beats())
    assert await take(other, "v") == []
    assert await engine.settle("w", [step(lease)]) == [True]


class _Threads:
    outage = None

    def discard(self) -> None:
        """Nothing is kept."""

    def __init__(self) -> None:
        self._halves: list[Any] = []

    def engine(self, ports: Any, timeout: float = 2.0) -> SplitEngine:
        if not self._halves:
            self._halves = [Twinned(MemoryBroker(ports.now)), Twinned(MemoryResults(ports.now))]
        return SplitEngine(*self._halves, ports=ports, timeout=timeout)


class Threads:
    """A source for `Harness`: a pair with twins."""

    name = "split"

    def fresh(self, folder: Any) -> Any:
        return _Threads()


@pytest.mark.parametrize(("module", "least"), [("test_concurrency", 9), ("test_lease", 10)])
async def test_the_suite_in_threads(module: str, least: int, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    assert await run_suite(module, Threads(), pytestconfig, tmp_path) >= least


async def test_what_the_halves_declare(twinned: Pair) -> None:
    capabilities = twinned.engine().capabilities
    assert capabilities.shared
    assert capabilities.durable
    assert (await twinned.engine().durability()).level == "os-crash"


async def test_the_weaker_durability_counts(pair: Pair) -> None:
    async def strong() -> Durability:
        return Durability("power-loss", "fsync on every write", [Finding("fsync", "always")])

    async def weak() -> Durability:
        return Durability("os-crash", "every second", [Finding("fsync", "everysec", "warn")])

    pair.broker.durability, pair.results.durability = strong, weak
    found = await pair.engine().durability()
    assert (found.level, found.promise) == ("os-crash", "every second")
    assert [finding.value for finding in found.findings] == ["always", "everysec"]


async def test_the_brokers_clock_counts(pair: Pair) -> None:
    async def now() -> float:
        return 4_000.5

    assert await pair.engine().now() == pair.clock.ms
    pair.broker.now = now
    engine = pair.engine()
    assert await engine.now() == 4_000_500
    await engine.submit([record("a", due=4_001_000)])
    (row,) = await engine.get(["a"])
    assert row is not None
    assert row.state is State.DUE


async def test_open_and_close_are_passed_on(pair: Pair) -> None:
    called: list[str] = []

    def named(name: str) -> Any:
        async def call() -> None:
            called.append(name)

        return call

    pair.broker.open, pair.results.close = named("broker opened"), named("results closed")
    engine = pair.engine()
    await engine.open()
    await engine.close()
    assert called == ["broker opened", "results closed"]


async def test_a_broker_that_can_wake(pair: Pair) -> None:
    event = asyncio.Event()
    asked: list[tuple[Sequence[str], float]] = []

    async def wait(queues: Sequence[str], timeout: float) -> None:
        asked.append((queues, timeout))
        await event.wait()

    pair.broker.wait = wait
    engine = pair.engine()
    assert await take(engine, "w") == []
    sleeper = asyncio.create_task(engine.wait(["q"], None))
    done, _ = await asyncio.wait([sleeper], timeout=0.15)  # longer than any pause of the poll
    assert not done
    event.set()
    await asyncio.wait_for(sleeper, 5)
    assert asked == [(["tasqueue:q"], 5.0)]


async def test_what_this_object_does_wakes_it_in_any_case(pair: Pair) -> None:
    async def wait(queues: Sequence[str], timeout: float) -> None:
        await asyncio.Event().wait()

    pair.broker.wait = wait
    engine = pair.engine()
    assert await take(engine, "w") == []
    sleeper = asyncio.create_task(engine.wait(["q"], None))
    await asyncio.sleep(0)
    await engine.submit([record("a")])
    await asyncio.wait_for(sleeper, 1)


async def test_a_broker_whose_wait_fails(pair: Pair) -> None:
    async def wait(queues: Sequence[str], timeout: float) -> None:
        raise ConnectionResetError("gone")

    pair.broker.wait = wait
    engine = pair.engine()
    assert await take(engine, "w") == []
    with pytest.raises(EngineUnavailable):
        await engine.wait(["q"], None)


# -- the example pair, by itself --------------------------------------------------------------------------------------


async def test_the_example_broker() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock.time)
    await broker.enqueue(
        "q", [Message("low", b"1"), Message("high", b"2", 5), Message("later", b"3", 0, clock.ms + 1000)]
    )
    assert [message.id for message in await broker.get_pending("q", 10, None)] == ["high", "low"]
    assert [message.id for message in await broker.get_pending("q", 10, "high")] == ["low"]
    assert [message.id for message in await broker.get_pending("q", 1, "never")] == ["high"]
    high, low = await broker.consume("q", 10, 5.0)
    assert await broker.consume("q", 10, 5.0) == []
    await broker.release([low], 1.0)
    await broker.ack([high])
    clock.advance(1)
    assert [delivery.id for delivery in await broker.consume("q", 10, 5.0)] == ["low", "later"]
    clock.advance(4)
    await broker.extend([low], 5.0)
    clock.advance(2)
    assert [delivery.id for delivery in await broker.consume("q", 10, 5.0)] == ["later"]
    await broker.ack([high, Delivery(("q", 99), "never", b"")])


async def test_the_example_results() -> None:
    clock = ManualClock()
    results = MemoryResults(clock.time)
    first = await results.set("a", b"1", expect=None, ttl=None)
    with pytest.raises(Conflict):
        await results.set("a", b"2", expect=None, ttl=None)
    second = await results.set("a", b"2", expect=first, ttl=1.0)
    with pytest.raises(Conflict):
        await results.set("a", b"3", expect=first, ttl=None)
    assert await results.get(["a", "b"]) == [(b"2", second), None]
    clock.advance(1)
    assert await results.get(["a"]) == [None]
    with pytest.raises(Conflict):
        await results.set("a", b"3", expect=second, ttl=None)
    await results.index_add("i", ["x", "y"], 2.0)
    await results.index_add("i", ["z"], 1.0)
    assert await results.index_page("i", 2, None) == ["y", "x"]
    assert await results.index_page("i", 2, "x") == ["z"]
    await results.index_remove("i", ["y", "never"])
    assert await results.index_page("i", 9, "never") == ["x", "z"]
