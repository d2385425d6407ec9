"""Which tasks and queues this process knows. One handler per name, one concurrency per queue, checked when added.

Producers ask it for a task's queue, the runtime for everything else. It is filled by `register_task` and `@srv.task`,
before or while a worker runs; that worker learns of each addition through `changed`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ..core.codec import millis
from ..core.ids import check_name
from ..core.job import DEFAULT_QUEUE, check_count, check_seconds
from ..core.retry import Backoff, check_backoff
from ..errors import InvalidJob, QueueConflict

Callback = Callable[..., Any]
"""`success_cb(ctx)`, `processing_cb(ctx)`, `retrying_cb(ctx, err)`, `failed_cb(ctx, err)`; sync or async."""

Executor = Literal["auto", "loop", "thread", "process"]
Span = float | timedelta
"""Seconds, or a timedelta."""


class TaskDef(msgspec.Struct):
    """One registered task. `executor` is resolved: `loop` (the handler returns a coroutine), `thread` or `process`."""

    name: str
    handler: Callable[[bytes, Any], Any]
    queue: str = DEFAULT_QUEUE
    max_retries: int = 0
    timeout: float | None = None
    """Seconds; None: the server's."""
    backoff: Backoff = None
    result_ttl: int | UnsetType | None = UNSET
    """Milliseconds; None: for ever; UNSET: the server's."""
    executor: str = "loop"
    success_cb: Callback | None = None
    processing_cb: Callback | None = None
    retrying_cb: Callback | None = None
    failed_cb: Callback | None = None
    function: Callable[..., Any] | None = None
    """The typed level: the user's own function. `process` finds it by its module and qualified name."""
    typed: bool = False
    """`ctx.save` raises; the handler hands the encoded return value to `ctx.keep`."""
    schedule: str | None = None


class Registry:
    """The tasks of this process, and how many jobs of each queue it may run at once (None: the server's default)."""

    __slots__ = ("changed", "queues", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[str, TaskDef] = {}
        self.queues: dict[str, int | None] = {}
        self.changed: Callable[[], None] | None = None

    def add(self, task: TaskDef, concurrency: int | None) -> None:
        """Add it; nothing is changed when it raises InvalidJob (the name is taken) or QueueConflict."""
        if task.name in self.tasks:
            raise InvalidJob(
                f"task {task.name!r} is registered already, with {_describe(self.tasks[task.name])}: "
                f"give this one ({_describe(task)}) another name, as in name={task.name + '2'!r}"
            )
        known = self.queues.get(task.queue)
        if concurrency is not None:
            if type(concurrency) is not int or concurrency < 1:
                raise InvalidJob(f"concurrency {concurrency!r} of task {task.name!r}: a whole number from 1, please")
            if known is not None and known != concurrency:
                raise QueueConflict(
                    f"task {task.name!r} asks for concurrency {concurrency} of queue {task.queue!r}, which has {known} "
                    "from a task before: leave it out here, name the same number, or use another queue"
                )
        self.tasks[task.name] = task
        self.queues[task.queue] = known if concurrency is None else concurrency
        if self.changed is not None:
            self.changed()

    def queue_of(self, name: str) -> str:
        """The queue of a task, `DEFAULT_QUEUE` when this process does not know it."""
        task = self.tasks.get(name)
        return DEFAULT_QUEUE if task is None else task.queue


def define(
    name: str,
    handler: Callable[..., Any],
    *,
    queue: str = DEFAULT_QUEUE,
    max_retries: int = 0,
    timeout: Span | None = None,
    backoff: Backoff = None,
    result_ttl: Span | UnsetType | None = UNSET,
    executor: str = "auto",
    success_cb: Callback | None = None,
    processing_cb: Callback | None = None,
    retrying_cb: Callback | None = None,
    failed_cb: Callback | None = None,
) -> TaskDef:
    """A checked TaskDef for a byte-level handler. Spans are seconds or timedeltas. InvalidJob."""
    callbacks = (success_cb, processing_cb, retrying_cb, failed_cb)
    for fn in (handler, *callbacks):
        if not callable(fn) and (fn is not None or fn is handler):
            raise InvalidJob(f"task {name!r}: handlers and callbacks are functions, and {fn!r} is not callable")
    resolved = resolve_executor(name, handler, executor)
    return TaskDef(
        check_name(name, "task"),
        _awaitable(handler) if resolved == "loop" and not is_async(handler) else handler,
        check_name(queue, "queue"),
        check_count(max_retries, "max_retries"),
        None if timeout is None else check_seconds(timeout, "timeout"),
        check_backoff(backoff),
        ttl_millis(result_ttl, "result_ttl"),
        resolved,
        *callbacks,
    )


def ttl_millis(ttl: Span | UnsetType | None, what: str) -> int | UnsetType | None:
    """A retention in ms: None (for ever) and UNSET stay, 0 is allowed (at once). InvalidJob."""
    if ttl is None or isinstance(ttl, UnsetType):
        return ttl
    if ttl in (0, timedelta(0)) and not isinstance(ttl, bool):
        return 0
    return millis(check_seconds(ttl, what))


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine; looks through `functools.partial` and into callable objects."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def resolve_executor(name: str, fn: Callable[..., Any], executor: str) -> str:
    """`auto` made `loop` or `thread`; InvalidJob for another word, or an async function off the loop."""
    if executor == "auto":
        return "loop" if is_async(fn) else "thread"
    if executor not in ("loop", "thread", "process"):
        raise InvalidJob(f"executor {executor!r} of task {name!r}: one of 'auto', 'loop', 'thread', 'process', please")
    if executor != "loop" and is_async(fn):
        raise InvalidJob(
            f"executor {executor!r} of task {name!r}: an async function runs on the loop; leave it at 'auto'"
        )
    return executor


def _awaitable(handler: Callable[[bytes, Any], Any]) -> Callable[[bytes, Any], Any]:
    """A sync handler that asked for the loop (it never blocks), in the shape that the loop awaits."""

    async def on_loop(payload: bytes, ctx: Any) -> Any:
        return handler(payload, ctx)

    return on_loop


def _describe(task: TaskDef) -> str:
    fn = task.function or task.handler
    return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', repr(fn))}"
