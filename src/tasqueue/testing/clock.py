"""A clock that stands still until a test moves it, with seeded randomness: the same run again, every time."""

from __future__ import annotations

import random  # noqa: TID251  (seeded by the test: this is what stands in for the port)

from ..clock import Ports

START = 1_000_000_000.0
"""2001-09-09: nobody can take it for the time of day."""


class ManualClock:
    """`ports` is what code under test takes; `advance` moves its time, wall and monotonic alike."""

    def __init__(self, start: float = START, seed: int = 0) -> None:
        self._now = start
        source = random.Random(seed)
        self.ports = Ports(now=self.time, mono=self.time, rand=source.random, bits=source.randbytes)

    def time(self) -> float:
        """Seconds."""
        return self._now

    @property
    def ms(self) -> int:
        """Milliseconds, as an engine counts them."""
        return int(self._now * 1000)

    def advance(self, seconds: float) -> None:
        """Forward only: a clock set back is a test's own business, through `Ports`."""
        if seconds < 0:
            raise ValueError(f"advance({seconds}): forward only")
        self._now += seconds
