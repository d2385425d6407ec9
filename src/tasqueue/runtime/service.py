"""A duty that comes round again and again: `tick()` is what a test calls, `start` and `stop` are its loop.

Invariant: after `stop` no tick runs or will run. A tick that fails is logged and tried again at its next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod

from ..errors import EngineUnavailable

log = logging.getLogger("tasqueue.runtime")


class Service(ABC):
    """`tick` returns how many seconds later it wants to come again."""

    name = "service"
    retry_after = 1.0

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def tick(self) -> float: ...

    def start(self) -> None:
        """Begin, with a tick at once. Nothing when it runs."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"tasqueue-{self.name}")

    async def stop(self) -> None:
        """End; waits until a tick under way is over or cancelled."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            try:
                pause = await self.tick()
            except EngineUnavailable as error:
                log.warning("%s: %s; trying again in %g s", self.name, error, self.retry_after)
                pause = self.retry_after
            except Exception:
                log.exception("%s failed; trying again in %g s", self.name, self.retry_after)
                pause = self.retry_after
            await asyncio.sleep(pause)
