"""The verbs that only read; `watch` and `durability`."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.record import LinkRow, Row
from ...core.status import ENDED, State, Status
from ...interfaces import Counts, Durability, Filter, Key, WorkerRow
from .base import Base, keys
from .durability import examine
from .layout import key, row_of, seq_of, text

LOOK = 5_000
"""Jobs of each place (a queue's ready ones, the failed …) that `jobs` looks at, the newest."""
CHUNK = 500
NAP = 20_000
"""ms: `watch` returns of itself after that."""
REMEMBERED = 60_000
"""ms that the server remembers who watches what."""
_PLACES = (State.HELD, State.READY, State.DUE, State.RUNNING, State.PARKED)


class Reading(Base):
    """See `Engine`."""

    async def get(self, ids: Sequence[str]) -> list[Row | None]:
        if not ids:
            return []
        *records, held = await self._run("get", *keys(ids))
        holds = {held[i] - 1: (held[i + 1], held[i + 2], held[i + 3]) for i in range(0, len(held), 4)}
        return [
            None if raw is None else row_of(id, raw, holds.get(i))
            for i, (id, raw) in enumerate(zip(ids, records, strict=True))
        ]

    async def get_link(self, key: str) -> LinkRow | None:
        reply = await self._run("link", *keys([key]), "", "")
        if reply is None:
            return None
        n, state, pos, generation = map(int, reply[:4])
        found = reply[4]
        members = {int(i): _status(int(outcome)) for i, outcome in zip(found[::2], found[1::2], strict=True)}
        return LinkRow(key, n, _status(state), pos, generation, dict(sorted(members.items())))

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        if limit <= 0:
            return []
        reply = await self._run("link", *keys([key]), start, start + limit - 1)
        if reply is None:
            return []
        return [None if one is None or one[1:2] != b"1" else one[2:] for one in reply[4]]

    async def pending(self, queue: str, limit: int, after: str | None) -> list[Row]:
        if limit <= 0:
            return []
        found = await self._run("pending", key(queue), limit, key(after or ""))
        rows = await self.get([text(id) for id in found])
        return [row for row in rows if row is not None and row.state is State.READY]

    async def ended(self, state: State, limit: int, after: str | None) -> list[str]:
        return [text(id) for id in await self._run("ended", int(state), limit, key(after or ""))]

    async def jobs(self, which: Filter, limit: int, after: str | None) -> list[Row]:
        """Looks at the newest 5,000 of each place; what lies deeper is not found. What chains hold back is one place,
        whatever its queue.
        """
        states = [*_PLACES, *ENDED] if which.states is None else which.states
        if not states or limit <= 0:
            return []
        found = await self._run("list", LOOK, key(which.queue or ""), *map(int, states))
        names = list(dict.fromkeys(map(text, found)))
        before: float | None = None
        if after is not None:
            last = await self._client().command("GET", self._prefix + b"r:" + key(after))
            before = None if last is None else seq_of(last)
        rows: list[tuple[float, Row]] = []
        for start in range(0, len(names), CHUNK):
            part = names[start : start + CHUNK]
            *records, held = await self._run("get", *keys(part))
            holds = {held[i] - 1: (held[i + 1], held[i + 2], held[i + 3]) for i in range(0, len(held), 4)}
            for i, (id, raw) in enumerate(zip(part, records, strict=True)):
                if raw is None or (before is not None and seq_of(raw) >= before):
                    continue
                row = row_of(id, raw, holds.get(i))
                if (
                    row.state in states
                    and (which.queue is None or row.queue == which.queue)
                    and (which.task is None or row.task == which.task)
                ):
                    rows.append((seq_of(raw), row))
        rows.sort(key=lambda pair: -pair[0])
        return [row for _, row in rows[:limit]]

    async def counts(self) -> Counts:
        reply = await self._run("counts")
        queues: dict[str, dict[State, int]] = {}
        for at in range(3, len(reply), 6):
            numbers = dict(zip(_PLACES, reply[at + 1 : at + 6], strict=True))
            if any(numbers.values()):
                queues[text(reply[at])] = {state: n for state, n in numbers.items() if n}
        return Counts(queues, dict(zip(ENDED, reply[:3], strict=True)))

    async def workers(self) -> list[WorkerRow]:
        reply = await self._run("workers")
        rows = [
            WorkerRow(text(reply[at]), int(float(reply[at + 1])), reply[at + 2], reply[at + 3])
            for at in range(0, len(reply), 4)
        ]
        return sorted(rows, key=lambda row: row.id)

    async def tasks(self) -> dict[str, str]:
        found = await self._read("HGETALL", "tasks")
        return {text(name): text(queue) for name, queue in zip(found[::2], found[1::2], strict=True)}

    async def watch(self, keys: Sequence[Key], until: int | None) -> None:
        names = [f"{'j' if kind == 'job' else kind[0]}:{id}" for kind, id in keys]
        listener = self._listener()
        if not listener.stands:
            await listener.ready()
        over = listener.expect(f"k{name}" for name in names)
        try:
            if await self._run("watch", listener.name, REMEMBERED, *map(key, names)):
                return
            span = NAP if listener.stands else 500
            if until is not None:
                span = min(span, until - await self.now())
            await listener.sleep_on(over, span / 1000)
        finally:
            listener.leave(over)

    async def durability(self) -> Durability:
        return await examine(self._client(), self._target)


def _status(state: int) -> Status:
    return ENDED[State(state)] if state else Status.PROCESSING
