"""The statuses of a job, the words on the wire, and which may follow which.

A final status is left only by an explicit retry, which opens a new generation (G2); that is why no final status has a
successor here. Snoozing, giving back and reclaiming return a job to the status it had before the run.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Status(StrEnum):
    """What a user sees of a job; of a chain or group: `processing`, then a final one."""

    QUEUED = "queued"
    PROCESSING = "processing"
    RETRYING = "retrying"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether only an explicit retry leaves it."""
        return self in FINAL


FINAL: frozenset[Status] = frozenset({Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.QUEUED, Status.RETRYING, Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED}),
    Status.RETRYING: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.SUCCESSFUL: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class State(IntEnum):
    """Where an engine keeps a job. The numbers are stored; they never change their meaning."""

    HELD = 0
    """Held back: a later step of a chain."""
    READY = 1
    DUE = 2
    """Not before its due date: an ETA, a retry's backoff, a snooze."""
    RUNNING = 3
    """Claimed by a worker whose lease has not ended."""
    SUCCESSFUL = 4
    FAILED = 5
    CANCELLED = 6
    PARKED = 7
    """No worker here can run it (unknown task, newer version); its due date is the end of the waiting."""


ENDED: dict[State, Status] = {
    State.SUCCESSFUL: Status.SUCCESSFUL,
    State.FAILED: Status.FAILED,
    State.CANCELLED: Status.CANCELLED,
}
WAITING: frozenset[State] = frozenset({State.HELD, State.READY, State.DUE, State.PARKED})


def shown(state: State, before: Status) -> Status:
    """What a user sees for an engine's state; `before` is `queued` or `retrying`, as the last run left it."""
    if state in WAITING:
        return before
    return ENDED.get(state, Status.PROCESSING)
