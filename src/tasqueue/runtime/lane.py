"""A queue as one worker sees it: what is claimed and waits for a slot, what runs, and how much more to ask for.

Invariant: a claimed job is in exactly one place: `ready` (may be given back by anybody who pops it, the keeper's thread
included: a deque's pops are atomic), `running`, or the settler's batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from ..client.context import JobCtx
from ..client.registry import TaskDef
from ..core.lifecycle import Run

PREFETCH_SECONDS = 0.05
MAX_BATCH = 512
MAX_BYTES = 4 << 20


class Active(msgspec.Struct, gc=False, eq=False):
    """A job in a slot. `gc=False`: its slot's frame refers to it only until the next job."""

    run: Run
    ctx: JobCtx
    task: TaskDef
    lane: Lane
    slot: asyncio.Task[None]
    started: float
    """Monotonic seconds."""
    timeout: float = 0.0
    """Seconds; 0.0: none."""
    deadline: float = 0.0
    future: asyncio.Future[Any] | None = None
    """Where the slot waits for a thread; a thread cannot be cancelled."""
    fenced: bool = False
    """It ignored its interruption: its slot was given to somebody else."""
    alone: bool = False
    """Its last allowed run, in a child of its own."""
    ended: bool = False
    error: BaseException | None = None
    """What the run ended in, for the callbacks."""
    saved: bytes | None = None
    """What it had saved when it was interrupted."""
    seconds: float = 0.0
    """How long it ran."""


class Lane:
    """One queue's share of this worker."""

    __slots__ = (
        "bytes",
        "concurrency",
        "filled",
        "idle",
        "low",
        "mean",
        "paused",
        "queue",
        "ready",
        "running",
        "slots",
        "taken",
    )

    def __init__(self, queue: str, concurrency: int) -> None:
        self.queue = queue
        self.concurrency = concurrency
        self.ready: deque[Run] = deque()
        self.running: dict[str, Active] = {}
        self.idle: deque[asyncio.Future[None]] = deque()
        self.slots: set[asyncio.Task[None]] = set()
        self.mean: float | None = None
        """Recent mean seconds a run; None before the first."""
        self.bytes = 0.0
        """Recent mean bytes a record."""
        self.paused = False
        self.filled = 0.0
        self.low = -1
        """With so few left in `ready` it is time to ask for more."""
        self.taken = 0

    def want(self, now: float) -> int:
        """How many to claim: for the idle slots, and as many more as start within 50 ms, judged by the larger of the
        recent mean and the age of the oldest running job. With slow jobs that is none."""
        if self.paused:
            return 0
        free = min(len(self.idle), self.concurrency - len(self.running))
        room = free + self._prefetch(now) - len(self.ready)
        if room <= 0:
            return 0
        most = MAX_BATCH if not self.bytes else max(1, min(MAX_BATCH, int(MAX_BYTES / self.bytes)))
        if free or room * 2 >= most:
            return min(room, most)
        return 0

    def _prefetch(self, now: float) -> int:
        if self.mean is None:
            return 0
        slowest = self.mean
        for active in self.running.values():  # in order of their start: the first is the oldest
            slowest = max(slowest, now - active.started)
            break
        return min(MAX_BATCH * 2, int(self.concurrency * PREFETCH_SECONDS / max(slowest, 1e-6)))

    def add(self, runs: list[Run], now: float) -> None:
        """Take claimed jobs in and wake as many slots."""
        self.ready.extend(runs)
        self.filled = now
        self.low = len(self.ready) // 2
        for _ in range(min(len(runs), len(self.idle))):
            future = self.idle.popleft()
            if not future.done():
                future.set_result(None)

    def take_back(self) -> list[Run]:
        """Empty `ready`, from its end, so that slots go on taking from its front meanwhile."""
        taken: list[Run] = []
        while True:
            try:
                taken.append(self.ready.pop())
            except IndexError:
                return taken
