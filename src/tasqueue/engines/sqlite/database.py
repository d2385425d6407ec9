"""A connection to the file: its settings, the schema and its migrations, and the checkpoints of the write-ahead log.

Checkpoints are ours alone (`wal_autocheckpoint` is 0 on every connection), and one is only ever made by a process
that holds the write lock, on a second connection. So no two run at a time, none runs beside a commit, and nobody
needs to be elected: the role is held for as long as the lock, and a killed process drops it. That keeps clear of the
"WAL-reset" bug of SQLite before 3.51.3, which needs a commit during a checkpoint to damage the file
(https://sqlite.org/wal.html#walresetbug)."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from ...errors import InvalidJob, Unsupported
from . import sql
from .errors import FileUnusable, writable

NEEDED = (3, 35, 0)
"""RETURNING."""
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
WAL_LIMIT = 8 << 20
"""Bytes of write-ahead log that call for a checkpoint."""
WAL_IDLE = 256 << 10
"""The same when there is nothing else to do."""
CACHE_KIB = 16_000
UNUSED = 2_000
"""Pages of 4 KiB."""

# Tried, and left out, since they gained nothing that could be told from the noise: mmap_size, page_size 8192 and 16384,
# a cache of 64 MB, locking the file exclusively for a lone process (which would shut others out). secure_delete, on
# in Debian's build, costs a tenth: it overwrites with zeros what is deleted.


def check_synchronous(value: str) -> str:
    """InvalidJob unless SQLite knows it."""
    if value.upper() not in SYNCHRONOUS:
        raise InvalidJob(f"synchronous={value!r}: one of {', '.join(SYNCHRONOUS)}")
    return value.upper()


def connect(path: str, *, synchronous: str, readonly: bool = False) -> sqlite3.Connection:
    """An open connection in WAL mode that waits for no lock by itself. sqlite3.Error, FileUnusable, Unsupported."""
    if sqlite3.sqlite_version_info < NEEDED:
        raise Unsupported(f"SQLite {sqlite3.sqlite_version}: at least {'.'.join(map(str, NEEDED))} is needed")
    if Path(path).is_file() and not writable(path):
        raise FileUnusable(f"{path}: this user may not write it; check its owner and mode, and those of its folder")
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        run = connection.execute
        run("PRAGMA secure_delete = OFF")
        if not run("PRAGMA page_count").fetchone()[0]:  # a new file; of any other, this would need the write lock
            run("PRAGMA auto_vacuum = INCREMENTAL")  # so that it can shrink again after a backlog
        mode = run("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise FileUnusable(
                f"{path}: the write-ahead log cannot be used here (journal mode {mode});"
                " keep the file on a local file system"
            )
        run("PRAGMA wal_autocheckpoint = 0")
        # The log's file is kept at this size and written anew from its beginning, which saves the file system a good
        # deal of work; so it is larger only when so much of it is in use.
        run(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        run(f"PRAGMA synchronous = {synchronous}")
        run("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk
        run(f"PRAGMA cache_size = {-CACHE_KIB}")
        run("PRAGMA temp_store = MEMORY")
        if readonly:
            run("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, names: sql.Sql, path: str) -> None:
    """Bring the tables to our version, whatever they are at; the first to come does it, under the write lock."""
    layout = names.layout
    if _version(connection, names) == layout.version:
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        version = _version(connection, names)
        if version is None:
            _script(connection, names.of(sql.read(layout.schema)))
            version = layout.version
        if version > layout.version:
            raise Unsupported(
                f"{path}: namespace written by a newer tasqueue (schema {version}, this one knows up to"
                f" {layout.version}); upgrade tasqueue here, or use another file or namespace"
            )
        for old in range(version, layout.version):
            _script(connection, names.of(sql.read(f"migrate_{old}").replace("-- schema", sql.read(layout.schema))))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection, names: sql.Sql) -> int | None:
    """None: there is nothing yet. Schema 0 had no table that told its version."""
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if names.table("store") in found:
        return connection.execute(names.of("SELECT version FROM ns_store")).fetchone()[0]
    return 0 if names.table("job") in found else None


def _script(connection: sqlite3.Connection, text: str) -> None:
    """`executescript` would commit first; this stays within the transaction."""
    statement = ""
    for line in re.sub(r"--[^\n]*", "", text).splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


class File:
    """Which file the path names now, and how large its log is, without opening it (which would drop SQLite's locks)."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._wal = Path(f"{path}-wal")

    def identity(self) -> tuple[int, int] | None:
        """None: there is no such file."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino)

    def wal_size(self) -> int:
        """Bytes."""
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0


def give_back_pages(connection: sqlite3.Connection) -> bool:
    """Let the file shrink a little when much of it is unused, as after a backlog. Whether it did."""
    if connection.execute("PRAGMA freelist_count").fetchone()[0] < UNUSED:
        return False
    before = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA incremental_vacuum({UNUSED})").fetchall()
    return connection.execute("PRAGMA page_count").fetchone()[0] < before


def shrink(writer: sqlite3.Connection, touch: str) -> None:
    """After a checkpoint: begin the log anew at no more than it needs."""
    writer.execute("PRAGMA journal_size_limit = 0")
    try:
        writer.execute(touch)
    finally:
        writer.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")


def checkpoint(writer: sqlite3.Connection, second: sqlite3.Connection) -> bool:
    """Move the log into the file; the next commit begins it anew. False: others are writing, or a reader still needs
    it."""
    try:
        writer.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    try:
        busy, pages, moved = second.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and pages == moved
    finally:
        writer.execute("ROLLBACK")
