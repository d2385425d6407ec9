"""What the handlers of all libraries share: they leave on file when the first began, when the last did, and how late
each was.
"""

from __future__ import annotations

import os
import struct
from itertools import count
from pathlib import Path
from time import monotonic

FILE = Path(os.environ["BENCH_MARK"])
LAST = FILE.with_suffix(".last")
URL = os.environ["BENCH_URL"]
FASTEST = os.environ["BENCH_VARIANT"] == "fastest"
RUNS = int(os.environ.get("BENCH_RUNS", "0"))
"""The run whose beginning is kept, for libraries whose server does not say how many have ended."""
MOMENT = struct.Struct("<d")

_first = True
_numbers = count(1)
_fd = -1


def _began() -> None:
    global _first
    if _first:
        _first = False
        FILE.write_text(repr(monotonic()), encoding="ascii")


def _began_counted() -> None:
    number = next(_numbers)
    if number == 1:
        _began()
    elif number == RUNS:
        LAST.write_text(repr(monotonic()), encoding="ascii")


began = _began_counted if RUNS else _began
"""The first line of `noop` and `sleep`."""


def late(sent: float) -> None:
    """The first line of `stamp`."""
    global _fd
    seconds = monotonic() - sent
    if _fd < 0:
        _fd = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_fd, MOMENT.pack(seconds))
