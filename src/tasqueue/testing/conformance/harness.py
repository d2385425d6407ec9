"""What a test holds in its hands: a fresh store, engines and workers on it, a clock, words for records and steps."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from ...clock import SYSTEM, Ports
from ...core.record import Kind, Lease, Link, LinkRow, Record, Row, Step, chain_key, group_key
from ...core.status import State
from ...interfaces import Beat, Capabilities, Engine
from ..clock import ManualClock
from .sources import Opened, Source

LEASE = 400
"""ms: of a worker whose end a test waits for; the others get LONG."""
LONG = 60_000
TTL = 300
SHORT = 300
"""ms: a delay that a test waits for."""


def needs(*flags: str) -> pytest.MarkDecorator:
    """Skip on an engine that does not declare these capabilities."""
    unknown = set(flags) - set(Capabilities.__struct_fields__)
    assert not unknown, f"no such capability: {unknown}"
    return pytest.mark.needs(*flags)


class Clock:
    """The engine's clock: moved by hand where it lives by its Ports, waited for where it has a time of its own."""

    def __init__(self, engine: Engine, manual: ManualClock | None) -> None:
        self._engine = engine
        self.manual = manual

    async def now(self) -> int:
        return await self._engine.now()

    async def advance(self, ms: int) -> None:
        """Let at least so many ms pass."""
        if self.manual is not None:
            self.manual.advance(ms / 1000)
        else:
            await asyncio.sleep(ms / 1000 + 0.005)


class Harness:
    """See the module's docstring; the fixture `h` makes one for each test."""

    def __init__(self, opened: Opened, ports: Ports, engine: Engine, clock: Clock) -> None:
        self._opened = opened
        self._ports = ports
        self._engines = [engine]
        self.engine = engine
        self.clock = clock
        self._helpers = 0

    @classmethod
    async def start(cls, source: Source, folder: Path) -> Harness:
        """The manual clock stands at a date long past: an engine that gives another time does not live by its Ports."""
        manual = ManualClock()
        opened = source.fresh(folder)
        engine = opened.engine(manual.ports)
        await engine.open()
        if await engine.now() == manual.ms:
            return cls(opened, manual.ports, engine, Clock(engine, manual))
        await engine.close()
        engine = opened.engine(SYSTEM)
        await engine.open()
        return cls(opened, SYSTEM, engine, Clock(engine, None))

    async def stop(self) -> None:
        for engine in self._engines:
            await engine.close()
        self._opened.discard()

    def skip_what_it_lacks(self, test: pytest.Function) -> None:
        """A test that `needs` what the engine does not declare is skipped."""
        # Those of its module too, which get lost where another module collects it.
        home = inspect.getmodule(cast("Any", test).function)
        common: Any = getattr(home, "pytestmark", [])
        marks: list[pytest.Mark] = [*test.iter_markers(), *(common if isinstance(common, list) else [common])]
        for mark in marks:
            for flag in mark.args if mark.name == "needs" else ():
                if not getattr(self.engine.capabilities, flag):
                    pytest.skip(f"the engine does not declare {flag}")

    @property
    def outage(self) -> Any:
        """A context in which the store gives no answer."""
        if self._opened.outage is None:
            pytest.skip("this harness cannot make an outage")
        return self._opened.outage

    def unopened(self, timeout: float = 2.0) -> Engine:
        """One more engine object on the same store, for the test to open and close."""
        return self._opened.engine(self._ports, timeout)

    async def another(self, timeout: float = 2.0) -> Engine:
        """The same, opened now and closed after the test."""
        engine = self.unopened(timeout)
        await engine.open()
        self._engines.append(engine)
        return engine

    async def worker(
        self,
        name: str = "w",
        engine: Engine | None = None,
        *,
        lease: int = LONG,
        tasks: Mapping[str, str] | None = None,
        version: int = 1,
    ) -> Worker:
        """A registered worker."""
        worker = Worker(name, engine or self.engine)
        await worker.engine.register(name, lease, b"info", tasks or {}, version)
        return worker

    async def helper(self) -> Worker:
        """A worker under a name of its own, for the harness itself."""
        self._helpers += 1
        return await self.worker(f"helper-{self._helpers}")

    async def put(self, *jobs: str | Record, links: Sequence[Link] = ()) -> None:
        """Submit records, or plain jobs of these ids, in one call."""
        await self.engine.submit([job if isinstance(job, Record) else record(job) for job in jobs], links)

    async def get(self, id: str) -> Row | None:
        return (await self.engine.get([id]))[0]

    async def row(self, id: str) -> Row:
        row = await self.get(id)
        assert row is not None, f"{id} is not stored"
        return row

    async def state(self, id: str) -> State | None:
        row = await self.get(id)
        return None if row is None else row.state

    async def states(self, *ids: str) -> list[State | None]:
        return [None if row is None else row.state for row in await self.engine.get(ids)]

    async def link(self, key: str) -> LinkRow:
        link = await self.engine.get_link(key)
        assert link is not None, f"{key} is not stored"
        return link

    async def run(
        self, id: str, state: State = State.SUCCESSFUL, result: bytes | None = None, ttl: int | None = None
    ) -> None:
        """Claim everything there is, end `id` so, and give the rest back."""
        worker = await self.helper()
        leases = {lease.id: lease for lease in await worker.claim(1000, (await self.row(id)).queue)}
        steps = [end(lease, state, result, ttl=ttl) if lease.id == id else release(lease) for lease in leases.values()]
        assert id in leases, f"{id} was not ready, only {list(leases)}"
        assert all(await worker.settle(*steps))
        await worker.engine.retire(worker.name)

    async def reopen(self, id: str, tail: bytes = b"again") -> bool:
        return await self.engine.reopen(id, (await self.row(id)).ended_at or 0, tail)

    async def ready(self, queue: str = "q") -> list[str]:
        """What could start now, in order: claimed by a worker that gives it all back."""
        worker = await self.helper()
        leases = await worker.claim(1000, queue)
        await worker.settle(*map(release, leases))
        await worker.engine.retire(worker.name)
        return [lease.id for lease in leases]


