"""What the file's settings, the SQLite library and the file system really promise."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

from ...interfaces import Durability, Finding

FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""Where the WAL-reset bug is mended: from the first on, and in the later releases of the other two lines."""
REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs"}
)
VOLATILE = frozenset({"tmpfs", "ramfs"})


def examine(connection: sqlite3.Connection, path: str, synchronous: str) -> Durability:
    """Findings and the promise that follows from them."""
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    system = file_system(path)
    findings = [
        Finding("file", str(Path(path).absolute())),
        Finding("journal_mode", mode, "ok" if mode == "wal" else "error", "" if mode == "wal" else "WAL is needed"),
        _synchronous(synchronous),
        version(sqlite3.sqlite_version_info),
        _file_system(system),
    ]
    level: Literal["os-crash", "power-loss"] = "power-loss"
    promise = "What was acknowledged is on the disk (fsync at each commit) and survives a power cut."
    if synchronous in ("NORMAL", "OFF"):
        level, promise = (
            "os-crash",
            "What was acknowledged survives the end of every process; a power cut may undo the last of it.",
        )
    if system in VOLATILE:
        level, promise = (
            "os-crash",
            f"The file lies in memory ({system}): it survives processes, not the machine's restart.",
        )
    return Durability(level, promise, findings)


def _synchronous(value: str) -> Finding:
    if value in ("FULL", "EXTRA"):
        return Finding("synchronous", value)
    return Finding(
        "synchronous", value, "warn", "a power cut may undo acknowledged jobs; leave ?synchronous= out of the URL"
    )


def version(found: tuple[int, ...]) -> Finding:
    """The SQLite library's, with what is known to be wrong with it."""
    text = ".".join(map(str, found[:3]))
    if found >= FIXED[0] or any(found[:2] == line[:2] and found >= line for line in FIXED[1:]):
        return Finding("sqlite", text)
    advice = (
        "has the WAL-reset bug, which can damage a file that is checkpointed and written at the same instant. Tasqueue"
        " never does that, but other programs on this file may; 3.51.3, 3.50.7 and 3.44.6 are mended"
    )
    return Finding("sqlite", text, "warn", advice)


def _file_system(system: str) -> Finding:
    if system in REMOTE:
        return Finding(
            "file system",
            system,
            "error",
            "SQLite's locks and shared memory do not work over a network: use a local disk",
        )
    if system in VOLATILE:
        return Finding("file system", system, "warn", "kept in memory: gone after a restart of the machine")
    return Finding("file system", system or "unknown")


def file_system(path: str, mounts: str = "/proc/self/mounts") -> str:
    """The type of the one that the file lies on; "" where that cannot be told."""
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    folder = os.path.realpath(path)
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = fields[1].replace("\\040", " ")
        if (folder == mount or folder.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind
