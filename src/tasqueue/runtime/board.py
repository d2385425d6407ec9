"""A page of memory that a worker child writes and its supervisor reads: who it is now, when its next job is overdue.

It is there so that the supervisor can keep the lease of a child that can say nothing itself, because a handler holds
the GIL (G9). Writing is a store to shared memory: no system call, no lock, from any thread.

Invariant: what is read was written as a whole. Numbers are aligned words, written by one store; the name is written to
the slot that nobody reads and shown by a count that is written last, with a checksum for machines that reorder stores.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import zlib
from enum import IntEnum
from pathlib import Path

_SIZE = 1024
_COUNT, _DEADLINE, _STATE = 0, 1, 2
"""Which word of 8 bytes."""
_SLOTS = 64, 512
_MAX_NAME = 400


class State(IntEnum):
    """How far a child is."""

    STARTING = 0
    RUNNING = 1
    DRAINING = 2


class Board:
    """Made by the supervisor with `create`, opened by the child with `attach`; `fd` is what the child inherits."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._page = mmap.mmap(fd, _SIZE)
        self._view = memoryview(self._page)
        self._words = self._view[:64].cast("Q")
        self._floats = self._view[:64].cast("d")

    @classmethod
    def create(cls) -> Board:
        """An empty page, backed by a file that has no name any more."""
        fd, path = tempfile.mkstemp(prefix="tasqueue-board-")
        try:
            Path(path).unlink()
            os.ftruncate(fd, _SIZE)
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def attach(cls, fd: int) -> Board:
        """The page of the supervisor, by the inherited descriptor."""
        return cls(fd)

    def close(self) -> None:
        """Let go of the page and the descriptor."""
        for view in (self._words, self._floats, self._view):
            view.release()
        self._page.close()
        os.close(self.fd)

    # -- the child ----------------------------------------------------------------------------------------------------

    def set_worker(self, name: str) -> None:
        """The incarnation that it works under from now on."""
        data = name.encode()
        if len(data) > _MAX_NAME:
            raise ValueError(f"incarnation {name!r}: {len(data)} bytes, over {_MAX_NAME}")
        count = self._words[_COUNT] + 1
        at = _SLOTS[count & 1]
        slot = len(data).to_bytes(2, "little") + zlib.crc32(data).to_bytes(4, "little") + data
        self._view[at : at + len(slot)] = slot
        self._words[_COUNT] = count

    def set_deadline(self, deadline: float) -> None:
        """The earliest deadline of a running job, in monotonic seconds; 0.0: there is none."""
        self._floats[_DEADLINE] = deadline

    def set_state(self, state: State) -> None:
        """How far it is."""
        self._words[_STATE] = state

    # -- the supervisor -----------------------------------------------------------------------------------------------

    @property
    def worker(self) -> str:
        """The last incarnation that was written whole; "" before the first."""
        for _ in range(100):
            count = self._words[_COUNT]
            if not count:
                return ""
            at = _SLOTS[count & 1]
            size = int.from_bytes(self._view[at : at + 2], "little")
            crc = int.from_bytes(self._view[at + 2 : at + 6], "little")
            data = bytes(self._view[at + 6 : at + 6 + min(size, _MAX_NAME)])
            if self._words[_COUNT] == count and zlib.crc32(data) == crc:
                return data.decode()
        return ""

    @property
    def deadline(self) -> float:
        """As `set_deadline`."""
        return self._floats[_DEADLINE]

    @property
    def state(self) -> State:
        """As `set_state`."""
        return State(self._words[_STATE])
