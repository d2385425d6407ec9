"""Child processes for `executor="process"`: one single-process pool a slot, so that a job's process can be killed, or
die, alone.

Built on the standard library's ProcessPoolExecutor with the `spawn` method: forking a process that has threads is not
safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..core.retry import Fail, Retry, Snooze
from .failures import ChildError, message_of, told


class ProcessDied(Exception):
    """The child ended while it ran the job; `str()` tells how."""


_ASKS: dict[str, type[Fail | Retry | Snooze]] = {kind.__name__: kind for kind in (Fail, Retry, Snooze)}


def _guarded(fn: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """In the child: what it came to, as values."""
    try:
        return "returned", fn(*args)
    except Fail as error:
        return "Fail", message_of(error)
    except (Retry, Snooze) as error:
        return type(error).__name__, error.delay
    except BaseException as error:
        return "raised", told(error)


class Processes:
    """Idle children are kept for the next job; there are never more than jobs at once."""

    def __init__(self) -> None:
        self._idle: list[ProcessPoolExecutor] = []
        self._context = multiprocessing.get_context("spawn")

    async def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run `fn(*args)` in a child. Cancelling it kills the child. ProcessDied when the child dies."""
        pool = self._idle.pop() if self._idle else ProcessPoolExecutor(1, mp_context=self._context)
        try:
            kind, value = await asyncio.get_running_loop().run_in_executor(pool, _guarded, fn, *args)
        except BrokenProcessPool as error:
            self._kill(pool)
            raise ProcessDied(str(error) or "the process died") from None
        except BaseException:
            self._kill(pool)
            raise
        self._idle.append(pool)
        if kind == "returned":
            return value
        if kind == "raised":
            raise ChildError(*value)
        raise _ASKS[kind](value)

    def close(self) -> None:
        """End the idle children."""
        for pool in self._idle:
            pool.shutdown(wait=False, cancel_futures=True)
        self._idle.clear()

    def _kill(self, pool: ProcessPoolExecutor) -> None:
        children: dict[int, Any] = getattr(pool, "_processes", None) or {}
        for child in list(children.values()):
            with contextlib.suppress(Exception):
                child.kill()
        pool.shutdown(wait=False, cancel_futures=True)
