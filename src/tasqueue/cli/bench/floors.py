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

import msgspec

from tasqueue.core.codec import VERSION, Spec, Tail
from tasqueue.core.status import Status

CLAIM = 500
"""Jobs of one claim, which shares a transaction with the finish of those before."""
SUBMIT = 1000
"""Jobs of one batch enqueued: as many as the library stores in one transaction."""
TASK = "noop"
RESULT = b"ok"

_Done = tuple[int, bytes, bytes]
"""seq, tail, result"""

_encode = msgspec.msgpack.Encoder().encode
_decode_spec = msgspec.msgpack.Decoder(Spec).decode


async def noop(payload: bytes) -> bytes:
    """The handler."""
    return RESULT


def _spec(payload: bytes, now: int) -> bytes:
    return _encode(Spec(VERSION, TASK, payload, enqueued_at=now))


def _tail(now: int) -> bytes:
    return _encode(Tail(status=Status.QUEUED, started_at=now, processed_at=now, worker="floor"))


def _ids(n: int, start: int = 0) -> Iterator[str]:
    return (f"{i:036d}" for i in range(start, start + n))  # as long as the library's


class MemoryFloor:
    """A deque of ids and a dict of records."""

    def __init__(self) -> None:
        self.ready: deque[str] = deque()
        self.records: dict[str, tuple[str, bytes]] = {}
        self.ended: dict[str, tuple[bytes, bytes]] = {}

    def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """Each by itself."""
        for id in _ids(n, len(self.records)):
            if id not in self.records:
                self.records[id] = (TASK, _spec(payload, 0))
                self.ready.append(id)

    def enqueue_batches(self, n: int, payload: bytes) -> None:
        """The same; memory knows no batches."""
        self.enqueue_one_by_one(n, payload)

    async def drain(self, concurrency: int) -> None:
        """So many slots on one deque."""

        async def slot() -> None:
            ready, records, ended = self.ready, self.records, self.ended
            while ready:
                id = ready.popleft()
                spec = _decode_spec(records[id][1])
                result = await noop(spec.payload)
                ended[id] = (_tail(0), result)

        await asyncio.gather(*(slot() for _ in range(concurrency)))

    def close(self) -> None:
        """Nothing to let go of."""


_SCHEMA = """
CREATE TABLE job (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, task TEXT NOT NULL, spec BLOB NOT NULL);
CREATE TABLE ready (seq INTEGER PRIMARY KEY);
CREATE TABLE running (seq INTEGER PRIMARY KEY, claim INTEGER NOT NULL);
CREATE TABLE outcome (seq INTEGER PRIMARY KEY, state INTEGER NOT NULL, tail BLOB NOT NULL, result BLOB);
"""
_INSERT = "INSERT INTO job (id, task, spec) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
_OFFER = "INSERT INTO ready SELECT seq FROM job WHERE seq > ?"
_READ = "SELECT seq, spec FROM ready JOIN job USING (seq) ORDER BY seq LIMIT ?"
_CLAIM = "INSERT INTO running SELECT seq, ? FROM ready WHERE seq <= ?"
_TAKEN = "DELETE FROM ready WHERE seq <= ?"
_SETTLE = "INSERT INTO outcome (seq, state, tail, result) VALUES (?, 4, ?, ?)"
_SETTLED = "DELETE FROM running WHERE claim = ?"


class SqliteFloor:
    """A FIFO queue in four narrow tables, of which a job's row is in one at a time beside its record.

    The fastest layout that was tried: rows that change their state in one indexed table cost half as much again.
    """

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.executescript(_SCHEMA)
        self.stored = 0

    def _submit(self, n: int, payload: bytes) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(_INSERT, [(id, TASK, _spec(payload, 0)) for id in _ids(n, self.stored)])
        self.db.execute(_OFFER, (self.stored,))
        self.db.execute("COMMIT")
        self.stored += n

    def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """A transaction each."""
        for _ in range(n):
            self._submit(1, payload)

    def enqueue_batches(self, n: int, payload: bytes) -> None:
        """A transaction for each batch."""
        for start in range(0, n, SUBMIT):
            self._submit(min(SUBMIT, n - start), payload)

    async def drain(self, concurrency: int) -> None:
        """The finish of one batch and the claim of the next in one transaction; the slots run what was claimed."""
        done: list[_Done] = []
        claim = 0
        while True:
            self.db.execute("BEGIN IMMEDIATE")
            if done:
                self.db.executemany(_SETTLE, done)
                self.db.execute(_SETTLED, (claim,))
            claim += 1
            rows: list[tuple[int, bytes]] = self.db.execute(_READ, (CLAIM,)).fetchall()
            if rows:
                self.db.execute(_CLAIM, (claim, rows[-1][0]))
                self.db.execute(_TAKEN, (rows[-1][0],))
            self.db.execute("COMMIT")
            if not rows:
                return
            ready, done = deque(rows), []
            await asyncio.gather(*(self._slot(ready, done) for _ in range(concurrency)))

    async def _slot(self, ready: deque[tuple[int, bytes]], done: list[_Done]) -> None:
        while ready:
            seq, data = ready.popleft()
            result = await noop(_decode_spec(data).payload)
            done.append((seq, _tail(0), result))

    def close(self) -> None:
        """Close the file."""
        self.db.close()
