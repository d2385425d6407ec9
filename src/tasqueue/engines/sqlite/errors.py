"""What SQLite's error codes mean to a user: what is wrong with which file, and the way out.

What heals by itself is an `EngineUnavailable`; what somebody must mend is a `FileUnusable`. Either way the engine
object goes on: the next call tries anew."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from ...errors import EngineUnavailable, TasqueueError


class FileUnusable(TasqueueError):
    """The database file cannot be used as it is: no database, damaged, not writable, in a folder that does not exist.
    The database file cannot be used as it is: no database, damaged, not writable, in a folder that does not exist."""


BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
FULL = sqlite3.SQLITE_FULL


def code(error: sqlite3.Error) -> int:
    """The primary result code; 0 when the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Somebody else holds a lock: to be tried again."""
    return code(error) in BUSY


def locked(path: str, seconds: float) -> str:
    """Why a call that only waited for a lock got no answer."""
    return (
        f"{path}: another process has held the database locked for {seconds:g} s; it works again once that one lets go"
        f" (`fuser {path}` shows who has it open)"
    )


def translate(error: sqlite3.Error, path: str) -> TasqueueError:
    """The error to raise instead."""
    what = code(error)
    if what in BUSY:
        return EngineUnavailable(f"{path}: locked by another process ({error}); try again")
    if what == FULL:
        return EngineUnavailable(
            f"{path}: the disk is full, nothing of this call was stored ({error}); make room, and it works again"
        )
    if what in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM):
        return EngineUnavailable(
            f"{path}: reading or writing failed ({_detail(error)}); the disk may be full, failing or gone:"
            " see the system's log"
        )
    return FileUnusable(_unusable(what, error, path))


def _unusable(what: int, error: sqlite3.Error, path: str) -> str:
    folder = Path(path).parent
    if what == sqlite3.SQLITE_CANTOPEN:
        if Path(path).is_dir():
            return f"{path}: is a folder, not a database file; give the URL of a file, such as sqlite:///{path}/tasqueue.db"
        if not folder.exists():
            return f"{path}: its folder {folder} does not exist; create it (mkdir -p {folder}) or correct the URL"
        if not folder.is_dir():
            return f"{path}: {folder} is a file, not a folder; correct the URL"
        return f"{path}: cannot be opened; check that this user may write the file and its folder {folder}"
    if what in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return (
            f"{path}: cannot be written ({error}); SQLite needs to write the file, `{path}-wal`, `{path}-shm` and the"
            f" folder {folder}: check their owner, their mode and whether the file system is mounted read-only"
        )
    if what == sqlite3.SQLITE_NOTADB:
        return f"{path}: is not an SQLite database; correct the URL, or move that file away"
    if what == sqlite3.SQLITE_CORRUPT:
        return (
            f"{path}: is damaged ({error}); stop every process that uses it, keep a copy, and rescue what there is with"
            f" `sqlite3 {path} .recover`"
        )
    return f"{path}: SQLite refused ({_detail(error)})"


def _detail(error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None)
    return f"{name}: {error}" if name else str(error)


def writable(path: str) -> bool:
    """Whether this process may write the file, or create it. (SQLite opens a file that it cannot write without a
    word.)"""
    return os.access(path, os.W_OK) if Path(path).exists() else True
