"""The SQLite engine beside two plain loops that do the same bookkeeping by hand.

    python benchmarks/floor_sqlite.py [JOBS] [ROUNDS]

Each stores jobs in batches of 500, then drains them 300 at a time: claim, decode the spec, run nothing, encode the
tail, store status and result; the settle of one batch shares its transaction with the next claim. WAL,
synchronous=FULL. No lease, no chain, no retry, no second process, and no loop or thread between the caller and the
database: that is the floor.

    one table       rows change their state in place, under partial indexes: UPDATE … RETURNING, executemany
    narrow tables   the engine's own layout: the wide row is written once, small tables say where a job is
    engine          SqliteEngine through its async API, claim and settle posted together

Rounds are interleaved and the best of each is told, with the CPU of the process, which is steadier on a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasqueue.clock import SYSTEM
from tasqueue.core import codec
from tasqueue.core.codec import Tail
from tasqueue.core.ids import uuid7
from tasqueue.core.job import DEFAULT_QUEUE, Job
from tasqueue.core.record import Kind, Lease, Record, Step
from tasqueue.core.status import State, Status
from tasqueue.engines.sqlite import SqliteEngine

SUBMIT, CLAIM = 500, 300
NOW = 1_764_000_000_000
DAY = 86_400_000
SPEC = codec.encode_spec(Job("noop", b"x" * 100), NOW)
RESULT = b"0123456789"

ONE_TABLE = """
CREATE TABLE job (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, queue TEXT NOT NULL, prio INTEGER NOT NULL, ord INTEGER NOT NULL,
    state INTEGER NOT NULL, due INTEGER, worker INTEGER, claim INTEGER, at INTEGER, task TEXT NOT NULL,
    ended_at INTEGER, gone_at INTEGER, spec BLOB NOT NULL, tail BLOB, result BLOB);
CREATE INDEX ready ON job (queue, prio DESC, ord) WHERE state = 1;
CREATE INDEX due ON job (due) WHERE state = 2;
CREATE INDEX running ON job (worker) WHERE state = 3;
CREATE INDEX ended ON job (state, ended_at) WHERE state IN (4, 5, 6);
CREATE INDEX gone ON job (gone_at) WHERE gone_at IS NOT NULL;
"""
NARROW = """
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


def _ids(n: int) -> list[str]:
    return [uuid7(NOW + i // 100, os.urandom(10)) for i in range(n)]


def _tail() -> bytes:
    return codec.encode_tail(Tail(1, Status.SUCCESSFUL, 0, NOW, NOW + 1, "host-1234-abcdef"))


def _open(path: Path, schema: str) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("secure_delete = OFF", "journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 2000"):
        db.execute(f"PRAGMA {pragma}")
    db.executescript(schema)
    return db


def one_table(path: Path, ids: list[str]) -> Iterator[None]:
    db = _open(path, ONE_TABLE)
    insert = """INSERT INTO job (seq, id, queue, prio, ord, state, task, spec) VALUES (?, ?, ?, 0, ?, 1, 'noop', ?)
        ON CONFLICT (id) DO NOTHING"""
    for start in range(0, len(ids), SUBMIT):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            insert, [(seq, id, DEFAULT_QUEUE, seq, SPEC) for seq, id in enumerate(ids[start : start + SUBMIT], start)]
        )
        db.execute("COMMIT")
    yield
    take = """UPDATE job SET state = 3, worker = 7, claim = ?, at = ? WHERE seq IN (
        SELECT seq FROM job WHERE state = 1 AND queue = ? ORDER BY prio DESC, ord LIMIT ?) RETURNING seq, spec"""
    settle = """UPDATE job SET state = 4, tail = ?, result = ?, ended_at = ?, gone_at = ?
        WHERE seq = ? AND worker = 7 AND claim = ? AND state = 3"""
    done: list[tuple[object, ...]] = []
    number = ended = 0
    while True:
        db.execute("BEGIN IMMEDIATE")
        ended += db.executemany(settle, done).rowcount if done else 0
        number += 1
        rows = db.execute(take, (number, NOW, DEFAULT_QUEUE, CLAIM)).fetchall()
        db.execute("COMMIT")
        if not rows:
            break
        done = []
        for seq, spec in rows:
            codec.decode_spec(spec)
            done.append((_tail(), RESULT, NOW + number, NOW + number + DAY, seq, number))
    assert ended == len(ids)
    db.close()
    yield


def narrow_tables(path: Path, ids: list[str]) -> Iterator[None]:
    db = _open(path, NARROW)
    insert = """INSERT INTO job (seq, id, queue, prio, ord, state, task, spec) VALUES (?, ?, ?, 0, ?, 1, 'noop', ?)
        ON CONFLICT (id) DO NOTHING"""
    line_up = "INSERT INTO ready SELECT queue, prio, ord, seq FROM job WHERE seq >= ? AND seq < ?"
    for start in range(0, len(ids), SUBMIT):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            insert, [(seq, id, DEFAULT_QUEUE, seq, SPEC) for seq, id in enumerate(ids[start : start + SUBMIT], start)]
        )
        db.execute(line_up, (start, start + SUBMIT))
        db.execute("COMMIT")
    yield
    read = """SELECT j.seq, j.spec, r.ord FROM ready r CROSS JOIN job j ON j.seq = r.seq
        WHERE r.queue = ? ORDER BY r.prio DESC, r.ord LIMIT ?"""
    take = "INSERT INTO running SELECT seq, 7, ?, ? FROM ready WHERE queue = ? ORDER BY prio DESC, ord LIMIT ?"
    settle = """INSERT INTO outcome SELECT ?1, 4, ?2, ?3, worker, claim, ?4, ?5 FROM running
        WHERE seq = ?1 AND worker = 7 AND claim = ?6"""
    done: list[tuple[object, ...]] = []
    number = ended = 0
    while True:
        db.execute("BEGIN IMMEDIATE")
        if done:
            ended += db.executemany(settle, done).rowcount
            db.execute("DELETE FROM running WHERE worker = 7 AND claim = ?", (number,))
        number += 1
        rows = db.execute(read, (DEFAULT_QUEUE, CLAIM)).fetchall()
        if rows:
            db.execute(take, (number, NOW, DEFAULT_QUEUE, CLAIM))
            db.execute("DELETE FROM ready WHERE queue = ? AND prio = 0 AND ord <= ?", (DEFAULT_QUEUE, rows[-1][2]))
        db.execute("COMMIT")
        if not rows:
            break
        done = []
        for seq, spec, _ in rows:
            codec.decode_spec(spec)
            done.append((seq, NOW + number, NOW + number + DAY, _tail(), RESULT, number))
    assert ended == len(ids)
    db.close()
    yield


