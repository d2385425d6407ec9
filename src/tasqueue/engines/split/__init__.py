"""An engine made of any broker and any results (`interfaces.Broker`, `interfaces.Results`), in the order of the
design's G3.

A pair has no step that spans both halves, so the record in the results is the commit point: one compare-and-set on the
token. What leads there is stored before it (message first, record second), what follows from it afterwards, and the
broker's acknowledgement last. A crash between two writes leaves something behind that whoever comes next completes;
see docs/engines/pairs.md.

Reading order: `docs` (what is stored, what an order does to a record), `links`, `store`, `base`, `follow`, `produce`,
`claim`, `settle`, `lease`, `schedule`, `operate`, `read`.

Besides its protocol an object may have, each optional: `open()`, `close()`, `twin()`, `check()` (raises Unsupported
when no worker may rely on it as it is set up), `durability()`, `url` (without a password), and `shared` and `durable`
(True: several processes can use it; what it stored survives the process); a broker also `now()` (UNIX seconds: the
engine's clock), `wait(queues, timeout)` (returns when there may be something to consume), `max_link`, and `max_body`
(bytes: a larger body is kept in the results meanwhile).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from ...clock import Ports
from ...errors import EngineUnavailable, Unsupported
from ...interfaces import Broker, Capabilities, Durability, Finding, Results
from .read import Reading
from .store import Store

LEVELS = ("process", "os-crash", "power-loss")


class SplitEngine(Reading):
    """See `Engine`. `timeout`: seconds that one call of the broker or the results may take."""

    def __init__(
        self,
        broker: Broker,
        results: Results,
        *,
        ports: Ports,
        timeout: float = 5.0,
        namespace: str = "tasqueue",
    ) -> None:
        super().__init__(Store(broker, results, timeout, namespace), ports)
        self.url = str(self._store)
        halves: tuple[Any, Any] = (broker, results)
        self.capabilities = Capabilities(
            atomic_finish=False,
            instant_handback=False,
            server_fencing=False,
            thread_beat=all(hasattr(half, "twin") for half in halves),
            shared=all(getattr(half, "shared", False) for half in halves),
            durable=all(getattr(half, "durable", False) for half in halves),
            max_link=min(10_000, getattr(broker, "max_link", 10_000)),
        )

    async def open(self) -> None:
        await self._each("open")
        await self._store.fleet()

    async def close(self) -> None:
        self._work.set()
        self._ends.set()
        for half in (self._store.broker, self._store.results):
            # One that cannot be told so any more is let go of, and the other is closed nevertheless.
            with contextlib.suppress(EngineUnavailable):
                await self._call("close", half)

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        """Unsupported where a half says that no worker may rely on it."""
        await self._each("check")
        await super().register(worker, lease, info, tasks, version)

    async def _each(self, name: str) -> None:
        for half in (self._store.broker, self._store.results):
            await self._call(name, half)

    async def _call(self, name: str, half: Any) -> None:
        call = getattr(half, name, None)
        if call is not None:
            await self._store.ask(call())

    def twin(self) -> SplitEngine:
        """It shares what this one holds, so that its beats extend those deliveries."""
        if not self.capabilities.thread_beat:
            raise Unsupported(
                f"{self.url} has no twin: without a `twin()` of both, the broker and the results, beats come from the"
                " event loop only, and a handler that blocks it can lose its lease"
            )
        broker: Any = self._store.broker
        results: Any = self._store.results
        other = SplitEngine(
            broker.twin(),
            results.twin(),
            ports=self._ports,
            timeout=self._store.timeout,
            namespace=self._store.namespace,
        )
        other._hands, other._parked = self._hands, self._parked
        return other

    async def durability(self) -> Durability:
        """The weaker of what the two say of themselves with `durability()`; by `durable` alone: it survives the
        process.
        """
        broker = await self._durability_of(self._store.broker)
        results = await self._durability_of(self._store.results)
        weaker = min((broker, results), key=lambda one: LEVELS.index(one.level))
        common = [one for one in broker.findings if one in results.findings]
        findings = [
            structs.replace(one, name=f"{role}: {one.name}")
            for role, half in (("broker", broker), ("results", results))
            for one in half.findings
            if one not in common
        ]
        return Durability(weaker.level, weaker.promise, [*common, *findings])

    async def _durability_of(self, half: Any) -> Durability:
        if hasattr(half, "durability"):
            return await self._store.ask(half.durability())
        name = type(half).__name__
        if getattr(half, "durable", False):
            return Durability(
                "os-crash", f"{name} says that it survives the process.", [Finding(name, "durable = True")]
            )
        advice = "give the class `durable = True` or a `durability()` if what it stores survives the process"
        return Durability(
            "process",
            f"{name} does not say that it survives the process.",
            [Finding(name, "not declared", "warn", advice)],
        )
