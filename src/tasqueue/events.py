"""Typed events: what metrics, traces, logs and tests listen to. Nothing is made unless somebody listens.

    srv.on(Ended, lambda event: print(event.id, event.status))

A listener is a plain function, called on the event loop (or thread) where it happened; it must be quick and one that
raises is logged and changes nothing. There is no event per job on the hot path without a listener for that very type.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from .core.status import Status

log = logging.getLogger("tasqueue.events")


class Event(msgspec.Struct, frozen=True):
    """Base of all events. Spans are seconds."""


class Enqueued(Event, frozen=True):
    """Jobs were stored (or had been before: enqueueing an id again is a no-op)."""

    ids: tuple[str, ...]


class Claimed(Event, frozen=True):
    """A worker holds these now."""

    worker: str
    ids: tuple[str, ...]


class Started(Event, frozen=True):
    """A handler is about to be entered."""

    id: str
    task: str
    queue: str
    worker: str


class Ended(Event, frozen=True):
    """A final status is stored. `seconds`: how long the last run took; `waited`: from enqueueing (or its due date) to
    that run.
    """

    id: str
    task: str
    queue: str
    status: Status
    seconds: float
    waited: float


class Retrying(Event, frozen=True):
    """A run ended in an error and the job will run again."""

    id: str
    task: str
    queue: str
    error: str


class Returned(Event, frozen=True):
    """Jobs went back unfinished, spending nothing: snoozed, parked, given back at a drain or from the prefetch."""

    ids: tuple[str, ...]
    why: str


class Refused(Event, frozen=True):
    """The engine refused stale settles: these jobs are somebody else's now."""

    worker: str
    ids: tuple[str, ...]


class Settled(Event, frozen=True):
    """One settle call: how many steps, how long it took."""

    steps: int
    seconds: float


class Reclaimed(Event, frozen=True):
    """Workers were found dead; what they held is offered again."""

    workers: tuple[str, ...]


class Ticked(Event, frozen=True):
    """A schedule's tick was enqueued."""

    schedule_id: str
    id: str


class LeaseLost(Event, frozen=True):
    """This worker lost its lease and goes on under a new incarnation."""

    worker: str


E = TypeVar("E", bound=Event)


class Bus:
    """Who listens to what. `wanted` is asked before an event is made."""

    def __init__(self) -> None:
        self._listeners: dict[type[Event], list[Callable[[Any], None]]] = {}
        self.per_job = False
        """Whether anybody listens to what happens to single jobs, so that slots have to remember them."""

    def on(self, event: type[E], fn: Callable[[E], None]) -> None:
        """Call `fn` at each such event."""
        self._listeners.setdefault(event, []).append(fn)
        self.per_job = self.per_job or event in (Started, Ended, Retrying)

    def wanted(self, event: type[Event]) -> bool:
        """Whether anybody listens to it."""
        return event in self._listeners

    def emit(self, event: Event) -> None:
        """Tell the listeners."""
        for fn in self._listeners.get(type(event), ()):
            try:
                fn(event)
            except Exception:
                log.exception("a listener of %s raised", type(event).__name__)
