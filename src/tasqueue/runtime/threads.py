"""Long-lived threads for sync handlers. Jobs go in through a queue, outcomes come back in batches: one wake-up of the
loop for all that have gathered (an executor call per job costs 60 us).

Invariant: every `call` is answered, unless its thread never comes back; then it is the caller's to `abandon` it, which
makes room for another thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Reply = tuple["asyncio.Future[Any]", Any, BaseException | None]


class Threads:
    """At most `size` threads, made when they are needed, daemons: one that never returns does not keep the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str = "tasqueue-sync") -> None:
        self._loop = loop
        self._context = contextvars.copy_context()
        self._name = name
        self._work: SimpleQueue[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._replies: deque[Reply] = deque()
        self._told = False
        self._threads = 0
        self._pending = 0
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """How many threads are still busy with what nobody waits for any more."""
        return self._abandoned

    def call(self, fn: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run `fn(*args)` in a thread; the future has its outcome. On the loop only."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending += 1
        if self._pending > self._threads - self._abandoned:
            self._threads += 1
            threading.Thread(target=self._main, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._work.put((future, fn, args))
        return future

    def abandon(self, future: asyncio.Future[Any]) -> None:
        """Nobody waits for this call any more, and its thread may never come back."""
        if not future.done():
            self._abandoned += 1
            self._pending -= 1
            future.add_done_callback(self._returned)

    def _returned(self, _future: asyncio.Future[Any]) -> None:
        self._abandoned -= 1
        self._pending += 1  # _deliver takes it away again

    def close(self) -> None:
        """The idle threads end; the busy ones after what they are at."""
        for _ in range(self._threads):
            self._work.put(None)

    def _main(self) -> None:
        while (item := self._work.get()) is not None:
            future, fn, args = item
            value, error = None, None
            try:
                value = self._context.copy().run(fn, *args)  # what it sets there, the next call must not see
            except BaseException as raised:  # SystemExit in a handler is its error, not this thread's end
                error = raised
            self._replies.append((future, value, error))
            del item, future, fn, args, value, error
            if not self._told:  # asked after the append: `_deliver` lowers it before it looks
                self._told = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop is closed: nobody is left to be told
                    return

    def _deliver(self) -> None:
        self._told = False
        while self._replies:
            future, value, error = self._replies.popleft()
            self._pending -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            elif isinstance(error, Exception) and not isinstance(error, StopIteration):
                future.set_exception(error)
                future.exception()  # so that asyncio does not complain when nobody waits for it any more
            else:  # a future takes no StopIteration, and what ends a thread must not end the loop
                wrapped = RuntimeError(f"{type(error).__qualname__} was raised in a thread")
                wrapped.__cause__ = error
                future.set_exception(wrapped)
                future.exception()
