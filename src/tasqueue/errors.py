"""The errors that users meet. Every message says what was wrong, with which value, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class TasqueueError(Exception):
    """Base of every error that this library raises on purpose."""


class NotFound(TasqueueError, LookupError):
    """No such job, result, chain or group: never enqueued, forgotten after its retention, or deleted."""


class QueueConflict(TasqueueError, ValueError):
    """Two tasks ask for different concurrencies of one queue."""


class InvalidJob(TasqueueError, ValueError):
    """A job, chain, group, name, option or argument that cannot be stored or run as given."""


class InvalidSchedule(TasqueueError, ValueError):
    """A schedule that is neither five-field cron, a known alias nor `@every <duration>`."""


class PayloadTooLarge(TasqueueError, ValueError):
    """A payload or a saved result is larger than `max_payload`."""


class Unsupported(TasqueueError, NotImplementedError):
    """The engine (or pair) does not declare the capability that this call needs."""


class EngineUnavailable(TasqueueError, ConnectionError):
    """The engine did not answer within `timeout`.

    `ids` are those of a submit whose reply was lost: they may be stored or not; enqueueing them again is safe.
    """

    def __init__(self, message: str, *, ids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.ids: tuple[str, ...] = tuple(ids)


class JobFailed(TasqueueError):
    """`Handle.result()` of a job that failed: `type`, `message` and `traceback` of its last error, as text."""

    def __init__(self, id: str, type: str, message: str, traceback: str = "") -> None:
        super().__init__(f"job {id!r} failed with {type}: {message}" if type else f"job {id!r} failed: {message}")
        self.id = id
        self.type = type
        self.message = message
        self.traceback = traceback


class JobCancelled(TasqueueError):
    """`Handle.result()` of a job that was cancelled."""

    def __init__(self, id: str) -> None:
        super().__init__(f"job {id!r} was cancelled; `await srv.retry({id!r})` puts it back")
        self.id = id
