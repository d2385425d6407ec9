"""The stored format: msgpack arrays of version, then the fields. The one place that decodes stored bytes.

A record of a newer version raises `NewerVersion` and is never half read; whatever else is wrong with the bytes raises
`Undecodable` with the reason. Follow-ups stay raw bytes until the job that causes them has ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..errors import InvalidJob
from .job import Job
from .status import Status

VERSION = 1
MAX_RECORD = 16 << 20
"""Bytes; a larger record is not decoded."""
EMPTY = msgspec.Raw(b"\x90")
"""No follow-ups."""


class Undecodable(Exception):
    """The bytes are not a record; `str()` is the reason."""


class NewerVersion(Exception):
    """The record was written by a newer library; `version` is its own."""

    def __init__(self, version: int) -> None:
        super().__init__(f"record of version {version}, this library reads up to {VERSION}")
        self.version = version


class Spec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A job as submitted. It has no id: the engine's key is the id. `headers` is None when there are none."""

    version: int
    task: str
    payload: bytes
    priority: int = 0
    max_retries: int | None = None
    timeout: float | None = None
    eta: int | None = None
    enqueued_at: int = 0
    headers: dict[str, str] | None = None
    on_success: msgspec.Raw = EMPTY
    on_error: msgspec.Raw = EMPTY
    schedule: str = ""
    cause_id: str = ""
    cause_err: str = ""
    results_of: str = ""
    """A group's callback: the group whose results it may read."""


class Follow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A follow-up inside a spec; None for the queue means that its producer did not know one."""

    task: str
    payload: bytes
    queue: str | None = None
    priority: int = 0
    max_retries: int | None = None
    timeout: float | None = None
    eta: int | None = None
    headers: dict[str, str] | None = None
    on_success: msgspec.Raw = EMPTY
    on_error: msgspec.Raw = EMPTY


class ErrorEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One failed run; `at` in ms."""

    at: int
    worker: str
    type: str
    message: str
    traceback: str


class Tail(msgspec.Struct, array_like=True, frozen=True):
    """What the runs so far have left. `status` is what a waiting job shows: `queued` or `retrying`."""

    version: int = VERSION
    status: Status = Status.QUEUED
    retried: int = 0
    started_at: int | None = None
    processed_at: int | None = None
    worker: str = ""
    prev_err: str = ""
    errors: tuple[ErrorEntry, ...] = ()
    on_success_ids: tuple[str, ...] = ()
    on_error_ids: tuple[str, ...] = ()
    generation: int = 0
    kept: bytes = b""
    """A tail that could not be decoded, kept as it was."""


FRESH = Tail()

_encoder = msgspec.msgpack.Encoder()
_encode = _encoder.encode
_spec = msgspec.msgpack.Decoder(Spec).decode
_tail = msgspec.msgpack.Decoder(Tail).decode
_follows = msgspec.msgpack.Decoder(tuple[Follow, ...]).decode
_head = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_results = msgspec.msgpack.Decoder(list[bytes | None]).decode


