"""Writes what jobs came to: all that has gathered since the last write goes in one round trip. An idle worker adds no
latency.

Invariant: a step stays here until the engine has answered for it. While the engine is away it is tried again, and
nothing is lost: at the worst the lease ends and the step is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from .. import faults
from ..core.record import Kind, Step
from ..errors import EngineUnavailable
from ..events import Bus, Refused, Settled
from ..interfaces import Engine
from .lane import Active
from .service import log

MAX_BATCH = 512
BACKLOG = 2048
"""Steps: with more waiting than this, nothing new is claimed."""


class Settler:
    """`put` is called by slots; `stored(steps, actives)` for each batch of steps that the engine accepted.

    `actives` has the runs, by job id and claim, of those steps that were put together with one: only who needs to hear
    of it later is kept.
    """

    def __init__(
        self,
        engine: Engine,
        bus: Bus,
        mono: Callable[[], float],
        stored: Callable[[Sequence[Step], dict[tuple[str, int], Active]], None],
    ) -> None:
        self._engine = engine
        self._bus = bus
        self._mono = mono
        self._stored = stored
        self._worker = ""
        self._steps: list[Step] = []
        self._sealed: deque[tuple[str, list[Step]]] = deque()
        self._actives: dict[tuple[str, int], Active] = {}
        self._writing = 0
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._task: asyncio.Task[None] | None = None
        self.emptied: Callable[[], None] | None = None
        self.refused = 0

    @property
    def backlog(self) -> int:
        """How many steps are not answered for."""
        return len(self._steps) + self._writing + sum(len(steps) for _, steps in self._sealed)

    def start(self) -> None:
        """Begin writing."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="tasqueue-settler")

    def put(self, step: Step, active: Active | None, worker: str) -> None:
        """Write it with the next batch; `worker` is the incarnation that claimed it."""
        steps = self._steps
        if not steps:
            self._worker = worker
            self._wake.set()
            self._quiet.clear()
        elif worker != self._worker or len(steps) >= MAX_BATCH:
            self._sealed.append((self._worker, steps))
            self._worker = worker
            steps = self._steps = []
        steps.append(step)
        if active is not None:
            self._actives[step.id, step.claim] = active

    async def flush(self) -> None:
        """Until everything that was put has been answered."""
        await self._quiet.wait()

    async def stop(self) -> None:
        """End at once; what has not been answered stays the lease's matter."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            if self._sealed:
                worker, steps = self._sealed.popleft()
            else:
                worker, steps = self._worker, self._steps
                self._steps = []
            self._writing = len(steps)
            await self._write(worker, steps)
            self._writing = 0
            if not self._steps and not self._sealed:
                self._wake.clear()
                self._quiet.set()
            if self.emptied is not None:
                self.emptied()

    async def _write(self, worker: str, steps: list[Step]) -> None:
        began = self._mono()
        while True:
            try:
                if faults.active:
                    faults.point("W8.before_settle")
                    if any(step.kind is Kind.RETRY for step in steps):
                        faults.point("R1.before_retry")
                accepted = await self._engine.settle(worker, steps)
                break
            except EngineUnavailable as error:
                log.warning("settle: %s; trying again", error)
            except Exception:
                log.exception("settle failed; trying again")
            await asyncio.sleep(0.25)
        if self._bus.wanted(Settled):
            self._bus.emit(Settled(len(steps), self._mono() - began))
        if not all(accepted):
            refused = [step for step, ok in zip(steps, accepted, strict=True) if not ok]
            stale = tuple(step.id for step in refused)
            steps = [step for step, ok in zip(steps, accepted, strict=True) if ok]
            self.refused += len(stale)
            some = ", ".join(stale[:5])
            log.warning("stale finish of %d job(s) refused, somebody else has them: %s", len(stale), some)
            for step in refused:
                active = self._actives.pop((step.id, step.claim), None)
                if active is not None:
                    active.error = None  # its traceback leads back to the run: a cycle that no collector sees
            if self._bus.wanted(Refused):
                self._bus.emit(Refused(worker, stale))
        try:
            self._stored(steps, self._actives)
        except Exception:  # the steps are stored: what cannot be told must not keep others from being
            log.exception("telling of %d stored finish(es) failed", len(steps))
