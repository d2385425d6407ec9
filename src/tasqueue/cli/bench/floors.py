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

CLAIM = 200
"""Jobs of one claim, which shares a transaction with the finish of those before."""
SUBMIT = 1000
"""Jobs of one batch enqueued: as many as the library stores in one transaction."""
TASK = "noop"
RESULT = b"ok"

_Done = tuple[bytes, bytes, int, int, int]
"""tail, result, ended_at, seq, claim"""

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
CREATE TABLE IF NOT EXISTS job (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL, prio INTEGER NOT NULL, ord INTEGER NOT NULL,
    state INTEGER NOT NULL, worker TEXT, claim INTEGER, ended_at INTEGER, spec BLOB NOT NULL, tail BLOB, result BLOB);
CREATE INDEX IF NOT EXISTS ready ON job (queue, prio DESC, ord) WHERE state = 1;
CREATE INDEX IF NOT EXISTS running ON job (worker) WHERE state = 3;
CREATE INDEX IF NOT EXISTS ended ON job (state, ended_at DESC, seq) WHERE state IN (4, 5, 6);
"""
_INSERT = "INSERT INTO job (id, queue, prio, ord, state, spec) VALUES (?, 'q', 0, ?, 1, ?) ON CONFLICT (id) DO NOTHING"
_CLAIM = """
UPDATE job SET state = 3, worker = 'floor', claim = ? WHERE seq IN (
    SELECT seq FROM job WHERE queue = 'q' AND state = 1 ORDER BY prio DESC, ord LIMIT ?) RETURNING seq, spec
"""
_SETTLE = """
UPDATE job SET state = 4, tail = ?, result = ?, ended_at = ?
WHERE seq = ? AND worker = 'floor' AND claim = ? AND state = 3
"""


class SqliteFloor:
    """A table with the columns and partial indexes that a queue needs; two batched statements in a transaction."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.executescript(_SCHEMA)
        self.stored = 0

    def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """A transaction each."""
        for i, id in enumerate(_ids(n, self.stored), self.stored):
            self.db.execute(_INSERT, (id, i, _spec(payload, 0)))
        self.stored += n

    def enqueue_batches(self, n: int, payload: bytes) -> None:
        """A transaction for each batch."""
        for start in range(self.stored, self.stored + n, SUBMIT):
            part = min(SUBMIT, self.stored + n - start)
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany(_INSERT, [(id, i, _spec(payload, 0)) for i, id in enumerate(_ids(part, start), start)])
            self.db.execute("COMMIT")
        self.stored += n

    async def drain(self, concurrency: int) -> None:
        """The finish of one batch and the claim of the next in one transaction; the slots run what was claimed."""
        done: list[_Done] = []
        claim = 0
        while True:
            self.db.execute("BEGIN IMMEDIATE")
            if done:
                self.db.executemany(_SETTLE, done)
            rows: list[tuple[int, bytes]] = self.db.execute(_CLAIM, (claim := claim + 1, CLAIM)).fetchall()
            self.db.execute("COMMIT")
            if not rows:
                return
            ready, done = deque(rows), []
            await asyncio.gather(*(self._slot(ready, done, claim) for _ in range(concurrency)))

    async def _slot(self, ready: deque[tuple[int, bytes]], done: list[_Done], claim: int) -> None:
        while ready:
            seq, data = ready.popleft()
            result = await noop(_decode_spec(data).payload)
            done.append((_tail(0), result, 0, seq, claim))

    def close(self) -> None:
        """Close the file."""
        self.db.close()
