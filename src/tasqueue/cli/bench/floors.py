"""The floor: the bookkeeping of a job by hand, in a plain loop, without a library; what a figure is compared with.

Each job is stored before the call that enqueues it returns, decoded, run, and its status and result are stored. Nothing
else is done: no lease, no retry, no schedule, no second process. That is the price of storage and formats alone; the
rest is the library's.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Iterator
from typing import Protocol

import msgspec

from tasqueue.clock import SYSTEM
from tasqueue.core.codec import VERSION, Spec, Tail
from tasqueue.core.ids import uuid7
from tasqueue.core.status import Status

CLAIM = 300
"""Jobs of one claim, which shares a transaction with the finish of those before."""
SUBMIT = 1000
"""Jobs of one batch enqueued: as many as the library stores in one transaction."""
TASK = "noop"
RESULT = b"ok"
DAY = 86_400_000

_Done = tuple[int, int, int, bytes, bytes, int]
"""seq, ended_at, gone_at, tail, result, claim"""

_encode = msgspec.msgpack.Encoder().encode
decode_spec = msgspec.msgpack.Decoder(Spec).decode


async def noop(payload: bytes) -> bytes:
    """The handler."""
    return RESULT


def now_ms() -> int:
    """By the machine's clock."""
    return int(SYSTEM.now() * 1000)


def new_spec(payload: bytes, now: int, task: str = TASK) -> bytes:
    """A job's record as it is enqueued."""
    return _encode(Spec(VERSION, task, payload, enqueued_at=now))


def tail(now: int) -> bytes:
    """What a record has more when its job has ended well."""
    return _encode(Tail(status=Status.SUCCESSFUL, started_at=now, processed_at=now, worker="floor"))


def new_ids(n: int, now: int) -> Iterator[str]:
    """Made as the library makes them."""
    noise = SYSTEM.bits(10 * n)
    return (uuid7(now, noise[at : at + 10]) for at in range(0, 10 * n, 10))


class Floor(Protocol):
    """What is done by hand."""

    async def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """Each by itself."""
        ...

    async def enqueue_batches(self, n: int, payload: bytes) -> None:
        """What a batch needs but once is done once."""
        ...

    async def drain(self, concurrency: int) -> None:
        """All of them, by so many slots on one deque."""
        ...

    async def close(self) -> None:
        """Let go of what is open."""
        ...


class MemoryFloor:
    """A deque of ids and a dict of records."""

    def __init__(self) -> None:
        self.ready: deque[str] = deque()
        self.records: dict[str, tuple[str, bytes]] = {}
        self.ended: dict[str, tuple[bytes, bytes]] = {}

    async def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """Each by itself."""
        for _ in range(n):
            self._submit(1, payload)

    async def enqueue_batches(self, n: int, payload: bytes) -> None:
        """What a batch needs but once is done once."""
        for start in range(0, n, SUBMIT):
            self._submit(min(SUBMIT, n - start), payload)

    def _submit(self, n: int, payload: bytes) -> None:
        now = now_ms()
        for id in new_ids(n, now):
            if id not in self.records:
                self.records[id] = (TASK, new_spec(payload, now))
                self.ready.append(id)

    async def drain(self, concurrency: int) -> None:
        """So many slots on one deque."""

        async def slot() -> None:
            ready, records, ended = self.ready, self.records, self.ended
            while ready:
                id = ready.popleft()
                spec = decode_spec(records[id][1])
                result = await noop(spec.payload)
                ended[id] = (tail(now_ms()), result)

        await asyncio.gather(*(slot() for _ in range(concurrency)))

    async def close(self) -> None:
        """Nothing to let go of."""


