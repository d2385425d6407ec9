"""The typed level: `Task`, a decorated function whose calls become jobs, checked by the type checker and at enqueue.

A task is made of a byte-level handler like any other; what is typed about it is its `Signature`. Nothing is stored by
`.job(...)`; `.enqueue(...)` stores it.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec
from msgspec import UNSET, UnsetType

from ..core.cron import parse
from ..core.job import DEFAULT_QUEUE, Job, check_seconds
from ..core.retry import Backoff
from ..errors import InvalidJob
from .bridge import Bridge, SyncHandle
from .context import TYPED, JobCtx, local
from .handle import Handle
from .inspector import Inspector
from .producer import Producer
from .registry import Callback, Executor, Span, TaskDef, define, is_async
from .setup import Setup
from .signature import Signature

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", covariant=True)
JobOrJobs = Job[Any] | Sequence[Job[Any]]


class Home(msgspec.Struct, frozen=True):
    """Where a Server's tasks enqueue."""

    setup: Setup
    producer: Producer
    inspector: Inspector
    bridge: Bridge


class Task(Generic[P, R, C]):
    """A function as a task. Calling it runs it here; `.job` and `.enqueue` take the same arguments, checked.

    `P`: its parameters, less the context. `R`: what it returns. `C`: what a direct call gives (a coroutine if async).
    """

    def __init__(self, function: Callable[..., Any], definition: TaskDef, signature: Signature, home: Home) -> None:
        self.name = definition.name
        self.function = function
        self.signature = signature
        self.definition = definition
        self._home = home
        functools.update_wrapper(cast("Callable[..., Any]", self), function, updated=())

    def __repr__(self) -> str:
        return f"Task({self.name!r})"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Call the function here, without any queue; where it wants a context it gets one that stores nothing."""
        ctx: JobCtx | None = None
        if self.signature.ctx is not None:
            setup = self._home.setup
            now = int(setup.ports.now() * 1000)
            ctx = local(self.name, self.definition.queue, b"", now, setup.options.max_payload)
            ctx.closed = TYPED
        return self.signature.call(args, kwargs, ctx)

    def job(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """A Job with these arguments, inert: for chains, groups, `on_success`. InvalidJob when they do not fit."""
        return Job(self.name, self.signature.encode(args, kwargs))

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Store a job with these arguments. InvalidJob, PayloadTooLarge, EngineUnavailable."""
        return await self._enqueue(self.job(*args, **kwargs))

    async def _enqueue(self, job: Job[Any]) -> Handle[R]:
        id = await self._home.producer.enqueue(job)
        return Handle(id, self.signature.decode_result, self._home.inspector)

    def _enqueue_sync(self, job: Job[Any]) -> SyncHandle[R]:
        id = self._home.bridge.enqueue(job, f"await {self.name}.enqueue(...)")
        return SyncHandle(id, self.signature.decode_result, self._home.bridge)

    def options(
        self,
        *,
        delay: Span | None = None,
        eta: datetime | None = None,
        queue: str | None = None,
        id: str | None = None,
        priority: int = 0,
        max_retries: int | None = None,
        timeout: Span | None = None,
        schedule: str | None = None,
        headers: Mapping[str, str] | None = None,
        on_success: JobOrJobs = (),
        on_error: JobOrJobs = (),
    ) -> BoundTask[P, R]:
        """The same task with options of `Job`, and `delay`: seconds (or a timedelta) from the enqueueing on.

        With a `schedule`, the handle's id is that of the schedule. InvalidJob, InvalidSchedule.
        """
        if delay is not None and (eta is not None or schedule is not None):
            raise InvalidJob(
                f"task {self.name!r}: delay {delay!r} together with an eta or a schedule; give one of them"
            )
        seconds = None if delay is None else 0.0 if delay in (0, timedelta(0)) else check_seconds(delay, "delay")
        options: dict[str, Any] = {
            "eta": eta,
            "queue": queue,
            "id": id,
            "priority": priority,
            "max_retries": max_retries,
            "timeout": timeout,
            "schedule": schedule,
            "headers": headers or {},
            "on_success": on_success,
            "on_error": on_error,
        }
        Job(self.name, **options)  # refused here rather than at the call

        def job(*args: P.args, **kwargs: P.kwargs) -> Job[R]:
            made: dict[str, Any] = dict(options)
            if seconds is not None:
                made["eta"] = datetime.fromtimestamp(self._home.setup.ports.now() + seconds, UTC)
            return Job(self.name, self.signature.encode(args, kwargs), **made)

        return BoundTask(job, self._enqueue, self._enqueue_sync)

    @property
    def sync(self) -> SyncTask[P, R]:
        """The blocking twin, for threads without a running loop."""
        return SyncTask(self.job, self._enqueue_sync)


class BoundTask(Generic[P, R]):
    """A task with options, which all jobs made through it have."""

    __slots__ = ("_enqueue", "_enqueue_sync", "job")

    def __init__(
        self,
        job: Callable[P, Job[R]],
        enqueue: Callable[[Job[R]], Coroutine[Any, Any, Handle[R]]],
        enqueue_sync: Callable[[Job[R]], SyncHandle[R]],
    ) -> None:
        self.job = job
        self._enqueue = enqueue
        self._enqueue_sync = enqueue_sync

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """As `Task.enqueue`."""
        return await self._enqueue(self.job(*args, **kwargs))

    @property
    def sync(self) -> SyncTask[P, R]:
        """The blocking twin, for threads without a running loop."""
        return SyncTask(self.job, self._enqueue_sync)


