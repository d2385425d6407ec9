"""`JobCtx`, what a handler and its callbacks are given. It writes nothing: it keeps what is saved until the finish.

One is made for each run, so it is made of references only; everything that costs is made when asked for. It is muted as
soon as its run is interrupted or over: from then on nothing that it is told can reach the job's record (G4, G8).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

import msgspec

from ..core import codec, message
from ..core.codec import Spec
from ..core.job import Job
from ..core.lifecycle import Policy, Run
from ..core.message import Meta
from ..core.record import Kind, Lease, Row, Step, group_key
from ..core.status import State
from ..errors import InvalidJob, PayloadTooLarge, TasqueueError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

TYPED = "is a typed task: what it returns is its result"
IN_CALLBACK = "is in a callback: the result was decided by the handler; durable work belongs in on_success and on_error"
OVER = "is over: its result is written already"

_WHY = {
    "timeout": "has passed its timeout",
    "cancel": "was cancelled",
    "drain": "is being given back, since the worker stops",
    "lost": "has lost its lease, and runs elsewhere by now",
}
_PAGE = 64
"""Results of a group read at once: at most 64 × `max_payload` bytes in memory."""


class Host(Protocol):
    """What runs the handlers, as a context sees it."""

    max_payload: int

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that `progress` is called on; None: call it right here."""
        ...

    def progress(self, ctx: JobCtx, done: int, total: int, note: str) -> None:
        """Keep it for the next beat. Called on the loop."""
        ...

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        """As `Engine.results`."""
        ...


