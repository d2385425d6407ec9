"""What producers hand in: `Job`, `Chain`, `Group`. Immutable, checked when made, so that nothing unusable is ever
stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Generic, Self, TypeVar, cast

import msgspec
from msgspec.structs import force_setattr

from ..errors import InvalidJob
from .cron import parse
from .ids import check_id, check_name

DEFAULT_QUEUE = "tasqueue:tasks"
MAX_LINK = 10_000
MAX_NESTING = 32
MAX_FOLLOW_UPS = 1_000

R = TypeVar("R", covariant=True)


class _Options(msgspec.Struct, kw_only=True, frozen=True):
    id: str | None = None
    queue: str | None = None
    max_retries: int | None = None
    schedule: str | None = None
    eta: datetime | None = None
    timeout: float | timedelta | None = None
    priority: int = 0
    headers: Mapping[str, str] = {}
    on_success: Job[Any] | Sequence[Job[Any]] = ()
    on_error: Job[Any] | Sequence[Job[Any]] = ()


class Job(_Options, Generic[R], frozen=True, weakref=True):
    """A task's name, a payload of bytes and options; inert until it is enqueued.

    `eta`: aware datetime. `timeout`: seconds or a timedelta, then kept as seconds. `priority`: -100 to 100, higher
    first. `on_success`, `on_error`: a Job or a sequence of them, then kept as a tuple. InvalidJob, InvalidSchedule.
    """

    task: str
    payload: bytes = b""

    def __post_init__(self) -> None:
        check_name(self.task, "task")
        if type(self.payload) is not bytes:
            force_setattr(self, "payload", _as_bytes(self.payload))
        if self.id is not None:
            check_id(self.id)
        if self.queue is not None:
            check_name(self.queue, "queue")
        if self.max_retries is not None:
            check_count(self.max_retries, "max_retries")
        if self.timeout is not None:
            force_setattr(self, "timeout", check_seconds(self.timeout, "timeout"))
        if self.priority:
            _check_priority(self.priority)
        if self.eta is not None:
            _check_eta(self.eta)
        if self.schedule is not None:
            if self.eta is not None:
                raise InvalidJob(
                    f"schedule {self.schedule!r} and eta {self.eta} together: a schedule has its own ticks"
                )
            parse(self.schedule)
        if self.headers:
            force_setattr(self, "headers", _check_headers(self.headers))
        if self.on_success != ():
            force_setattr(self, "on_success", _check_follow_ups(self.on_success, "on_success"))
        if self.on_error != ():
            force_setattr(self, "on_error", _check_follow_ups(self.on_error, "on_error"))

    def replace(self, **changes: Any) -> Self:
        """A copy with other options; checked anew."""
        return msgspec.structs.replace(self, **changes)

    @property
    def timeout_seconds(self) -> float | None:
        """The timeout in seconds, whatever it was given as."""
        return cast("float | None", self.timeout)

    def follow_ups(self, attribute: str) -> tuple[Job[Any], ...]:
        """`on_success` or `on_error` as the tuple that it is kept as."""
        return cast("tuple[Job[Any], ...]", getattr(self, attribute))


class Chain(msgspec.Struct, frozen=True):
    """Jobs one after another, each seeing the result of the one before; at least two, at most 10,000."""

    jobs: Sequence[Job[Any]]
    id: str | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "jobs", _check_members(self.jobs, "chain", 2))
        if self.id is not None:
            check_id(self.id, "chain id")


class Group(msgspec.Struct, frozen=True):
    """Jobs side by side; at least one, at most 10,000. The callbacks are enqueued once, when all have ended."""

    jobs: Sequence[Job[Any]]
    id: str | None = None
    on_success: Job[Any] | Sequence[Job[Any]] = ()
    on_error: Job[Any] | Sequence[Job[Any]] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "jobs", _check_members(self.jobs, "group", 1))
        if self.id is not None:
            check_id(self.id, "group id")
        force_setattr(self, "on_success", _check_follow_ups(self.on_success, "on_success"))
        force_setattr(self, "on_error", _check_follow_ups(self.on_error, "on_error"))

    def follow_ups(self, attribute: str) -> tuple[Job[Any], ...]:
        """`on_success` or `on_error` as the tuple that it is kept as."""
        return cast("tuple[Job[Any], ...]", getattr(self, attribute))


def check_count(value: object, what: str) -> int:
    """Return a whole number from 0 to 1,000,000; InvalidJob otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1_000_000:
        raise InvalidJob(f"{what} {value!r}: a whole number from 0 to 1,000,000, please")
    return value