def millis(seconds: float) -> int:
    """Milliseconds, rounded up: what is due never comes early."""
    return -int(-seconds * 1000 // 1)


def encode_spec(
    job: Job[Any],
    enqueued_at: int,
    *,
    queues: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    schedule: str = "",
    cause_id: str = "",
    cause_err: str = "",
    results_of: str = "",
) -> bytes:
    """A job's stored form. `queues` names the queue of each follow-up's task; `headers` are inherited under the job's
    own.
    """
    return _encode(
        Spec(
            VERSION,
            job.task,
            job.payload,
            job.priority,
            job.max_retries,
            job.timeout_seconds,
            None if job.eta is None else millis(job.eta.timestamp()),
            enqueued_at,
            {**(headers or {}), **job.headers} if headers or job.headers else None,
            _encode_follow(job.follow_ups("on_success"), queues) if job.on_success != () else EMPTY,
            _encode_follow(job.follow_ups("on_error"), queues) if job.on_error != () else EMPTY,
            schedule,
            cause_id,
            cause_err,
            results_of,
        )
    )


def _encode_follow(jobs: Sequence[Job[Any]], queues: Mapping[str, str] | None) -> msgspec.Raw:
    return msgspec.Raw(
        _encode(
            [
                Follow(
                    job.task,
                    job.payload,
                    job.queue if job.queue is not None else (queues or {}).get(job.task),
                    job.priority,
                    job.max_retries,
                    job.timeout_seconds,
                    None if job.eta is None else millis(job.eta.timestamp()),
                    dict(job.headers) or None,
                    _encode_follow(job.follow_ups("on_success"), queues) if job.on_success != () else EMPTY,
                    _encode_follow(job.follow_ups("on_error"), queues) if job.on_error != () else EMPTY,
                )
                for job in jobs
            ]
        )
    )


def spec_of_follow(follow: Follow, cause: Spec, enqueued_at: int, cause_id: str = "", cause_err: str = "") -> bytes:
    """A follow-up's stored form; it inherits the headers of its cause under its own."""
    headers = cause.headers if follow.headers is None else {**(cause.headers or {}), **follow.headers}
    return _encode(
        Spec(
            VERSION,
            follow.task,
            follow.payload,
            follow.priority,
            follow.max_retries,
            follow.timeout,
            follow.eta,
            enqueued_at,
            headers,
            follow.on_success,
            follow.on_error,
            "",
            cause_id,
            cause_err,
        )
    )


def restamp(spec: bytes, enqueued_at: int) -> bytes:
    """A stored schedule's job as the record of one tick."""
    return _encode(msgspec.structs.replace(decode_spec(spec), enqueued_at=enqueued_at))


def same_job(one: bytes, other: bytes) -> bool:
    """Whether two stored schedules enqueue the same job: equal but for when they were made. Undecodable ones by their
    bytes.
    """
    try:
        return restamp(one, 0) == restamp(other, 0)
    except (Undecodable, NewerVersion):
        return one == other


def decode_spec(data: bytes) -> Spec:
    """Undecodable, NewerVersion."""
    if len(data) > MAX_RECORD:
        raise Undecodable(f"record of {len(data):,} bytes: over {MAX_RECORD:,} it is not decoded")
    try:
        spec = _spec(data)
    except Exception as error:  # whatever the decoder raises on hostile bytes ends here, and only here
        raise _refusal(data, error) from None
    if spec.version > VERSION:
        raise NewerVersion(spec.version)
    return spec


def decode_tail(data: bytes) -> Tail:
    """The fresh tail for b"". Undecodable, NewerVersion."""
    if not data:
        return FRESH
    if len(data) > MAX_RECORD:
        raise Undecodable(f"record of {len(data):,} bytes: over {MAX_RECORD:,} it is not decoded")
    try:
        tail = _tail(data)
    except Exception as error:  # as above
        raise _refusal(data, error) from None
    if tail.version > VERSION:
        raise NewerVersion(tail.version)
    return tail


def decode_follow(raw: msgspec.Raw) -> tuple[Follow, ...]:
    """The follow-ups of a spec. Undecodable."""
    if raw == EMPTY:
        return ()
    try:
        return _follows(raw)
    except Exception as error:  # as above
        raise Undecodable(f"follow-ups: {error}") from None


def encode_tail(tail: Tail) -> bytes:
    """A tail's stored form."""
    return _encode(tail)


def pack_results(results: Sequence[bytes | None]) -> bytes:
    """A group's results in order: a msgpack array of bin or nil."""
    return _encode(results)


def unpack_results(data: bytes) -> list[bytes | None]:
    """The reverse of `pack_results`. InvalidJob when the bytes are something else."""
    try:
        return _results(data)
    except Exception as error:  # as above
        raise InvalidJob(f"not a group's results: {error}") from None


def _refusal(data: bytes, error: Exception) -> Exception:
    try:
        version = msgspec.msgpack.decode(_head(data)[0], type=int)
    except Exception:  # not even an array that begins with a number
        return Undecodable(str(error) or type(error).__name__)
    if version > VERSION:
        return NewerVersion(version)
    return Undecodable(str(error) or type(error).__name__)
