"""An engine whose calls fail now and then, seeded: before they are made, or after, so that only the reply is lost.

    srv = Server(FlakyEngine(engine, refuse=0.1, drop=0.1, seed=7))

What fails is decided by a `Weather` that an engine shares with its twins, so that a keeper's beats are in it too.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251  (seeded by the test: this is what stands in for the port)
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, cast

from ..core.record import Link, LinkRow, Record, Row, Schedule, Step, Tick
from ..core.status import State
from ..errors import EngineUnavailable
from ..interfaces import Beat, Cancelled, Claim, Counts, Durability, Engine, Filter, Key, PauseRow, WorkerRow

How = Literal["ok", "refuse", "drop"]
"""`refuse`: EngineUnavailable, nothing was done. `drop`: EngineUnavailable, it was done."""


class Weather:
    """What the next calls meet. `calls`: each one made, with its arguments, in order."""

    def __init__(self, seed: int, refuse: float, drop: float, delay: float, verbs: Collection[str]) -> None:
        self.refuse, self.drop, self.delay, self.verbs = refuse, drop, delay, frozenset(verbs)
        self.down = False
        """Every call is refused."""
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._random = random.Random(seed)
        self._planned: dict[str, deque[How]] = {}

    def plan(self, verb: str, *hows: How) -> None:
        """What the next calls of this verb meet, before chance has its say again."""
        self._planned.setdefault(verb, deque()).extend(hows)

    def next(self, verb: str) -> How:
        """What this call meets."""
        if self.down:
            return "refuse"
        planned = self._planned.get(verb)
        if planned:
            return planned.popleft()
        if self.verbs and verb not in self.verbs:
            return "ok"
        chance = self._random.random()
        return "refuse" if chance < self.refuse else "drop" if chance < self.refuse + self.drop else "ok"

    def made(self, verb: str) -> list[tuple[Any, ...]]:
        """The arguments of the calls of this verb so far."""
        return [args for name, args in self.calls if name == verb]

    def pause(self) -> float:
        """Seconds that a call takes longer, up to `delay`."""
        return self._random.random() * self.delay


class FlakyEngine(Engine):
    """`refuse` and `drop` are probabilities, of the `verbs` named or of all; `delay`: the most seconds that a call
    takes longer."""

    def __init__(
        self,
        engine: Engine,
        *,
        seed: int = 0,
        refuse: float = 0.0,
        drop: float = 0.0,
        delay: float = 0.0,
        verbs: Collection[str] = (),
        weather: Weather | None = None,
    ) -> None:
        self.engine = engine
        self.url = engine.url
        self.capabilities = engine.capabilities
        self.weather = weather or Weather(seed, refuse, drop, delay, verbs)

    async def _call(self, verb: str, *args: Any) -> Any:
        weather = self.weather
        weather.calls.append((verb, args))
        how = weather.next(verb)
        if weather.delay:
            await asyncio.sleep(weather.pause())
        if how == "refuse":
            raise EngineUnavailable(f"{verb}: refused by the test")
        result: Any = await getattr(self.engine, verb)(*args)
        if how == "drop":
            raise EngineUnavailable(f"{verb}: its reply was dropped by the test")
        return result

    async def open(self) -> None:
        await self._call("open")

    async def close(self) -> None:
        await self.engine.close()

    def twin(self) -> Engine:
        return FlakyEngine(self.engine.twin(), weather=self.weather)

    async def now(self) -> int:
        return cast("int", await self._call("now"))

    async def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        await self._call("submit", records, links)

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        await self._call("register", worker, lease, info, tasks, version)

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        return cast("Claim", await self._call("claim", worker, number, wants))

    async def settle(self, worker: str, steps: Sequence[Step]) -> list[bool]:
        return cast("list[bool]", await self._call("settle", worker, steps))

    async def beat(self, worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]] = ()) -> Beat:
        return cast("Beat", await self._call("beat", worker, lease, info, progress))

    async def retire(self, worker: str) -> int:
        return cast("int", await self._call("retire", worker))

    async def reclaim(self, worker: str = "", cause: str = "") -> list[str]:
        return cast("list[str]", await self._call("reclaim", worker, cause))

    async def promote(self) -> int | None:
        return cast("int | None", await self._call("promote"))

    async def wait(self, queues: Sequence[str], until: int | None) -> None:
        await self._call("wait", queues, until)

    async def put_schedule(self, entry: Schedule) -> bool:
        return cast("bool", await self._call("put_schedule", entry))

    async def delete_schedule(self, id: str) -> bool:
        return cast("bool", await self._call("delete_schedule", id))

    async def schedules(self, due: bool = False, limit: int = 1000) -> list[Schedule]:
        return cast("list[Schedule]", await self._call("schedules", due, limit))

    async def fire(self, ticks: Sequence[Tick]) -> list[bool]:
        return cast("list[bool]", await self._call("fire", ticks))

    async def cancel(self, ids: Sequence[str], ttl: int | None) -> list[Cancelled]:
        return cast("list[Cancelled]", await self._call("cancel", ids, ttl))

    async def cancel_link(self, key: str, ttl: int | None) -> bool:
        return cast("bool", await self._call("cancel_link", key, ttl))

    async def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        return cast("bool", await self._call("reopen", id, ended_at, tail))

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        return cast("list[bool]", await self._call("delete", ids))

    async def pause(self, queue: str, reason: str, by: str) -> None:
        await self._call("pause", queue, reason, by)

    async def resume(self, queue: str) -> None:
        await self._call("resume", queue)

    async def drain(self, worker: str) -> bool:
        return cast("bool", await self._call("drain", worker))

    async def prune(self) -> int:
        return cast("int", await self._call("prune"))

    async def get(self, ids: Sequence[str]) -> list[Row | None]:
        return cast("list[Row | None]", await self._call("get", ids))

    async def get_link(self, key: str) -> LinkRow | None:
        return cast("LinkRow | None", await self._call("get_link", key))

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        return cast("list[bytes | None]", await self._call("results", key, start, limit))

    async def pending(self, queue: str, limit: int, after: str | None) -> list[Row]:
        return cast("list[Row]", await self._call("pending", queue, limit, after))

    async def ended(self, state: State, limit: int, after: str | None) -> list[str]:
        return cast("list[str]", await self._call("ended", state, limit, after))

    async def jobs(self, which: Filter, limit: int, after: str | None) -> list[Row]:
        return cast("list[Row]", await self._call("jobs", which, limit, after))

    async def counts(self) -> Counts:
        return cast("Counts", await self._call("counts"))

    async def workers(self) -> list[WorkerRow]:
        return cast("list[WorkerRow]", await self._call("workers"))

    async def paused(self) -> list[PauseRow]:
        return cast("list[PauseRow]", await self._call("paused"))

    async def tasks(self) -> dict[str, str]:
        return cast("dict[str, str]", await self._call("tasks"))

    async def watch(self, keys: Sequence[Key], until: int | None) -> None:
        await self._call("watch", keys, until)

    async def durability(self) -> Durability:
        return cast("Durability", await self._call("durability"))
