"""Keeps the lease: beats from a thread with a loop and an engine of its own, so that a handler that blocks the worker's
loop keeps it (G9), and gives back what is claimed and cannot start (G13).

Invariant: the keeper never touches a running job; it tells the worker's loop (`lost`, `cancels`, `drain`), and takes
jobs only from the end of a lane's `ready`, where each pop is atomic.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import msgspec

from ..core.lifecycle import release
from ..core.record import Step
from ..errors import TasqueueError
from ..events import Returned
from ..interfaces import Beat, Engine
from .crew import Crew
from .lane import Lane
from .service import log

TICK = 0.1
"""Seconds between two looks at the lanes."""
MAX_BEAT = 1.0
"""Seconds between two beats, at the most: cancel requests and pauses arrive with them."""


class Keeper:
    """`start` returns when the first beat is due; `stop` when the last one is over."""

    def __init__(
        self,
        crew: Crew,
        lease: float,
        info: Callable[[], bytes],
        told: Callable[[str, Beat], None],
        on_loop: bool,
    ) -> None:
        self._crew = crew
        self._lease = lease
        self._info = info
        self._told = told
        self._on_loop = on_loop
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._progress: dict[str, tuple[str, int, bytes]] = {}
        self._taken: dict[str, int] = {}
        self._owed: dict[str, list[Step]] = {}
        """Taken out of `ready`, not yet given back, by incarnation."""

    def start(self) -> None:
        """Begin to beat: from a thread, or from the loop when the engine cannot have a twin."""
        if self._on_loop:
            self._task = self._loop.create_task(self._keep(self._crew.engine), name="tasqueue-keeper")
        else:
            self._thread = threading.Thread(target=self._main, name="tasqueue-keeper", daemon=True)
            self._thread.start()

    async def stop(self) -> None:
        """Beat no more."""
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        elif self._thread is not None:
            await self._loop.run_in_executor(None, self._thread.join)

    def note(self, id: str, claim: int, done: int, total: int, text: str) -> None:
        """Progress, to be written with the next beat; only the last one of a job is."""
        self._progress[id] = (id, claim, msgspec.msgpack.encode((done, total, text)))

    def _main(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._keep_twin())
        except Exception:
            log.exception("the keeper ended; this worker will lose its lease")

    async def _keep_twin(self) -> None:
        engine = self._crew.engine.twin()
        try:
            await self._keep(engine)
        finally:
            await engine.close()

    async def _keep(self, engine: Engine) -> None:
        mono = self._crew.ports.mono
        opened = engine is self._crew.engine
        every = min(self._lease / 3, MAX_BEAT)
        beat_at = mono() + every
        while not self._stopping.is_set():
            await asyncio.sleep(min(TICK, every))
            try:
                if not opened:
                    await engine.open()
                    opened = True
                if mono() >= beat_at:  # first: a give-back without an answer must not keep the lease waiting
                    beat_at = mono() + every
                    await self._beat(engine)
                await self._give_back(engine)
            except TasqueueError as error:
                log.warning("beat: %s; trying again", error)
            except Exception:
                log.exception("beat failed; trying again")

    async def _beat(self, engine: Engine) -> None:
        worker = self._crew.worker
        if not worker:
            return
        notes, self._progress = self._progress, {}
        try:
            reply = await engine.beat(worker, int(self._lease * 1000), self._info(), list(notes.values()))
        except BaseException:
            self._progress = {**notes, **self._progress}
            raise
        if reply.lost or reply.cancels or reply.drain or reply.paused or any(lane.paused for lane in self._lanes()):
            self._tell(worker, reply)

    def _tell(self, worker: str, reply: Beat) -> None:
        if self._on_loop:
            self._told(worker, reply)
            return
        try:
            self._loop.call_soon_threadsafe(self._told, worker, reply)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            self._stopping.set()

    async def _give_back(self, engine: Engine) -> None:
        """What was claimed and has stood still since the last look goes back to its old place."""
        for lane in self._lanes():
            taken = lane.taken
            if lane.ready and self._taken.get(lane.queue) == taken and self._crew.ports.mono() - lane.filled >= TICK:
                for run in lane.take_back():
                    self._owed.setdefault(run.worker, []).append(release(run.lease))
            self._taken[lane.queue] = taken
        for worker, steps in list(self._owed.items()):
            log.debug("%d job(s) cannot start here; given back", len(steps))
            await engine.settle(worker, steps)
            del self._owed[worker]
            if self._crew.bus.wanted(Returned):
                self._crew.bus.emit(Returned(tuple(step.id for step in steps), "release"))

    def _lanes(self) -> list[Lane]:
        return list(self._crew.lanes.values())
