"""Numbered fault points: `point(name)` does nothing unless it is armed.

`TASQUEUE_FAULT=W6.returned:kill:3` arms a point by its number or full name, with what happens at its n-th hit (1 when
left out): `kill` (SIGKILL to this process), `hang` (SIGSTOP to it), `raise` (`FaultInjected`), `drop-reply`
(`ReplyDropped`: the server did it, the caller never learns of it). Several are separated by commas. Tests may also call
`arm` and `disarm`.

`POINTS` is the whole list; a test fails if one of them is never reached by the suite.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from .errors import EngineUnavailable

POINTS: tuple[str, ...] = (
    "E1.encoded",
    "E2.before_write",
    "E3.written",
    "E4.returned",
    "W1.before_claim",
    "W2.claimed",
    "W3.decoded",
    "W4.before_handler",
    "W5.entered",
    "W6.returned",
    "W7.decided",
    "W8.before_settle",
    "W9.settled",
    "W10.callbacks",
    "R1.before_retry",
    "R2.rescheduled",
    "M1.due_read",
    "M2.moved",
    "P1.expired_read",
    "P2.offered",
    "S1.tick_computed",
    "S2.tick_inserted",
    "G1.record_written",
    "G2.members_written",
    "G3.last_member",
    "G4.callback_enqueued",
)


class FaultInjected(RuntimeError):
    """Raised by an armed point whose action is `raise`."""


class ReplyDropped(EngineUnavailable):
    """Raised by an armed point whose action is `drop-reply`: to the caller it is any other answer that did not come."""


class _Armed:
    __slots__ = ("action", "left")

    def __init__(self, action: str, nth: int) -> None:
        self.action = action
        self.left = nth


_armed: dict[str, _Armed] = {}
_recorder: Callable[[str], None] | None = None


def arm(spec: str) -> None:
    """Arm points from `point:action[:n]`, comma-separated. ValueError for an unknown point or action."""
    for part in filter(None, (piece.strip() for piece in spec.split(","))):
        number, action, nth = [*part.split(":"), "1"][:3] if part.count(":") else (part, "kill", "1")
        full = [p for p in POINTS if p == number or p.partition(".")[0] == number]
        if not full:
            raise ValueError(f"unknown fault point {number!r}; one of {', '.join(POINTS)}")
        if action not in ("kill", "hang", "raise", "drop-reply"):
            raise ValueError(f"unknown fault action {action!r}; one of kill, hang, raise, drop-reply")
        _armed[full[0]] = _Armed(action, int(nth))
    _rebind()


def disarm() -> None:
    """Forget every armed point."""
    _armed.clear()
    _rebind()


def record(fn: Callable[[str], None] | None) -> None:
    """Call `fn(name)` at every hit of a point (None: stop). For the test that proves that each is reached."""
    global _recorder
    _recorder = fn
    _rebind()


def _fire(name: str) -> None:
    if _recorder is not None:
        _recorder(name)
    armed = _armed.get(name)
    if armed is None:
        return
    armed.left -= 1
    if armed.left:
        return
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif armed.action == "hang":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif armed.action == "raise":
        raise FaultInjected(f"fault point {name}")
    else:
        raise ReplyDropped(f"fault point {name}: reply dropped")


def _rebind() -> None:
    global active
    active = bool(_armed) or _recorder is not None


active = False
"""True while anything is armed or recorded: hot loops ask this once a batch before they call `point` per job."""


def point(name: str) -> None:
    """Mark a numbered step; see the module's docstring."""
    if active:
        _fire(name)


if os.environ.get("TASQUEUE_FAULT"):
    arm(os.environ["TASQUEUE_FAULT"])