def engine(path: Path, ids: list[str]) -> Iterator[None]:
    one = SqliteEngine(str(path), namespace="tasqueue", timeout=30, ports=SYSTEM)
    loop = asyncio.new_event_loop()
    records = [Record(id, DEFAULT_QUEUE, "noop", SPEC) for id in ids]

    async def submit() -> None:
        for start in range(0, len(records), SUBMIT):
            await one.submit(records[start : start + SUBMIT])

    def finish(lease: Lease) -> Step:
        codec.decode_spec(lease.spec)
        return Step(
            lease.id,
            lease.claim,
            Kind.END,
            State.SUCCESSFUL,
            _tail(),
            RESULT,
            0,
            DAY,
            link=lease.link,
            pos=lease.pos,
            ref=lease.ref,
        )

    async def drain() -> int:
        await one.register("w", 600_000, b"", {}, 1)
        number, ended = 1, 0
        claim = await one.claim("w", number, {DEFAULT_QUEUE: CLAIM})
        while claim.leases:
            number += 1
            steps = [finish(lease) for lease in claim.leases]
            accepted, claim = await asyncio.gather(
                one.settle("w", steps), one.claim("w", number, {DEFAULT_QUEUE: CLAIM})
            )
            ended += sum(accepted)
        await one.close()
        return ended

    loop.run_until_complete(submit())
    yield
    assert loop.run_until_complete(drain()) == len(ids)
    loop.close()
    yield


def main(jobs: int = 60_000, rounds: int = 3) -> None:
    ways: dict[str, Callable[[Path, list[str]], Iterator[None]]] = {
        "one table": one_table,
        "narrow tables": narrow_tables,
        "engine": engine,
    }
    best: dict[str, list[float]] = {name: [1e9] * 4 for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                ids = _ids(jobs)
                steps = way(Path(folder, "floor.db"), ids)
                for part in (0, 1):
                    wall, cpu = time.perf_counter(), time.process_time()
                    next(steps)
                    figures = time.perf_counter() - wall, time.process_time() - cpu
                    for i, seconds in enumerate(figures):
                        best[name][2 * part + i] = min(best[name][2 * part + i], seconds / jobs)
                steps.close()  # type: ignore[attr-defined]
    print(f"{'':15}{'enqueued/s':>12}{'CPU µs':>8}{'drained/s':>12}{'CPU µs':>8}   drain, engine to this (wall, CPU)")
    for name, (wall, cpu, wall2, cpu2) in best.items():
        ratio = f"{wall2 / best['engine'][2]:.2f}, {cpu2 / best['engine'][3]:.2f}"
        print(f"{name:15}{1 / wall:12,.0f}{cpu * 1e6:8.1f}{1 / wall2:12,.0f}{cpu2 * 1e6:8.1f}   {ratio}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
