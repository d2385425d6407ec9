"""The verbs that only read, beside whatever is being written; `watch` and `durability`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...core.record import LinkRow, Row
from ...core.status import ENDED, State, Status
from ...interfaces import Counts, Filter, Key, PauseRow, WorkerRow
from .base import Base
from .lane import Tx

LOOK = 2_000
"""Rows that one question of `jobs` looks at, where no index helps."""
LOOKS = 25
"""Questions of one call; what lies further back is not found."""
BEYOND = 1 << 62


class Reading(Base):
    """See `Engine`."""

    async def now(self) -> int:
        return self._now()

    async def get(self, ids: Sequence[str]) -> list[Row | None]:
        def read(tx: Tx) -> list[Row | None]:
            # Not as one JSON array: a JSON string would end at a NUL.
            found = (tx.run("get", id, tx.now).fetchone() for id in ids)
            return [None if row is None else _row(row) for row in found]

        return await self._read(read)

    async def get_link(self, key: str) -> LinkRow | None:
        def read(tx: Tx) -> LinkRow | None:
            row = tx.run("get_link", key, tx.now).fetchone()
            if row is None:
                return None
            n, status, pos, generation = row
            members = {pos: Status(status) for pos, status in tx.run("members", key)}
            return LinkRow(key, n, Status(status), pos, generation, members)

        return await self._read(read)

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        def read(tx: Tx) -> list[bytes | None]:
            row = tx.run("get_link", key, tx.now).fetchone()
            if row is None:
                return []
            saved: dict[int, bytes | None] = dict(tx.run("member_results", key, start, limit).fetchall())
            return [saved.get(i) for i in range(start, min(start + limit, row[0]))]

        return await self._read(read)

    async def pending(self, queue: str, limit: int, after: str | None) -> list[Row]:
        def read(tx: Tx) -> list[Row]:
            place = None if after is None else tx.run("place_in_line", after).fetchone()
            prio, ord = (BEYOND, 0) if place is None or place[0] != queue else place[1:]
            return _rows(tx, tx.column("pending", queue, prio, ord, limit))

        return await self._read(read)

    async def ended(self, state: State, limit: int, after: str | None) -> list[str]:
        def read(tx: Tx) -> list[str]:
            last = None if after is None else tx.run("ended_place", after, state).fetchone()
            return tx.column(f"ended_{int(state)}", *(last or (BEYOND, 0)), tx.now, limit)

        return await self._read(read)

    async def jobs(self, which: Filter, limit: int, after: str | None) -> list[Row]:
        """Looks at 50,000 jobs of the states asked for, at most."""
        return await self._read(partial(_jobs, which, limit, after))

    async def counts(self) -> Counts:
        def read(tx: Tx) -> Counts:
            queues: dict[str, dict[State, int]] = {}
            for queue, state, n in tx.run("count_waiting"):
                queues.setdefault(queue, {})[State(state)] = n
            ended = dict(zip(ENDED, tx.run("count_ended").fetchone(), strict=True))
            for state, n in tx.run("count_outlived", tx.now):
                ended[State(state)] -= n
            return Counts(queues, ended)

        return await self._read(read)

    async def workers(self) -> list[WorkerRow]:
        return await self._read(lambda tx: [WorkerRow(*row) for row in tx.run("workers")])

    async def paused(self) -> list[PauseRow]:
        return await self._read(lambda tx: [PauseRow(*row) for row in tx.run("pauses")])

    async def tasks(self) -> dict[str, str]:
        return await self._read(lambda tx: dict(tx.run("tasks").fetchall()))

    async def watch(self, keys: Sequence[Key], until: int | None) -> None:
        jobs = frozenset(id for kind, id in keys if kind == "job")
        links = frozenset(f"{kind[0]}:{id}" for kind, id in keys if kind != "job")
        seconds = None if until is None else (until - self._now()) / 1000
        await self._open().poller.watch(jobs, links, seconds)

    async def _over(self, ids: list[str], keys: list[str]) -> set[str]:
        def read(tx: Tx) -> set[str]:
            over = {id for id in ids if tx.value("job_open", id) is None}
            return over.union(key for key in keys if tx.value("link_open", key) is None)

        return await self._read(read)


def _row(row: Sequence[Any]) -> Row:
    return Row(row[0], row[1], State(row[2]), *row[3:])


def _rows(tx: Tx, seqs: list[int]) -> list[Row]:
    return list(map(_row, tx.run("rows", str(seqs))))


def _jobs(which: Filter, limit: int, after: str | None, tx: Tx) -> list[Row]:
    """Page through each state's newest, keep what fits, until there is enough or too much was looked at."""
    last = None if after is None else tx.value("seq_of_id", after)
    look = LOOK if which.queue is not None or which.task is not None else min(limit, LOOK)
    found: list[int] = []
    for state in [None] if which.states is None else which.states:
        name, extra = _newest(tx, state)
        before, wanted = BEYOND if last is None else last, limit
        for _ in range(LOOKS):
            page = tx.run(name, before, look, which.queue, which.task, tx.now, *extra).fetchall()
            fitting = [row[0] for row in page if row[1]]
            found += fitting
            wanted -= len(fitting)
            if wanted <= 0 or len(page) < look:
                break
            before = page[-1][0]
            look = LOOK
    return _rows(tx, sorted(found, reverse=True)[:limit])


def _newest(tx: Tx, state: State | None) -> tuple[str, tuple[int, ...]]:
    """The statement that pages through a state's jobs, and its further values."""
    if state is None:
        return "newest", ()
    if state in (State.HELD, State.DUE, State.PARKED):
        return "newest_idle", (int(state),)
    if state is State.READY and tx.value("backlog", LOOK * LOOKS):
        return "newest_of_backlog", ()  # sorting so many takes longer than to look through what came last
    return f"newest_{int(state)}", ()
