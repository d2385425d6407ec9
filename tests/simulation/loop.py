"""An event loop without a world: time is virtual, nothing sleeps, and who goes on next is decided by a seed.

What runs belongs to a strand: the event loop of a simulated process, the thread that keeps its lease, the store. It
inherits its strand through the context, so that everything that a process starts belongs to it. Callbacks of one strand
run in the order of asyncio; between strands the seed chooses. A strand may be halted (its process is frozen) or killed:
then nothing of it runs any more, no `finally` either.

Invariant: nothing but the seed decides the order of what runs: no address, no clock, no thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from bisect import insort
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tasqueue.testing.clock import START

MOST_STEPS = 400_000
"""Callbacks of one run: more than this is a loop that never rests."""


class Spinning(Exception):
    """Something goes round and round without letting time pass."""


class Strand:
    """One line of execution. `main`: that of its process's event loop. `side`: that of the process's other thread."""

    __slots__ = ("dead", "halts", "main", "name", "number", "ready", "side")

    def __init__(self, name: str, number: int, main: Strand | None = None) -> None:
        self.name = name
        self.number = number
        self.main = main or self
        self.side = self
        self.ready: deque[_Handle] = deque()
        self.halts = 0
        """For how many reasons it stands still."""
        self.dead = False

    def __lt__(self, other: Strand) -> bool:
        return self.number < other.number


CURRENT: contextvars.ContextVar[Strand] = contextvars.ContextVar("strand")


class _Handle:
    """As asyncio's, without what debugging needs: half of the time of a run went into those."""

    __slots__ = ("_cancelled", "args", "at", "callback", "context")

    def __init__(
        self, at: float, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self.at = at
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self.at


class _Task(asyncio.Task[Any]):
    """Sets of tasks are iterated in the order of their hashes, which must not be addresses."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self.number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self.number


class _Future(asyncio.Future[Any]):
    number = 0

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """`run(main)` is `asyncio.run` in virtual time; `main` has a strand of its own, which is never halted."""

    def __init__(self, seed: str) -> None:
        super().__init__()
        self.clock = START
        self.errors: list[str] = []
        """What would have been logged by asyncio: exceptions in callbacks, and those of tasks that nobody looked at."""
        self._rand = random.Random(seed).random
        self._tasks: list[asyncio.Task[Any]] = []
        self._strands = 0
        self._futures = 0
        self.steps = 0
        self._home = self.strand("simulation")
        self._runnable: list[Strand] = []
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timed = 0
        self.set_debug(False)
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self.errors.append(_described(context)))

    # -- strands ------------------------------------------------------------------------------------------------------

    def strand(self, name: str, main: Strand | None = None) -> Strand:
        """A new one."""
        self._strands += 1
        return Strand(name, self._strands, main)

    def halt(self, *strands: Strand) -> None:
        """They stand still until they are resumed as often as they were halted."""
        for strand in strands:
            strand.halts += 1
            if strand in self._runnable:
                self._runnable.remove(strand)

    def resume(self, *strands: Strand) -> None:
        """What came meanwhile is run in its order, timers that have become due too."""
        for strand in strands:
            strand.halts -= 1
            if not strand.halts and strand.ready:
                insort(self._runnable, strand)

    def kill(self, *strands: Strand) -> None:
        """They are gone, without any clean-up."""
        for strand in strands:
            strand.dead = True
            strand.ready.clear()
            if strand in self._runnable:
                self._runnable.remove(strand)

    def spawn(self, strand: Strand, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this strand."""
        return self.create_task(coro, context=context_of(strand))

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------------

    def time(self) -> float:
        return self.clock

    def call_soon(self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = _Handle(self.clock, callback, args, context)
        self._dispatch(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """A thread of a process calls into the process's event loop."""
        strand = (context or contextvars.copy_context()).get(CURRENT, self._home)
        return self.call_soon(callback, *args, context=context_of(strand.main))

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        handle = _Handle(when, callback, args, context)
        self._timed += 1
        heapq.heappush(self._timers, (when, self._timed, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        return self.call_at(self.clock + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        self._futures += 1
        future.number = self._futures
        return future

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **kwargs: Any
    ) -> asyncio.Task[Any]:
        task = _Task(len(self._tasks), coro, loop=self, **kwargs)
        self._tasks.append(task)  # a killed strand's tasks must not be collected: that would run their `finally`
        return task

    def _write_to_self(self) -> None:
        pass  # nobody sleeps in a selector

    def _process_events(self, event_list: object) -> None:
        raise NotImplementedError

    # -- running ------------------------------------------------------------------------------------------------------

    def _dispatch(self, handle: _Handle) -> None:
        strand = handle.context.get(CURRENT, self._home)
        if strand.dead:
            return
        ready = strand.ready
        ready.append(handle)
        if len(ready) == 1 and not strand.halts:
            insort(self._runnable, strand)

    def _run_once(self) -> None:
        timers, runnable = self._timers, self._runnable
        while True:
            while timers and timers[0][0] <= self.clock:
                handle = heapq.heappop(timers)[2]
                if not handle._cancelled:
                    self._dispatch(handle)
            if runnable:
                break
            self.clock = timers[0][0]  # there is one: the simulation itself never waits for ever
        strand = runnable[int(self._rand() * len(runnable))] if len(runnable) > 1 else runnable[0]
        ready = strand.ready
        handle = ready.popleft()
        if not ready:
            runnable.remove(strand)
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Spinning(f"{MOST_STEPS:,} callbacks, the last ones of {strand.name}: {handle.callback}")
        self.clock += 1e-6
        if handle._cancelled:
            return
        try:
            handle.context.run(handle.callback, *handle.args)
        except (SystemExit, KeyboardInterrupt, Spinning):
            raise
        except BaseException as error:
            self.errors.append(f"in a callback: {type(error).__name__}: {error}")

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        """Its result. Whatever is left then is thrown away."""
        try:
            return self.run_until_complete(main)
        finally:
            self._throw_away()

    def _throw_away(self) -> None:
        for task in self._tasks:
            if task.cancelled():  # its error's traceback has its frame, which may have a run that the collector skips
                try:
                    task.exception()
                except asyncio.CancelledError as error:
                    error.__traceback__ = None
            elif not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                try:
                    task.get_coro().close()
                except BaseException:  # it awaits something in a `finally`, or asks for the running loop
                    pass
        self._tasks.clear()
        self._timers.clear()
        self.close()


def context_of(strand: Strand) -> contextvars.Context:
    """A copy of the current context, in this strand."""
    context = contextvars.copy_context()
    context.run(CURRENT.set, strand)
    return context


def _described(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context.get('message')}: {type(error).__name__}: {error}" if error else str(context.get("message"))
