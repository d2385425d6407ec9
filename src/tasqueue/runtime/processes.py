"""Child processes for `executor="process"`: one single-process pool a slot, so that a job's process can be killed, or die, alone.

Built on the standard library's ProcessPoolExecutor with the `spawn` method: forking a process that has threads is not safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any


class ProcessDied(Exception):
    """The child ended while it ran the job; `str()` tells how."""


class Processes:
    """Idle children are kept for the next job; there are never more than jobs at once."""

    def __init__(self) -> None:
        self._idle: list[ProcessPoolExecutor] = []
        self._context = multiprocessing.get_context("spawn")

    async def call(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run `fn(*args)` in a child. Cancelling it kills the child. ProcessDied when the child dies."""
        pool = self._idle.pop() if self._idle else ProcessPoolExecutor(1, mp_context=self._context)
        try:
            result = await asyncio.get_running_loop().run_in_executor(pool, fn, *args)
        except BrokenProcessPool as error:
            self._kill(pool)
            raise ProcessDied(str(error) or "the process died") from None
        except asyncio.CancelledError:
            self._kill(pool)
            raise
        except Exception:
            self._idle.append(pool)
            raise
        self._idle.append(pool)
        return result

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
