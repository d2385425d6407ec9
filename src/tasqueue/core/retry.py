"""When to run again: the backoff between runs, and what a handler raises to say more than "it failed"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from math import isfinite
from typing import cast

from ..errors import InvalidJob
from .job import check_seconds

Backoff = float | Sequence[float] | Callable[[int], float] | None
"""Seconds; a sequence of them (the last repeats); `f(k)`, k = 1 before the second run; None: the default."""

FIRST = 1.0
CAP = 300.0


class Retry(Exception):
    """Raised by a handler: once more after `delay` (seconds, timedelta; None: as the backoff says). Spends a retry."""

    def __init__(self, delay: float | timedelta | None = None) -> None:
        super().__init__("the handler asked for a retry")
        self.delay = None if delay is None else _span(delay, "Retry delay")


class Fail(Exception):
    """Raised by a handler: failed for good, whatever retries are left."""

    def __init__(self, why: str = "the handler gave up") -> None:
        super().__init__(why)


class Snooze(Exception):
    """Raised by a handler: back into the queue after `delay` (seconds, timedelta), spending nothing, as often as it
    likes.
    """

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__("the handler asked to be snoozed")
        self.delay = _span(delay, "Snooze delay")


def delay(backoff: Backoff, k: int, rand: Callable[[], float]) -> float:
    """Seconds to wait before run k + 1.

    The default is exponential with full jitter from 1 s, capped at 5 min (M. Brooker, "Exponential Backoff And Jitter",
    2015): jobs that failed together do not come back together.
    """
    if backoff is None:
        return rand() * min(CAP, FIRST * 2.0 ** min(k - 1, 30))
    if callable(backoff):
        seconds = float(backoff(k))
        return seconds if isfinite(seconds) and seconds > 0 else 0.0
    if isinstance(backoff, int | float):
        return float(backoff)
    return float(backoff[min(k, len(backoff)) - 1])


def check_backoff(backoff: object) -> Backoff:
    """Return it; InvalidJob unless it has one of the shapes of `Backoff`."""
    if backoff is None or callable(backoff):
        return cast("Backoff", backoff)
    spans = (
        cast("Sequence[object]", backoff)
        if isinstance(backoff, Sequence) and not isinstance(backoff, str)
        else (backoff,)
    )
    for seconds in spans:
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not isfinite(seconds) or seconds < 0:
            raise InvalidJob(
                f"backoff {backoff!r}: seconds, a sequence of seconds or a function of the retry's number, please"
            )
    if not spans:
        raise InvalidJob("backoff is an empty sequence: give at least one span in seconds")
    return cast("Backoff", backoff)


def _span(value: float | timedelta, what: str) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return 0.0 if seconds == 0 else check_seconds(seconds, what)