class Worker:
    """An incarnation on some engine object; counts its claims."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.number = 0

    async def claim(self, limit: int = 10, *queues: str) -> list[Lease]:
        self.number += 1
        return await self.claim_again(self.number, limit, *queues)

    async def claim_again(self, number: int, limit: int = 10, *queues: str) -> list[Lease]:
        """Under a number that may have been used."""
        claim = await self.engine.claim(self.name, number, dict.fromkeys(queues or ("q",), limit))
        return list(claim.leases)

    async def take(self, id: str, *queues: str) -> Lease:
        """Claim the one job that there is."""
        leases = await self.claim(10, *queues)
        assert [lease.id for lease in leases] == [id]
        return leases[0]

    async def settle(self, *steps: Step) -> list[bool]:
        return list(await self.engine.settle(self.name, steps))

    async def beat(
        self, lease: int = LONG, info: bytes = b"info", progress: Sequence[tuple[str, int, bytes]] = ()
    ) -> Beat:
        return await self.engine.beat(self.name, lease, info, progress)


def ids(found: Iterable[Lease | Row]) -> list[str]:
    return [one.id for one in found]


# -- records ----------------------------------------------------------------------------------------------------------


def record(id: str, queue: str = "q", **fields: Any) -> Record:
    """A record whose spec says whose it is."""
    fields.setdefault("task", "t")
    fields.setdefault("spec", b"spec of " + id.encode("utf-8", "surrogatepass"))
    return Record(id, queue, **fields)


def chain(name: str, n: int, **fields: Any) -> tuple[list[Record], Link]:
    """The records and the link of a chain; `fields` are the link's."""
    key = chain_key(name)
    steps = [record(f"{name}~c{i}", held=i > 0, link=key, pos=i) for i in range(n)]
    return steps, Link(key, n, **fields)


def group(name: str, n: int, **fields: Any) -> tuple[list[Record], Link]:
    """The records and the link of a group, with one callback for either end."""
    key = group_key(name)
    members = [record(f"{name}~g{i}", link=key, pos=i) for i in range(n)]
    fields.setdefault("on_success", (record(f"{name}~s0", "callbacks"),))
    fields.setdefault("on_error", (record(f"{name}~e0", "callbacks"),))
    return members, Link(key, n, **fields)


# -- steps ------------------------------------------------------------------------------------------------------------


def step(lease: Lease, kind: Kind, state: State, **fields: Any) -> Step:
    return Step(lease.id, lease.claim, kind, state, link=lease.link, pos=lease.pos, ref=lease.ref, **fields)


def end(lease: Lease, state: State = State.SUCCESSFUL, result: bytes | None = None, **fields: Any) -> Step:
    fields.setdefault("tail", b"ended")
    return step(lease, Kind.END, state, result=result, **fields)


def fail(lease: Lease, **fields: Any) -> Step:
    return end(lease, State.FAILED, **fields)


def retry(lease: Lease, delay: int = 0, tail: bytes | None = b"retrying") -> Step:
    return step(lease, Kind.RETRY, State.DUE, delay=delay, tail=tail)


def snooze(lease: Lease, delay: int = 0, tail: bytes | None = b"snoozed") -> Step:
    return step(lease, Kind.SNOOZE, State.DUE, delay=delay, tail=tail)


def release(lease: Lease, died: bool = False, reason: str = "") -> Step:
    return step(lease, Kind.RELEASE, State.READY, died=died, reason=reason)


def park(lease: Lease, key: str = "task:t", reason: str = "nobody knows it", delay: int = LONG) -> Step:
    return step(lease, Kind.PARK, State.PARKED, key=key, reason=reason, delay=delay)
