"""Runs one claimed job's handler, on the loop, in a thread or in a process, and says what it came to: an `Outcome`.

Invariant: what was interrupted (timeout, cancel, drain, lost lease) is never a success, whatever the handler then
returns (G8).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from .. import faults
from ..client.context import IN_CALLBACK, JobCtx
from ..client.parts import Around
from ..client.registry import TaskDef
from ..client.typed import call_in_process
from ..clock import Ports
from ..core.codec import ErrorEntry
from ..core.lifecycle import GivenBack, Outcome, Raised, Returned, Snoozed, Stopped
from ..core.retry import Fail, Retry, Snooze
from .failures import ChildError, message_of, trace_of
from .isolated import Isolator
from .lane import Active
from .processes import ProcessDied, Processes
from .threads import Threads


class Executor:
    """`enter(active)` runs the handler, `caught(active, error)` says what an error came to.

    `interrupt(active, why)` ends a run as far as it lets itself be ended. The two halves are not one coroutine, since a
    slot awaits a plain async handler directly: each coroutine between costs every job.
    """

    def __init__(
        self,
        ports: Ports,
        threads: Threads,
        processes: Processes,
        around: Sequence[Around],
        isolator: Isolator | None,
    ) -> None:
        self._ports = ports
        self._threads = threads
        self._processes = processes
        self._around = around
        self._isolator = isolator

    def plain(self, task: TaskDef) -> bool:
        """Whether awaiting its handler is all there is to a run."""
        return task.executor == "loop" and task.processing_cb is None and not self._around

    async def run(self, active: Active) -> Outcome | None:
        """The whole run, for who has no slots; None when its lease was lost."""
        try:
            outcome = await self.enter(active)
        except BaseException as error:
            outcome = self.caught(active, error)
        return self.interrupted(active) if active.ctx.interrupted else outcome

    async def enter(self, active: Active) -> Outcome:
        """Run it: whatever it raises is for `caught`."""
        if active.alone and self._isolator is not None:
            return await self._isolator.run(active)
        if self._around:
            await self._wrapped(active, len(self._around))
        else:
            await self._enter(active)
        return Returned(active.ctx.saved)

    def caught(self, active: Active, error: BaseException) -> Outcome:
        """What an error came to. Raises it when it is not the handler's: the slot itself is being ended, or the
        process."""
        if active.ctx.interrupted:
            return GivenBack()  # whatever it was: `interrupted` decides
        if isinstance(error, asyncio.CancelledError):
            if active.slot.cancelling():
                raise error
        elif isinstance(error, KeyboardInterrupt) or (isinstance(error, GeneratorExit) and not _stepping(active.slot)):
            raise error
        if isinstance(error, Snooze):
            return Snoozed(error.delay)
        if isinstance(error, ProcessDied):
            return GivenBack(str(error))
        # SystemExit too, and a cancellation of something of its own: a handler's error is not the worker's end.
        return self._raised(active, error)

    async def _wrapped(self, active: Active, depth: int) -> None:
        if depth == 0:
            await self._enter(active)
            return

        async def call_next(*_: JobCtx) -> None:
            await self._wrapped(active, depth - 1)

        await self._around[len(self._around) - depth](active.ctx, call_next)

    async def _enter(self, active: Active) -> None:
        task, ctx = active.task, active.ctx
        if task.processing_cb is not None:
            closed, ctx.closed = ctx.closed, IN_CALLBACK
            await self.call_back(task.processing_cb, ctx)
            ctx.closed = closed
        if faults.active:
            faults.point("W5.entered")
        if task.executor == "loop":
            await task.handler(active.run.spec.payload, ctx)
        elif task.executor == "thread":
            await self._in_thread(active, task.handler, active.run.spec.payload, ctx)
        else:
            function = task.function
            ctx.keep(
                await self._processes.call(
                    call_in_process, function.__module__, getattr(function, "__qualname__", ""), active.run.spec.payload
                )
            )

    async def _in_thread(self, active: Active, fn: Callable[..., Any], *args: Any) -> None:
        future = self._threads.call(fn, *args)
        active.future = future
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            # A thread cannot be cancelled: it sees ctx.cancelled. The slot stays with it until it ends or is fenced
            # off.
            while active.ctx.interrupted and not future.done() and not active.fenced:
                _uncancel(active.slot)
                with contextlib.suppress(asyncio.CancelledError):  # interrupted once more, or fenced off
                    await asyncio.wait((future,))
            if not future.done():
                self._threads.abandon(future)
            raise
        finally:
            if future.done():
                active.future = None  # its error's traceback leads back to the run, see Worker._stored

    async def call_back(self, fn: Callable[..., Any], ctx: JobCtx, *args: Any) -> None:
        """A user's callback: async on the loop, sync in a thread. One that raises is logged and changes nothing."""
        try:
            if inspect.iscoroutinefunction(fn):
                await fn(ctx, *args)
            else:
                await self._threads.call(fn, ctx, *args)
        except (Exception, SystemExit):
            ctx.log.exception("%s raised; nothing is changed by that", getattr(fn, "__name__", fn))

    def interrupt(self, active: Active, why: str) -> None:
        """Ask a running job to stop; what it saves and returns from now on is dropped."""
        ctx = active.ctx
        if ctx.interrupted:
            if why == "lost" or (why == "cancel" and ctx.interrupted != "lost"):
                ctx.interrupted = why
            return
        ctx.interrupted = why
        active.saved = ctx.saved
        active.slot.cancel()

    def interrupted(self, active: Active) -> Outcome | None:
        """What an interrupted run came to."""
        why = active.ctx.interrupted
        if why == "lost":
            return None
        if why == "cancel":
            return Stopped(active.saved)
        if why == "drain":
            return GivenBack()
        timeout = active.timeout
        message = f"timed out after {timeout:g} s"
        active.error = TimeoutError(message)
        return Raised(self._entry(active, "TimeoutError", message, ""), result=active.saved)

    def _raised(self, active: Active, error: BaseException) -> Outcome:
        if isinstance(error, ChildError):
            active.error = error.original
            entry = self._entry(active, error.type, message_of(error), error.trace)
        else:
            active.error = error
            entry = self._entry(active, type(error).__qualname__, message_of(error), trace_of(error))
        result = active.ctx.saved
        if isinstance(error, Fail):
            return Raised(entry, final=True, result=result)
        if isinstance(error, Retry):
            if active.run.tail.retried >= active.run.policy.max_retries:
                entry = replace(entry, message=f"{entry.message}, and none was left")
            return Raised(entry, delay=error.delay, result=result)
        return Raised(entry, result=result)

    def _entry(self, active: Active, type: str, message: str, trace: str) -> ErrorEntry:
        return ErrorEntry(int(self._ports.now() * 1000), active.run.worker, type, message, trace)


def _stepping(slot: asyncio.Task[Any]) -> bool:
    """Whether the slot is being run, not thrown away."""
    try:
        return asyncio.current_task() is slot
    except RuntimeError:
        return False


def _uncancel(task: asyncio.Task[Any]) -> None:
    while task.cancelling():
        task.uncancel()
