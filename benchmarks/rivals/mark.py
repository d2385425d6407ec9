"""What the handlers of all libraries share: they leave on file when the first began, and how late each was."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from time import monotonic

FILE = Path(os.environ["BENCH_MARK"])
URL = os.environ["BENCH_URL"]
MOMENT = struct.Struct("<d")

_first = True
_fd = -1


def began() -> None:
    """The first line of `noop` and `sleep`: the moment of the first one is kept."""
    global _first
    if _first:
        _first = False
        FILE.write_text(repr(monotonic()), encoding="ascii")


def late(sent: float) -> None:
    """The first line of `stamp`."""
    global _fd
    seconds = monotonic() - sent
    if _fd < 0:
        _fd = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_fd, MOMENT.pack(seconds))
