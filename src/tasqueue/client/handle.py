"""`Handle`: an enqueued job seen from outside, and its result as the type that the task returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from ..core.message import JobMessage
from ..core.status import Status
from ..errors import InvalidJob, JobCancelled, JobFailed
from .inspector import Inspector

R = TypeVar("R", covariant=True)


class Handle(Generic[R]):
    """A job's id, and how to read its result. It holds nothing else, so it may be kept, or made anew from the id."""

    __slots__ = ("_decode", "_inspector", "id")

    def __init__(self, id: str, decode: Callable[[bytes], R], inspector: Inspector) -> None:
        self.id = id
        self._decode = decode
        self._inspector = inspector

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"

    async def status(self) -> Status:
        """The job's status now. NotFound."""
        return (await self._inspector.get_job(self.id)).meta.status

    async def message(self) -> JobMessage:
        """The job and its meta. NotFound."""
        return await self._inspector.get_job(self.id)

    async def result(self, timeout: float | None = None) -> R:
        """Wait for its end, at most `timeout` seconds, and return what it saved; None when it saved nothing.

        JobFailed, JobCancelled, NotFound, the built-in TimeoutError (the job runs on).
        """
        message, result = await self._inspector.outcome(self.id, timeout)
        meta = message.meta
        if meta.status is Status.SUCCESSFUL:
            return self._decode(result) if result is not None else _nothing()
        if meta.status is Status.CANCELLED:
            raise JobCancelled(self.id)
        if meta.errors:
            last = meta.errors[-1]
            raise JobFailed(self.id, last.type, last.message, last.traceback)
        raise JobFailed(self.id, "", meta.prev_err or "no error was recorded")

    async def cancel(self) -> bool:
        """As `Server.cancel`."""
        return await self._inspector.cancel(self.id)


def _nothing() -> Any:
    return None


def decoder(type: Any) -> Callable[[bytes], Any]:
    """How `Server.handle(id, type)` reads a result: msgpack as that type; `bytes`: as it was saved. InvalidJob."""
    if type is bytes:
        return bytes
    try:
        decode = msgspec.msgpack.Decoder(type).decode
    except TypeError as error:
        raise InvalidJob(f"a result cannot be read as {type!r}: {error}") from None

    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except msgspec.DecodeError as error:
            raise InvalidJob(
                f"the saved result is not {type!r}: {error}; type=bytes gives it as it was saved"
            ) from None

    return read