class SyncTask(Generic[P, R]):
    """A task for threads: `enqueue` blocks until the job is stored."""

    __slots__ = ("_enqueue", "job")

    def __init__(self, job: Callable[P, Job[R]], enqueue: Callable[[Job[R]], SyncHandle[R]]) -> None:
        self.job = job
        self._enqueue = enqueue

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> SyncHandle[R]:
        """As `Task.enqueue`; RuntimeError on a thread whose event loop is running."""
        return self._enqueue(self.job(*args, **kwargs))


class Decorate(Protocol):
    """Makes a task of a function. With the context first, type checkers know that it is not an argument.

    (They cannot tell a first parameter of type `object` from a context: write its type out.)
    """

    @overload
    def __call__(
        self, fn: Callable[Concatenate[JobCtx, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[JobCtx, P], R], /) -> Task[P, R, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Task[..., Any, Any]: ...


class TaskMaker:
    """`@srv.task` and `@srv.task(...)`."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @overload
    def __call__(
        self, fn: Callable[Concatenate[JobCtx, P], Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[JobCtx, P], R], /) -> Task[P, R, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def __call__(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        schedule: str | None = None,
        queue: str = DEFAULT_QUEUE,
        concurrency: int | None = None,
        max_retries: int = 0,
        timeout: Span | None = None,
        backoff: Backoff = None,
        result_ttl: Span | UnsetType | None = UNSET,
        executor: Executor = "auto",
        success_cb: Callback | None = None,
        processing_cb: Callback | None = None,
        retrying_cb: Callback | None = None,
        failed_cb: Callback | None = None,
    ) -> Decorate: ...
    def __call__(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        schedule: str | None = None,
        concurrency: int | None = None,
        **options: Any,
    ) -> Any:
        """Register a function as a task, named as it is. The options are those of `register_task`, and:

        `schedule`: stored as `cron:<name>` by each worker that starts; the function is then called without arguments.
        InvalidJob (a name that is taken, a function that cannot be one), InvalidSchedule, QueueConflict.
        """

        def decorate(fn: Callable[..., Any]) -> Task[..., Any, Any]:
            return self._make(fn, name or getattr(fn, "__name__", ""), schedule, concurrency, options)

        return decorate if fn is None else decorate(fn)

    def _make(
        self, fn: Callable[..., Any], name: str, schedule: str | None, concurrency: int | None, options: dict[str, Any]
    ) -> Task[..., Any, Any]:
        if isinstance(fn, Task) or not callable(fn):
            raise InvalidJob(f"@task decorates a function, not {fn!r}")
        if name in ("", "<lambda>"):
            raise InvalidJob(f"@task: {fn!r} has no name; give the task one, as in @srv.task(name='resize')")
        definition = define(name, fn, **options)
        signature = Signature(name, fn)
        definition.handler = handler(signature, definition.executor)
        definition.function, definition.typed = fn, True
        if schedule is not None:
            definition.schedule = parse(schedule).text
            if signature.requires_arguments():
                raise InvalidJob(
                    f"task {name!r} has the schedule {schedule!r}, whose ticks pass no arguments, but its function "
                    "requires some: give them defaults, or enqueue name.options(schedule=…) with arguments"
                )
        if definition.executor == "process":
            _check_process(name, fn, signature)
        self._home.setup.registry.add(definition, concurrency)
        return Task(fn, definition, signature, self._home)


def handler(signature: Signature, executor: str) -> Callable[[bytes, JobCtx], Any]:
    """The byte-level handler of a typed function: arguments in, the encoded return value to `ctx.keep`."""
    function, decode, call, encode = signature.function, signature.decode, signature.call, signature.encode_result
    wants_ctx, awaited = signature.ctx is not None, is_async(function)

    async def on_loop(payload: bytes, ctx: JobCtx) -> None:
        ctx.closed = TYPED
        args, kwargs = decode(payload)
        result = call(args, kwargs, ctx) if wants_ctx else function(*args, **kwargs)
        if awaited:
            result = await result
        if result is not None:
            ctx.keep(encode(result))

    def in_thread(payload: bytes, ctx: JobCtx) -> None:
        ctx.closed = TYPED
        args, kwargs = decode(payload)
        result = call(args, kwargs, ctx) if wants_ctx else function(*args, **kwargs)
        if result is not None:
            ctx.keep(encode(result))

    return on_loop if executor == "loop" else in_thread


def call_in_process(module: str, qualname: str, payload: bytes) -> bytes | None:
    """Run a typed task's function in this process, a child that was told only where to find it; its encoded result."""
    signature = _found(module, qualname)
    args, kwargs = signature.decode(payload)
    return signature.encode_result(signature.function(*args, **kwargs))


@functools.cache
def _found(module: str, qualname: str) -> Signature:
    found: Any = getattr(importlib.import_module(module), qualname)
    return found.signature if isinstance(found, Task) else Signature(qualname, found)


def _check_process(name: str, fn: Callable[..., Any], signature: Signature) -> None:
    """InvalidJob unless a child process can find and call it."""
    qualname = getattr(fn, "__qualname__", "")
    if not qualname.isidentifier() or getattr(fn, "__module__", None) not in sys.modules:
        raise InvalidJob(
            f"task {name!r} has executor='process', but {qualname or fn!r} cannot be imported by a child process: "
            "define it with `def` at the top of a module"
        )
    if signature.ctx is not None:
        raise InvalidJob(
            f"task {name!r} has executor='process' and takes a JobCtx ({signature.ctx.name}): a child process has "
            "none; leave it out, or use executor='thread'"
        )