_SCHEMA = """
CREATE TABLE job (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL, prio INTEGER NOT NULL, ord INTEGER NOT NULL,
    state INTEGER NOT NULL, due INTEGER, task TEXT NOT NULL, spec BLOB NOT NULL);
CREATE INDEX due ON job (due) WHERE state = 2;
CREATE TABLE ready (
    queue TEXT, prio INTEGER, ord INTEGER, seq INTEGER, PRIMARY KEY (queue, prio DESC, ord)) WITHOUT ROWID;
CREATE TABLE running (seq INTEGER PRIMARY KEY, worker INTEGER, claim INTEGER, at INTEGER);
CREATE TABLE outcome (
    seq INTEGER PRIMARY KEY, state INTEGER, ended_at INTEGER, gone_at INTEGER, worker INTEGER, claim INTEGER,
    tail BLOB, result BLOB);
CREATE INDEX successful ON outcome (state, ended_at) WHERE state = 4;
CREATE INDEX gone ON outcome (gone_at) WHERE gone_at IS NOT NULL;
"""
_INSERT = """INSERT INTO job (seq, id, queue, prio, ord, state, task, spec) VALUES (?, ?, 'q', 0, ?, 1, ?, ?)
    ON CONFLICT (id) DO NOTHING"""
_LINE_UP = "INSERT INTO ready SELECT queue, prio, ord, seq FROM job WHERE seq >= ?"
_READ = """SELECT j.seq, j.spec, r.ord FROM ready r CROSS JOIN job j ON j.seq = r.seq
    WHERE r.queue = 'q' ORDER BY r.prio DESC, r.ord LIMIT ?"""
_CLAIM = "INSERT INTO running SELECT seq, 7, ?, ? FROM ready WHERE queue = 'q' ORDER BY prio DESC, ord LIMIT ?"
_TAKEN = "DELETE FROM ready WHERE queue = 'q' AND prio = 0 AND ord <= ?"
_SETTLE = """INSERT INTO outcome SELECT ?1, 4, ?2, ?3, worker, claim, ?4, ?5 FROM running
    WHERE seq = ?1 AND worker = 7 AND claim = ?6"""
_SETTLED = "DELETE FROM running WHERE worker = 7 AND claim = ?"


class SqliteFloor:
    """A wide row that is written once, and narrow tables that say where a job is: the fastest layout that was tried.

    The token is checked, the order is by priority and place, and each end has its retention, as in the library.
    `benchmarks/floor_sqlite.py` compares it with one table whose rows change their state.
    """

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 2000"):
            self.db.execute(f"PRAGMA {pragma}")
        self.db.executescript(_SCHEMA)
        self.stored = 0

    async def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """A transaction each."""
        for _ in range(n):
            self._submit(1, payload)

    async def enqueue_batches(self, n: int, payload: bytes) -> None:
        """A transaction for each batch."""
        for start in range(0, n, SUBMIT):
            self._submit(min(SUBMIT, n - start), payload)

    def _submit(self, n: int, payload: bytes) -> None:
        now, first = now_ms(), self.stored
        rows = [(seq, id, seq, TASK, new_spec(payload, now)) for seq, id in enumerate(new_ids(n, now), first)]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(_INSERT, rows)
        self.db.execute(_LINE_UP, (first,))
        self.db.execute("COMMIT")
        self.stored += n

    async def drain(self, concurrency: int) -> None:
        """The finish of one batch and the claim of the next in one transaction; the slots run what was claimed."""
        done: list[_Done] = []
        claim = ended = 0
        while True:
            self.db.execute("BEGIN IMMEDIATE")
            if done:
                ended += self.db.executemany(_SETTLE, done).rowcount
                self.db.execute(_SETTLED, (claim,))
            claim += 1
            rows: list[tuple[int, bytes, int]] = self.db.execute(_READ, (CLAIM,)).fetchall()
            if rows:
                self.db.execute(_CLAIM, (claim, now_ms(), CLAIM))
                self.db.execute(_TAKEN, (rows[-1][2],))
            self.db.execute("COMMIT")
            if not rows:
                break
            ready, done = deque(rows), []
            await asyncio.gather(*(self._slot(ready, done, claim) for _ in range(concurrency)))
        if ended != self.stored:
            raise RuntimeError(f"the floor has settled {ended:,} of {self.stored:,} jobs")

    async def _slot(self, ready: deque[tuple[int, bytes, int]], done: list[_Done], claim: int) -> None:
        while ready:
            seq, data, _ = ready.popleft()
            result = await noop(decode_spec(data).payload)
            now = now_ms()
            done.append((seq, now, now + DAY, tail(now), result, claim))

    async def close(self) -> None:
        """Close the file."""
        self.db.close()