class JobCtx:
    """A run, as its handler and callbacks see it. `state` is what the server's `lifespan` yielded."""

    __slots__ = ("_job", "_log", "_meta", "_noted", "_step", "closed", "host", "interrupted", "run", "saved", "state")

    def __init__(self, run: Run, state: Any, host: Host) -> None:
        self.run = run
        self.state = state
        self.host = host
        self.saved: bytes | None = None
        self.interrupted = ""
        self.closed = ""
        self._meta: Meta | None = None
        self._step: Step | None = None
        self._job: Job[Any] | None = None
        self._noted: tuple[int, int, str] | None = None

    # -- what the runtime does ------------------------------------------------------------------------------------

    # `interrupted` ("", "timeout", "cancel", "drain", "lost") and `closed` (why nothing may be saved now: TYPED,
    # IN_CALLBACK, OVER, or "") are set by the runtime; `saved` is read by it when the handler is done.

    def keep(self, data: bytes | None) -> None:
        """Take it as the result, whatever `save` would say: what a typed handler returned. PayloadTooLarge."""
        if data is not None and len(data) > self.host.max_payload:
            raise PayloadTooLarge(
                f"job {self.run.lease.id!r} saves {len(data):,} bytes, over max_payload = {self.host.max_payload:,}: "
                "save a reference to where it is kept, or raise Server(max_payload=…)"
            )
        self.saved = data

    def after(self, step: Step) -> None:
        """The step is stored: from now on `meta` shows what it led to, and nothing more can be saved."""
        self._step = step
        self._meta = None
        self.closed = IN_CALLBACK

    # -- what a handler sees --------------------------------------------------------------------------------------

    @property
    def meta(self) -> Meta:
        """What is known about the job: `processing` in the handler, the new status in the callbacks after it."""
        if self._meta is None:
            self._meta = self._make_meta()
        return self._meta

    def _make_meta(self) -> Meta:
        run, step = self.run, self._step
        lease, tail = run.lease, run.tail
        row = Row(
            lease.id,
            lease.queue,
            State.RUNNING,
            lease.spec,
            lease.tail,
            lease.prev,
            worker=run.worker,
            claimed_at=run.started_at,
            deaths=lease.deaths,
            progress=None if self._noted is None else msgspec.msgpack.encode(self._noted),
            link=lease.link,
            pos=lease.pos,
        )
        if step is not None:
            tail = run.tail if step.tail is None else codec.decode_tail(step.tail)
            row.state, row.result, row.parked = step.state, step.result, step.reason
            if step.kind is Kind.END:
                row.ended_at = tail.processed_at
            elif row.state is State.DUE:
                row.due = (tail.processed_at or 0) + step.delay
        return message.meta(row, run.spec, tail, run.policy.max_retries)

    @property
    def job(self) -> Job[Any]:
        """The job as it was submitted."""
        if self._job is None:
            self._job = message.job(self.run.spec, self.run.lease.id, self.run.lease.queue)
        return self._job

    def save(self, data: bytes) -> None:
        """Keep the job's result: it is written in the same step as the status. The last save of the ending run counts.

        PayloadTooLarge over `max_payload`; TasqueueError in typed tasks, in callbacks, and when the run is interrupted.
        """
        why = _WHY.get(self.interrupted) or self.closed
        if why:
            raise TasqueueError(f"job {self.run.lease.id!r} {why}; ctx.save would have no effect")
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidJob(
                    f"ctx.save of {type(data).__name__} in job {self.run.lease.id!r}: bytes, please; encode it first, "
                    "or use a typed task, which saves what it returns"
                )
            data = bytes(data)
        self.keep(data)

    async def progress(self, done: int, total: int, note: str = "") -> None:
        """Show how far the job is; written with the worker's next beat. Dropped when the run was interrupted."""
        if self._note(done, total, note):
            self.host.progress(self, done, total, note)

    def progress_sync(self, done: int, total: int, note: str = "") -> None:
        """The same for sync handlers, from any thread."""
        if self._note(done, total, note):
            loop = self.host.loop
            if loop is None:
                self.host.progress(self, done, total, note)
            else:
                loop.call_soon_threadsafe(self.host.progress, self, done, total, note)

    def _note(self, done: int, total: int, note: str) -> bool:
        if type(done) is not int or type(total) is not int or type(note) is not str or len(note) > 1000:
            raise InvalidJob(
                f"progress({done!r}, {total!r}, {str(note)[:100]!r}): two whole numbers and a note of at most "
                "1,000 characters, please"
            )
        if self.interrupted or self._step is not None:
            return False
        self._noted = (done, total, note)
        self._meta = None
        return True

    @overload
    def prev(self, type: type[T]) -> T | None: ...
    @overload
    def prev(self, type: Any) -> Any: ...
    def prev(self, type: Any) -> Any:
        """The previous result (of the step before, or of the cause), decoded from msgpack as this type.

        `bytes` gives it as it was saved. None when nothing was saved, or there is nothing before. InvalidJob when the
        bytes are something else.
        """
        return self._decode(self.run.lease.prev, type, "the previous result")

    async def results(self, type: type[T]) -> AsyncIterator[T | None]:
        """In a group's callback: what each job of the group saved, in order, decoded as this type (`bytes`: as saved).

        None for a job that saved nothing. They are read in pages, so a large group costs little memory.
        """
        group = self.run.spec.results_of
        if not group:
            raise TasqueueError(
                f"job {self.run.lease.id!r} is no callback of a group, so there are no results to read: "
                "ctx.results works in a Group's on_success and on_error"
            )
        start = 0
        while True:
            page = await self.host.results(group_key(group), start, _PAGE)
            for index, data in enumerate(page, start):
                yield self._decode(data, type, f"the result of member {index} of group {group!r}")
            start += len(page)
            if len(page) < _PAGE:
                return

    def _decode(self, data: bytes | None, type: Any, what: str) -> Any:
        if data is None or type is bytes:
            return data
        try:
            return msgspec.msgpack.decode(data, type=type)
        except msgspec.DecodeError as error:
            raise InvalidJob(
                f"job {self.run.lease.id!r}: {what} is not {getattr(type, '__name__', type)}: {error}; "
                "type=bytes gives it as it was saved"
            ) from None

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop: a long handler may come to an end, or `raise Snooze`."""
        return self.host.draining

    @property
    def cancelled(self) -> bool:
        """Whether this run was interrupted (timeout, cancel, drain, lost lease): whatever it returns is dropped."""
        return self.interrupted != ""

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Logs to `tasqueue.job`; each record carries `job_id`, `task` and `queue`."""
        try:
            return self._log
        except AttributeError:
            lease = self.run.lease
            about = {"job_id": lease.id, "task": self.run.spec.task, "queue": lease.queue}
            self._log: logging.LoggerAdapter[logging.Logger] = _Adapter(logging.getLogger("tasqueue.job"), about)
            return self._log


class _Adapter(logging.LoggerAdapter[logging.Logger]):
    """The standard one drops the caller's own `extra`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **cast("dict[str, Any]", kwargs.get("extra") or {})}
        return msg, kwargs


class _Here:
    """The host of a direct call: nobody else looks."""

    loop = None
    draining = False

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload

    def progress(self, ctx: JobCtx, done: int, total: int, note: str) -> None:
        """`ctx.meta.progress` shows it; there is nobody to tell."""

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        """A direct call belongs to no group, so nobody gets here."""
        raise TasqueueError(f"a direct call has no results of {key!r}")


def local(task: str, queue: str, payload: bytes, now: int, max_payload: int) -> JobCtx:
    """The context of a direct call: a run of a job `local` that is stored nowhere. `now` in ms."""
    spec = Spec(codec.VERSION, task, payload, enqueued_at=now)
    lease = Lease("local", queue, 0, b"", b"", None, 0)
    return JobCtx(Run(lease, spec, codec.FRESH, Policy(), "local", lambda _: queue, now), None, _Here(max_payload))