def check_seconds(value: object, what: str) -> float:
    """Return a span as seconds; InvalidJob unless it is a positive, finite number of seconds or such a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not isfinite(seconds) or seconds <= 0:
        raise InvalidJob(f"{what} {value!r}: a positive number of seconds or a timedelta, please")
    return float(seconds)


def _as_bytes(payload: object) -> bytes:
    if isinstance(payload, bytearray | memoryview):
        return bytes(cast("bytes", payload))
    raise InvalidJob(
        f"payload must be bytes, not {type(payload).__name__}: encode it, as `tasqueue.pack(...)` does for typed tasks"
    )


def _check_priority(priority: object) -> None:
    if not isinstance(priority, int) or isinstance(priority, bool) or not -100 <= priority <= 100:
        raise InvalidJob(f"priority {priority!r}: a whole number from -100 to 100, please (higher runs first)")


def _check_eta(eta: object) -> None:
    if not isinstance(eta, datetime):
        raise InvalidJob(f"eta must be an aware datetime, not {type(eta).__name__} ({eta!r})")
    if eta.utcoffset() is None:
        raise InvalidJob(f"eta {eta} is naive: give it a zone, as in datetime.now(UTC) + timedelta(seconds=10)")


def _check_headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise InvalidJob(f"headers must map str to str, not be a {type(headers).__name__} ({headers!r})")
    copied = dict(cast("Mapping[object, object]", headers))
    for key, value in copied.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidJob(f"header {key!r}: {value!r}: both must be str")
    return cast("dict[str, str]", copied)


def _check_members(jobs: object, what: str, least: int) -> tuple[Job[Any], ...]:
    members = _as_jobs(jobs, f"{what} jobs")
    if not least <= len(members) <= MAX_LINK:
        raise InvalidJob(f"a {what} of {len(members)}: it has at least {least} and at most {MAX_LINK:,} jobs")
    _check_inner(members, f"a job inside a {what}")
    return members


def _check_follow_ups(jobs: object, what: str) -> tuple[Job[Any], ...]:
    one = cast("object", (jobs,) if isinstance(jobs, Job) else jobs)
    follow_ups = _as_jobs(one, what)
    _check_inner(follow_ups, f"a job in {what}")
    count, level = 0, list(follow_ups)
    for depth in range(1, MAX_NESTING + 2):
        if not level:
            break
        if depth > MAX_NESTING:
            raise InvalidJob(f"{what} is nested more than {MAX_NESTING} deep; a Chain runs jobs one after another")
        count += len(level)
        if count > MAX_FOLLOW_UPS:
            raise InvalidJob(f"{what} holds more than {MAX_FOLLOW_UPS:,} jobs; a Group runs many side by side")
        level = [j for job in level for j in (*job.follow_ups("on_success"), *job.follow_ups("on_error"))]
    return follow_ups


def _as_jobs(jobs: object, what: str) -> tuple[Job[Any], ...]:
    if isinstance(jobs, Iterable) and not isinstance(jobs, str | bytes | Mapping):
        items = tuple(cast("Iterable[object]", jobs))
        for item in items:
            if not isinstance(item, Job):
                raise InvalidJob(
                    f"{what} must be Jobs, not {type(item).__name__} ({item!r}); a typed task makes one with .job(...)"
                )
        return cast("tuple[Job[Any], ...]", items)
    given = cast("object", jobs)
    raise InvalidJob(f"{what} must be a sequence of Jobs, not {type(given).__name__} ({given!r})")


def _check_inner(jobs: Iterable[Job[Any]], what: str) -> None:
    for job in jobs:
        if job.id is not None:
            raise InvalidJob(f"{what} carries the id {job.id!r}: its id is derived from its cause; leave it out")
        if job.schedule is not None:
            raise InvalidJob(
                f"{what} carries the schedule {job.schedule!r}: only a job enqueued by itself can have one"
            )
