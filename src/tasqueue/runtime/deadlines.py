"""Timeouts: one timer over a heap of deadlines, instead of a timeout scope per job (2.7 us each).

Jobs that have ended stay in the heap until their time comes or half of it is stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from .lane import Active

LEAST = 64
"""Entries: a heap of fewer is not cleared. Each keeps what its job was given and has saved."""


class Deadlines:
    """Calls `expired(active)` on the loop once for each job that is past its deadline and has not ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        mono: Callable[[], float],
        expired: Callable[[Active], None],
        moved: Callable[[float], None] | None = None,
    ) -> None:
        self._loop = loop
        self._mono = mono
        self._expired = expired
        self._moved = moved
        self._heap: list[tuple[float, int, Active]] = []
        self._count = 0
        self._most = LEAST
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def add(self, active: Active, seconds: float) -> None:
        """Watch it from now on."""
        self._count += 1
        active.deadline = self._mono() + seconds
        heappush(self._heap, (active.deadline, self._count, active))
        if len(self._heap) > self._most:
            self._heap = [entry for entry in self._heap if not entry[2].ended]
            heapify(self._heap)
            self._most = max(LEAST, 2 * len(self._heap))
        if self._heap[0][2] is active:
            self._arm()

    def done(self, active: Active) -> None:
        """It has ended. Whoever watches this process from outside must not go on counting its deadline."""
        active.ended = True
        if self._heap and self._heap[0][2] is active:
            while self._heap and self._heap[0][2].ended:
                heappop(self._heap)
            if self._moved is not None:
                self._moved(self._heap[0][0] if self._heap else 0.0)

    def _arm(self) -> None:
        at = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self._mono()), self._fire)
        if self._moved is not None:
            self._moved(at)

    def _fire(self) -> None:
        self._timer = None
        now = self._mono()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].ended):
            active = heappop(self._heap)[2]
            if not active.ended and not active.fenced:
                self._expired(active)
        if self._heap:
            self._arm()
        elif self._moved is not None:
            self._moved(0.0)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
