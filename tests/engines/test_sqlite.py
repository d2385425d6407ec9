"""What the conformance suite cannot ask of the SQLite engine: its file, errors, migrations, log, transactions."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasqueue.clock import SYSTEM
from tasqueue.core import codec
from tasqueue.core.job import DEFAULT_QUEUE
from tasqueue.core.record import Kind, Lease, Record, Step
from tasqueue.core.status import State, Status
from tasqueue.engines.sqlite import FileUnusable, SqliteEngine, database, durability, errors, lane, sql
from tasqueue.errors import EngineUnavailable, InvalidJob, TasqueueError, Unsupported
from tasqueue.interfaces import Filter

SCHEMA_0 = Path(__file__).parent / "data" / "schema-0.db"


def engine(path: Path, namespace: str = "tasqueue", *, timeout: float = 5.0, synchronous: str = "FULL") -> SqliteEngine:
    return SqliteEngine(str(path), namespace=namespace, timeout=timeout, ports=SYSTEM, synchronous=synchronous)


def record(id: str, queue: str = "q") -> Record:
    return Record(id, queue, "t", b"spec of " + id.encode())


def end(lease: Lease, state: State = State.SUCCESSFUL, ttl: int | None = None) -> Step:
    return Step(lease.id, lease.claim, Kind.END, state, b"tail", ttl=ttl, ref=lease.ref)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def size(path: Path) -> int:
    return path.stat().st_size


def wal_size(path: Path) -> int:
    return size(Path(f"{path}-wal"))


@pytest.fixture
async def one(path: Path) -> AsyncIterator[SqliteEngine]:
    one = engine(path)
    await one.open()
    yield one
    await one.close()


@contextmanager
def direct(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, past the engine."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


# -- what can be wrong with a file ------------------------------------------------------------------------------------


def _no_folder(path: Path) -> Path:
    return path.parent / "missing" / "jobs.db"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _below_a_file(path: Path) -> Path:
    path.write_text("not a folder")
    return path / "jobs.db"


def _text(path: Path) -> Path:
    path.write_text("this is no database, however long one looks at it\n" * 100)
    return path


def _mend(path: Path, bad: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    bad.parent.mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_no_folder, "does not exist; create it"),
        (_folder, "is a folder, not a database file"),
        (_below_a_file, "is a file, not a folder"),
        (_text, "is not an SQLite database"),
    ],
)
async def test_an_unusable_file_is_told_at_once_and_heals(path: Path, make, what: str) -> None:
    bad = make(path)
    one = engine(bad, timeout=30)
    for _ in range(2):
        with pytest.raises(FileUnusable, match=what) as caught:
            await asyncio.wait_for(one.submit([record("a")]), 5)
        assert str(bad) in str(caught.value)
    with pytest.raises(FileUnusable, match=what):
        await one.counts()
    _mend(path, bad)
    await one.submit([record("a")])
    assert (await one.counts()).queues == {"q": {State.READY: 1}}
    await one.close()


def _error(code: int, text: str = "as sqlite says") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = f"CODE_{code}"
    return error


@pytest.mark.parametrize(
    ("code", "kind", "what"),
    [
        (sqlite3.SQLITE_BUSY_RECOVERY, EngineUnavailable, "locked by another process"),
        (sqlite3.SQLITE_FULL, EngineUnavailable, "the disk is full"),
        (sqlite3.SQLITE_IOERR_WRITE, EngineUnavailable, "reading or writing failed"),
        (sqlite3.SQLITE_READONLY_DBMOVED, FileUnusable, "cannot be written"),
        (sqlite3.SQLITE_PERM, FileUnusable, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, FileUnusable, "cannot be opened"),
        (sqlite3.SQLITE_NOTADB, FileUnusable, "not an SQLite database"),
        (sqlite3.SQLITE_CORRUPT_INDEX, FileUnusable, "is damaged"),
        (sqlite3.SQLITE_ERROR, FileUnusable, "SQLite refused"),
    ],
)
def test_each_code_has_its_error(tmp_path: Path, code: int, kind: type[TasqueueError], what: str) -> None:
    found = errors.translate(_error(code), f"{tmp_path}/jobs.db")
    assert type(found) is kind
    assert what in str(found)
    assert f"{tmp_path}/jobs.db" in str(found)


async def test_a_file_that_is_replaced_while_it_is_open(path: Path, one: SqliteEngine) -> None:
    await one.submit([record("old")])
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.rename(f"{name}.away")
    await one.submit([record("new")])
    with direct(path) as connection:
        assert connection.execute("SELECT id FROM tasqueue_job").fetchall() == [("new",)]
    assert [row.id for row in await one.jobs(Filter(), 10, None)] == ["new"]


# -- versions ---------------------------------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused_and_left_alone(path: Path, one: SqliteEngine) -> None:
    await one.submit([record("a")])
    await one.close()
    with direct(path) as connection:
        connection.execute("UPDATE tasqueue_store SET version = 99")
    with pytest.raises(Unsupported, match=r"schema 99.*upgrade"):
        await one.submit([record("b")])
    other = engine(path, "elsewhere")
    await other.submit([record("c")])
    await other.close()
    with direct(path) as connection:
        assert connection.execute("SELECT id FROM tasqueue_job").fetchall() == [("a",)]
        connection.execute("UPDATE tasqueue_store SET version = ?", (sql.ENGINE.version,))
    await one.submit([record("b")])
    assert (await one.counts()).queues == {"q": {State.READY: 2}}


async def test_a_file_of_schema_0_is_brought_along(path: Path) -> None:
    shutil.copy(SCHEMA_0, path)
    engines = [engine(path) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in engines))  # only one of them may migrate
    one = engines[0]

    counts = await one.counts()
    assert counts.queues == {DEFAULT_QUEUE: {State.READY: 4, State.DUE: 1}, "mail": {State.READY: 1}}
    assert counts.ended == {State.SUCCESSFUL: 1, State.FAILED: 1, State.CANCELLED: 0}
    (done,) = await one.get(["done"])
    assert done is not None
    assert (done.state, done.result, codec.decode_tail(done.tail).status) == (
        State.SUCCESSFUL,
        b"a-64.png",
        Status.SUCCESSFUL,
    )
    assert done.ended_at == 1767225600100
    (schedule,) = await one.schedules()
    assert (schedule.id, schedule.schedule, schedule.paused) == ("cron:report", "@daily", False)
    assert codec.decode_spec(schedule.job).task == "report"

    (failed,) = await one.get(["failed"])
    assert failed is not None
    assert await one.reopen("failed", failed.ended_at or 0, failed.tail)
    await one.promote()
    await one.register("w", 60_000, b"", {}, 1)
    leases = (await one.claim("w", 1, {DEFAULT_QUEUE: 10, "mail": 10})).leases
    order = ["urgent", "ready-1", "ready-2", "held-by-a-worker", "failed", "retrying", "elsewhere"]
    assert [lease.id for lease in leases] == order
    assert [codec.decode_spec(lease.spec).payload for lease in leases][:2] == [b"d.png", b"b.png"]
    assert leases[2].deaths == 1
    assert codec.decode_tail(leases[5].tail).retried == 1
    assert await one.settle("w", [end(lease) for lease in leases]) == [True] * 7
    for one in engines:
        await one.close()
    with direct(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT version FROM tasqueue_store").fetchone() == (sql.ENGINE.version,)


async def test_a_migration_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SCHEMA_0, path)
    whole = sql.read
    monkeypatch.setattr(
        sql, "read", lambda name: whole(name) + "INSERT INTO nowhere VALUES (1);" * (name == "migrate_0")
    )
    one = engine(path)
    with pytest.raises(FileUnusable, match="nowhere"):
        await one.open()
    with direct(path) as connection:
        assert connection.execute("SELECT count(*) FROM tasqueue_job WHERE state = 1").fetchone() == (4,)
    monkeypatch.setattr(sql, "read", whole)
    assert (await one.counts()).ended[State.FAILED] == 1
    await one.close()


# -- namespaces -------------------------------------------------------------------------------------------------------


async def test_namespaces_of_one_file_know_nothing_of_each_other(path: Path) -> None:
    names = ["tasqueue", "Tasqueue", "sqlite_x", "Sqlite_x", "a-b", "a_b", "0", "x" * 64]
    engines = [engine(path, name) for name in names]
    for one, name in zip(engines, names, strict=True):
        await one.submit([record("a", f"queue-of-{name}")])
    for one, name in zip(engines, names, strict=True):
        assert (await one.counts()).queues == {f"queue-of-{name}": {State.READY: 1}}
        await one.close()


@pytest.mark.parametrize("name", ["", "x" * 65, 'a"b', "a b", "a;b", "é", "a\n"])
def test_a_namespace_is_checked(path: Path, name: str) -> None:
    with pytest.raises(InvalidJob, match="namespace"):
        engine(path, name)


def test_synchronous_is_checked(path: Path) -> None:
    with pytest.raises(InvalidJob, match="synchronous='SOMETIMES'"):
        engine(path, synchronous="SOMETIMES")


# -- shared transactions ----------------------------------------------------------------------------------------------


async def test_what_waits_together_shares_a_transaction(one: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    whole = lane.Lane._run

    def run(self: lane.Lane, connection: sqlite3.Connection, ops: list[lane.Op]) -> None:
        batches.append(len(ops))
        whole(self, connection, ops)

    monkeypatch.setattr(lane.Lane, "_run", run)
    await asyncio.gather(*(one.submit([record(f"{i}")]) for i in range(100)))
    assert sum(batches) == 100
    assert len(batches) < 50
    assert (await one.counts()).queues == {"q": {State.READY: 100}}


async def test_one_that_fails_does_not_undo_its_neighbours(one: SqliteEngine) -> None:
    bad = [record("with-bad"), Record("bad", "q", "t", b"", priority=1 << 70)]
    results = await asyncio.gather(
        one.submit([record("before")]), one.submit(bad), one.submit([record("after")]), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), OverflowError, type(None)]
    assert {row.id for row in await one.jobs(Filter(), 10, None)} == {"before", "after"}


async def test_a_call_that_was_cancelled_is_not_done_later(path: Path, one: SqliteEngine) -> None:
    async def cancelled(id: str) -> None:
        call = asyncio.create_task(one.submit([record(id)]))
        await asyncio.sleep(0)  # posted
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    with direct(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        await cancelled("first")  # the thread has it, and tries to begin
        patient = asyncio.create_task(one.submit([record("patient")]))
        async with asyncio.timeout(5):
            while not one._open().writer.blocked:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.001)
        await cancelled("second")  # it lies in the queue behind the patient one
        connection.execute("ROLLBACK")
    await patient
    await one.submit([record("last")])
    assert [row.id for row in await one.jobs(Filter(), 10, None)] == ["last", "patient"]


async def test_a_call_whose_time_was_up_is_not_done_later(path: Path) -> None:
    one = engine(path, timeout=0.2)
    await one.open()
    with direct(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(EngineUnavailable, match="locked") as caught:
            await one.submit([record("late")])
        assert caught.value.ids == ("late",)
        connection.execute("ROLLBACK")
    await one.submit([record("stored")])
    assert [row.id for row in await one.jobs(Filter(), 10, None)] == ["stored"]
    await one.close()


async def test_threads_with_a_twin_each(path: Path, one: SqliteEngine) -> None:
    def run(n: int) -> None:
        async def submit() -> None:
            twin = one.twin()
            for i in range(20):
                await twin.submit([record(f"{n}-{i}")])
            await twin.close()

        asyncio.run(submit())

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert (await one.counts()).queues == {"q": {State.READY: 80}}


def test_the_engine_goes_on_when_its_loop_was_closed(path: Path) -> None:
    one = engine(path)
    asyncio.run(one.submit([record("a")]))

    async def more() -> None:
        await one.submit([record("b")])
        assert [row.id for row in await one.jobs(Filter(), 10, None)] == ["b", "a"]
        await one.close()

    asyncio.run(more())


# -- the log and the file ---------------------------------------------------------------------------------------------


async def test_the_log_is_bounded_under_load_and_short_at_rest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 1 << 20)
    monkeypatch.setattr(lane, "QUIET", 0.02)
    one = engine(path)
    sizes: list[int] = []
    for i in range(30):
        await one.submit([Record(f"{i}-{k}", "q", "t", b"s" * 300) for k in range(400)])
        sizes.append(wal_size(path))
    assert size(path) > 3 << 20
    assert max(sizes) < 3 << 20
    async with asyncio.timeout(10):
        while wal_size(path) > database.WAL_IDLE:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
    assert (await one.counts()).queues == {"q": {State.READY: 12_000}}
    await one.close()


async def test_the_file_shrinks_after_a_backlog(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "QUIET", 0.02)
    monkeypatch.setattr(database, "UNUSED", 100)
    monkeypatch.setattr(database, "WAL_LIMIT", 200_000)
    one = engine(path)
    for i in range(20):
        await one.submit([Record(f"{i}-{k}", "q", "t", b"s" * 300) for k in range(200)])
    assert size(path) > 1.3 * (1 << 20)
    await one.register("w", 60_000, b"", {}, 1)
    leases = (await one.claim("w", 1, {"q": 10_000})).leases
    assert all(await one.settle("w", [end(lease, ttl=0) for lease in leases]))
    async with asyncio.timeout(10):
        while size(path) > 1 << 20:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
    await one.close()


async def test_an_old_reader_delays_the_checkpoint_and_no_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 200_000)
    one = engine(path)
    await one.submit([record("first")])
    with direct(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tasqueue_job").fetchone()
        for i in range(10):
            await one.submit([Record(f"{i}-{k}", "q", "t", b"s" * 300) for k in range(200)])
        assert wal_size(path) > 400_000
        reader.execute("COMMIT")
    for i in range(10, 13):
        await one.submit([Record(f"{i}-{k}", "q", "t", b"s" * 300) for k in range(200)])
    assert wal_size(path) < 400_000
    await one.close()


# -- reading ----------------------------------------------------------------------------------------------------------


async def test_listing_by_a_filter_looks_at_so_many_and_no_more(
    one: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasqueue.engines.sqlite import reading

    monkeypatch.setattr(reading, "LOOK", 20)
    monkeypatch.setattr(reading, "LOOKS", 3)
    await one.submit([Record(str(i), "q", "rare" if i in (10, 60, 95) else "common", b"") for i in range(100)])
    for states in (None, [State.READY]):
        rows = await one.jobs(Filter(states=states, task="rare"), 10, None)
        assert [row.id for row in rows] == ["95", "60"]
        assert len(await one.jobs(Filter(states=states), 100, None)) == 60
    monkeypatch.setattr(reading, "LOOKS", 5)  # as many as are ready: no backlog
    assert len(await one.jobs(Filter(states=[State.READY], task="rare"), 10, None)) == 3


async def test_the_newest_ready_ones_of_a_backlog(one: SqliteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasqueue.engines.sqlite import reading

    monkeypatch.setattr(reading, "LOOK", 2)
    await one.submit([Record(str(i), "q", "t", b"", priority=i) for i in range(100)])
    await one.register("w", 60_000, b"", {}, 1)
    leases = (await one.claim("w", 1, {"q": 5})).leases
    await one.settle("w", [end(lease) for lease in leases[:3]])
    rows = await one.jobs(Filter(states=[State.READY]), 4, None)
    assert [row.id for row in rows] == ["94", "93", "92", "91"]
    rows = await one.jobs(Filter(states=[State.READY, State.RUNNING]), 3, "98")
    assert [row.id for row in rows] == ["96", "95", "94"]


async def test_no_statement_of_the_hot_path_reads_a_whole_table(path: Path, one: SqliteEngine) -> None:
    names = sql.Sql("tasqueue")
    hot = [
        "ready_new",
        "read_ready",
        "take_ready",
        "last_ready",
        "leave_line",
        "next_due",
        "due_in",
        "due_anywhere",
        "worker",
    ]
    hot += [
        "get",
        "ended_4",
        "ended_5",
        "ended_6",
        "outlived",
        "count_ended",
        "place_of",
        "job_open",
        "link",
        "held_of_link",
    ]
    await one.submit([record("a")])
    with direct(path) as connection:
        for name in hot:
            parameters = [1] * max(names[name].count("?"), 1)
            try:
                plan = connection.execute(f"EXPLAIN QUERY PLAN {names[name]}", parameters).fetchall()
            except sqlite3.ProgrammingError:  # numbered parameters, or none
                numbered = sum(f"?{i}" in names[name] for i in range(1, 9))
                plan = connection.execute(f"EXPLAIN QUERY PLAN {names[name]}", [1] * numbered).fetchall()
            steps = [step for *_, step in plan if step != "SCAN CONSTANT ROW"]
            assert steps, name
            assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], (name, steps)


# -- what it promises -------------------------------------------------------------------------------------------------


async def test_durability_tells_the_settings(path: Path, one: SqliteEngine) -> None:
    full = await one.durability()
    assert full.level in ("power-loss", "os-crash")  # the second where the temporary folder lies in memory
    found = {finding.name: finding for finding in full.findings}
    assert (found["journal_mode"].value, found["synchronous"].value) == ("wal", "FULL")
    assert found["file"].value == str(path)
    weak = engine(path, synchronous="normal")
    assert (await weak.durability()).level == "os-crash"
    await weak.close()


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 40, 1), "warn"),
        ((3, 44, 6), "ok"),
        ((3, 50, 6), "warn"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warn"),
        ((3, 52, 0), "ok"),
    ],
)
def test_the_wal_reset_bug_is_named(version: tuple[int, int, int], level: str) -> None:
    assert durability.version(version).level == level


def test_the_file_system_is_found(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\ntmpfs {tmp_path}/with\\040space tmpfs rw 0 0\n"
    )
    assert durability.file_system("/jobs.db", str(mounts)) == "ext4"
    assert durability.file_system(f"{tmp_path}/jobs.db", str(mounts)) == "nfs4"
    assert durability.file_system(f"{tmp_path}/with space/jobs.db", str(mounts)) == "tmpfs"
    assert durability.file_system(f"{tmp_path}/jobs.db", str(tmp_path / "none")) == ""
