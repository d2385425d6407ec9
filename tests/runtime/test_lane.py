"""How much a lane asks for: its idle slots, and what starts within 50 ms."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tasqueue.runtime.lane import MAX_BATCH, Lane

NOW = 1000.0


def lane_of(idle: int = 0, mean: float | None = None, running: list[float] | None = None) -> Lane:
    """`running`: for how many seconds each has run, the oldest first."""
    lane = Lane("q", 4)
    lane.mean = mean
    lane.idle.extend(asyncio.Future() for _ in range(idle))
    for i, age in enumerate(running or []):
        active: Any = SimpleNamespace(started=NOW - age)
        lane.running[str(i)] = active
    return lane


@pytest.mark.parametrize(
    ("idle", "mean", "running", "wanted"),
    [
        (4, None, [], 4),  # nothing is known yet: what the slots can take
        (4, 0.001, [], 204),
        (4, 10.0, [], 4),
        (0, 10.0, [1.0] * 4, 0),
        (1, 0.001, [5.0, 0.0, 0.0], 1),  # one that has run for long says more than the mean
        (4, 1e-9, [], MAX_BATCH),
    ],
)
async def test_want(idle: int, mean: float | None, running: list[float], wanted: int) -> None:
    assert lane_of(idle, mean, running).want(NOW) == wanted


async def test_nothing_while_paused_and_less_when_records_are_large() -> None:
    lane = lane_of(4, 0.001)
    lane.bytes = 1 << 20
    assert lane.want(NOW) == 4
    lane.paused = True
    assert lane.want(NOW) == 0
