"""What readers get: messages made of what an engine stores. Datetimes are made here, when somebody asks, never on the
hot path.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from . import codec
from .codec import Spec, Tail
from .ids import MAX_ID, derive
from .job import Job
from .record import LinkRow, Row, Schedule
from .status import State, Status, shown


class JobError(msgspec.Struct, frozen=True):
    """One failed run. `traceback`: text, at most 8 KiB."""

    at: datetime
    worker: str
    type: str
    message: str
    traceback: str


class Meta(msgspec.Struct, frozen=True):
    """What is known about a job. Datetimes are aware (UTC); None where it has not happened."""

    id: str
    status: Status
    queue: str
    schedule: str = ""
    max_retries: int = 0
    retried: int = 0
    prev_err: str = ""
    prev_job_result: bytes | None = None
    on_success_ids: tuple[str, ...] = ()
    on_error_ids: tuple[str, ...] = ()
    enqueued_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    processed_at: datetime | None = None
    deaths: int = 0
    generation: int = 0
    worker: str = ""
    parked: str = ""
    progress: tuple[int, int, str] | None = None
    cause_id: str = ""
    cause_err: str = ""
    chain_id: str = ""
    group_id: str = ""
    errors: tuple[JobError, ...] = ()


class JobMessage(msgspec.Struct, frozen=True):
    """A job as submitted, and what has become of it."""

    job: Job[Any]
    meta: Meta


class ChainMessage(msgspec.Struct, frozen=True):
    """`job_id`: the step it is at (the last one when it is done); `prev_jobs`: the completed ids in order."""

    id: str
    status: Status
    job_id: str
    prev_jobs: tuple[str, ...]


class GroupMessage(msgspec.Struct, frozen=True):
    """`job_status`: each job's final status, `queued` while it has not ended, in the order of the group."""

    id: str
    status: Status
    job_status: dict[str, Status]


class ScheduleMessage(msgspec.Struct, frozen=True):
    """A stored schedule, the job that each tick enqueues, and its next and last ticks."""

    id: str
    schedule: str
    job: Job[Any]
    next_at: datetime | None
    last_at: datetime | None
    paused: bool


def moment(ms: int | None) -> datetime | None:
    """An aware datetime (UTC) from UNIX milliseconds. Out of range: None."""
    try:
        return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def meta(row: Row, spec: Spec, tail: Tail, max_retries: int = 0) -> Meta:
    """A row's Meta. `max_retries` is the task's, for a job that names none."""
    status = shown(row.state, Status.RETRYING if tail.status is Status.RETRYING else Status.QUEUED)
    running = row.state is State.RUNNING
    return Meta(
        id=row.id,
        status=status,
        queue=row.queue,
        schedule=spec.schedule,
        max_retries=max_retries if spec.max_retries is None else spec.max_retries,
        retried=tail.retried,
        prev_err=tail.prev_err,
        prev_job_result=row.prev,
        on_success_ids=tail.on_success_ids,
        on_error_ids=tail.on_error_ids,
        enqueued_at=moment(spec.enqueued_at),
        due_at=moment(row.due if row.state is State.DUE else spec.eta),
        started_at=moment(row.claimed_at if running and row.claimed_at is not None else tail.started_at),
        ended_at=moment(row.ended_at),
        processed_at=moment(
            row.ended_at or (row.claimed_at if running else None) or tail.processed_at or spec.enqueued_at
        ),
        deaths=row.deaths,
        generation=tail.generation,
        worker=row.worker or tail.worker,
        parked=row.parked if row.state is State.PARKED else "",
        progress=progress(row.progress),
        cause_id=spec.cause_id,
        cause_err=spec.cause_err,
        chain_id=row.link[2:] if row.link.startswith("c:") else "",
        group_id=row.link[2:] if row.link.startswith("g:") else "",
        errors=tuple(JobError(moment(e.at) or _EPOCH, e.worker, e.type, e.message, e.traceback) for e in tail.errors),
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def progress(data: bytes | None) -> tuple[int, int, str] | None:
    """Stored progress: done, total, note."""
    if data is None:
        return None
    try:
        return msgspec.msgpack.decode(data, type=tuple[int, int, str])
    except msgspec.DecodeError:
        return None


def job(spec: Spec, id: str, queue: str) -> Job[Any]:
    """The Job that a spec was made of."""
    return Job(
        spec.task,
        spec.payload,
        id=id if "~" not in id and len(id) <= MAX_ID else None,
        queue=queue,
        max_retries=spec.max_retries,
        eta=moment(spec.eta),
        timeout=spec.timeout,
        priority=spec.priority,
        headers=spec.headers or {},
        on_success=_follow_jobs(spec.on_success),
        on_error=_follow_jobs(spec.on_error),
    )


def _follow_jobs(raw: msgspec.Raw) -> tuple[Job[Any], ...]:
    return tuple(
        Job(
            follow.task,
            follow.payload,
            queue=follow.queue,
            max_retries=follow.max_retries,
            eta=moment(follow.eta),
            timeout=follow.timeout,
            priority=follow.priority,
            headers=follow.headers or {},
            on_success=_follow_jobs(follow.on_success),
            on_error=_follow_jobs(follow.on_error),
        )
        for follow in codec.decode_follow(raw)
    )


def message(row: Row, max_retries: int = 0) -> JobMessage:
    """A row as a JobMessage. Bytes that cannot be decoded come back as the payload of a job without a usable task's
    name.
    """
    try:
        tail = codec.decode_tail(row.tail)
    except (codec.Undecodable, codec.NewerVersion) as error:
        tail = Tail(prev_err=str(error))
    try:
        spec = codec.decode_spec(row.spec)
        what = job(spec, row.id, row.queue)
    except (codec.Undecodable, codec.NewerVersion, ValueError) as error:
        spec = Spec(codec.VERSION, row.task or "undecodable", row.spec)
        what: Job[Any] = Job("undecodable", row.spec)
        tail = tail if tail.prev_err else msgspec.structs.replace(tail, prev_err=str(error))
    return JobMessage(what, meta(row, spec, tail, max_retries))


def chain_message(link: LinkRow) -> ChainMessage:
    """A chain's row as a message."""
    id = link.key[2:]
    at = min(link.pos, link.n - 1)
    return ChainMessage(id, link.status, derive(id, f"c{at}"), tuple(derive(id, f"c{i}") for i in range(link.pos)))


def group_message(link: LinkRow) -> GroupMessage:
    """A group's row as a message."""
    id = link.key[2:]
    return GroupMessage(
        id, link.status, {derive(id, f"g{i}"): link.members.get(i, Status.QUEUED) for i in range(link.n)}
    )


def schedule_message(entry: Schedule) -> ScheduleMessage:
    """A stored schedule as a message."""
    spec = codec.decode_spec(entry.job)
    return ScheduleMessage(
        entry.id,
        entry.schedule,
        job(spec, "~", entry.queue).replace(schedule=entry.schedule),
        moment(entry.next_at),
        moment(entry.last_at),
        entry.paused,
    )
