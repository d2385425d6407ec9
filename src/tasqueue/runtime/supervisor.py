"""Keeps worker children alive, keeps their leases while they cannot, takes back at once what a dead one held (G9, G10).

Invariant: what a child held is given back only after the child is gone, as a death (`reclaim`) if it crashed, and
spending nothing (`retire`) if it was asked to end. The supervisor loads the app, for its engine and options (no URL can
name a user's own engine), and never runs a handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from typing import Any

from ..client.app import load_app
from ..errors import EngineUnavailable, Unsupported
from .board import State
from .child_process import RECYCLE, UNAVAILABLE, Config, Process

log = logging.getLogger("tasqueue.supervisor")

TICK = 0.2
"""Seconds between two looks at the children."""
MAX_BEAT = 1.0
OVERDUE = 5.0
"""Seconds past its timeout after which a job's process is killed."""
AFTER_GRACE = 1.0
"""Seconds that a child has after its grace to hand back, before it is killed."""
TRIES = 5
"""Starts in a row that may fail before the supervisor gives up."""


class Supervisor:
    """`await run()` works until SIGTERM or SIGINT and returns the exit code. A second signal kills the children.

    SIGHUP replaces the children one after another, so that they load the app anew; each works on until the one that
    takes its place does, and keeps its place when that one does not get there. `overdue`: see OVERDUE.
    """

    def __init__(
        self,
        app: str,
        *,
        processes: int = 1,
        queues: list[str] | None = None,
        concurrency: int | None = None,
        grace: float | None = None,
        overdue: float = OVERDUE,
    ) -> None:
        self._config = Config(app, queues, concurrency, grace)
        self._processes = processes
        self._overdue = overdue
        self._children: set[Process] = set()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed_starts = 0
        self._gave_up = False
        self._rolls = 0
        self._rolling = asyncio.Lock()
        self._heir: Process | None = None
        """Started to take another one's place, and not there yet."""

    def stop(self) -> None:
        """Drain the children and end. Again: kill them."""
        if self._stopping.is_set():
            log.warning("ending %d worker process(es) now; what they hold is given back", len(self._children))
            for child in self._children:
                child.signal(signal.SIGKILL)
            return
        log.info("draining: running jobs have %g s; a second signal ends them now", self._grace)
        self._stopping.set()
        for child in self._children:
            self._spawn(self._end(child))

    async def run(self) -> int:
        """Until `stop`; 0, or 1 when the children could not be started."""
        config = self._config
        server = load_app(config.app)
        parts = self._parts = await server.parts()
        if not parts.engine.capabilities.shared:
            raise Unsupported(
                f"{parts.engine.url} lives in one process, so workers in processes of their own would never see a job "
                "of it: use srv.run() or `await srv.start()` in that process, or another URL"
            )
        self._lease = int(parts.options.lease * 1000)
        self._grace = parts.options.grace if config.grace is None else config.grace
        loop = asyncio.get_running_loop()
        for number, call in (
            (signal.SIGCHLD, self._poll),
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGHUP, self._roll),
        ):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                loop.add_signal_handler(number, call)
        duties = [asyncio.create_task(self._watch()), asyncio.create_task(self._beat())]
        try:
            async with asyncio.TaskGroup() as self._seats:
                for _ in range(self._processes):
                    self._seats.create_task(self._seat())
            self._stopping.set()  # nothing is left that could be replaced
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=parts.options.timeout)
        finally:
            for child in list(self._children):
                child.signal(signal.SIGKILL)
            for task in (*duties, *self._tasks):
                task.cancel()
            await asyncio.gather(*duties, *self._tasks, return_exceptions=True)
            await server.close()
        return 1 if self._gave_up else 0

    # -- one place in the pool ----------------------------------------------------------------------------------------

    async def _seat(self, child: Process | None = None) -> None:
        """One child after another, until one ends because it was asked to, or another seat has its place."""
        quick = 0
        while child is not None or not self._stopping.is_set():
            if child is None:
                try:
                    child = self._start()
                except OSError as error:
                    log.error("starting a worker process: %s; trying again", error)
                    await self._pause(1.0)
                    continue
            await child.gone.wait()
            started = child.board.state is not State.STARTING
            self._bury(child)
            gone, child = child, None
            if self._stopping.is_set() or gone.replaced:
                return
            if gone.code == RECYCLE or gone.ending:
                quick = 0
                continue
            if gone.code == 0 and started:
                log.info("worker process %d drained on request; it is not replaced", gone.pid)
                return
            if started:
                self._failed_starts = 0
                quick = quick + 1 if self._now() - gone.started < 2.0 else 0
                pause = min(1.0, 0.1 * quick)
            else:
                if gone.code != UNAVAILABLE:
                    self._failed_starts += 1
                quick += 1
                pause = min(2.0, 0.25 * quick)
                if self._failed_starts >= TRIES and not await self._anybody_works():
                    if not self._stopping.is_set():
                        log.error("%d starts in a row failed; giving up", self._failed_starts)
                        self._gave_up = True
                        self.stop()
                    return
            await self._pause(pause)

    async def _anybody_works(self) -> bool:
        """Whether some child has got as far as working. One that starts may yet: that is waited for."""
        while self._children:
            if any(child.board.state is not State.STARTING for child in self._children):
                return True
            await asyncio.sleep(TICK)
        return False

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _start(self) -> Process:
        child = Process(self._config, self._now())
        self._children.add(child)
        log.info("worker process %d started", child.pid)
        return child

    def _bury(self, child: Process) -> None:
        """It is gone: see to what it has left."""
        self._children.discard(child)
        worker = child.board.worker
        unclean = child.code not in (0, RECYCLE)
        asked = child.ending or self._stopping.is_set()
        crashed = unclean and not (asked and child.code in (-signal.SIGTERM, -signal.SIGKILL))
        if unclean:
            child.sweep()
        if crashed:
            log.error("worker process %d ended: %s", child.pid, child.cause)
        child.close()
        if worker:
            self._spawn(self._take_back(worker, child.cause if crashed else ""))

    async def _take_back(self, worker: str, cause: str) -> None:
        """At once, and again until the engine has answered; when it never does, the lease gives it back."""
        engine = self._parts.engine
        while True:
            try:
                if cause:
                    await engine.reclaim(worker, cause)
                else:
                    count = await engine.retire(worker)
                    if count:
                        log.info("worker %s is gone; %d job(s) given back unfinished", worker, count)
                return
            except EngineUnavailable as error:
                log.warning("taking back what %s held: %s; trying again", worker, error)
            except Exception:
                log.exception("taking back what %s held failed; trying again", worker)
            await asyncio.sleep(0.25)

    async def _end(self, child: Process) -> None:
        """Ask it to drain; kill it when it has not done so in time."""
        child.ending = True
        child.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.gone.wait(), self._grace + AFTER_GRACE)
        except TimeoutError:
            log.warning("worker process %d did not end within the grace; killed", child.pid)
            child.signal(signal.SIGKILL)

    def _roll(self) -> None:
        if self._stopping.is_set():
            return
        log.info("replacing the worker processes one after another")
        self._rolls += 1
        if self._heir is not None:  # it loads what is out of date by now
            self._heir.ending = True
            self._heir.signal(signal.SIGKILL)
        self._seats.create_task(self._replace(self._rolls))

    async def _replace(self, roll: int) -> None:
        """Each in turn works on until its heir does: an app that cannot be loaded costs nobody."""
        async with self._rolling:
            for child in [child for child in self._children if not child.ending]:
                if roll < self._rolls or self._stopping.is_set():
                    return
                if child.gone.is_set():  # by itself: who has its place now has loaded the app anew
                    continue
                try:
                    heir = await self._start_heir()
                except OSError as error:
                    log.error("starting a worker process: %s; the others keep their places", error)
                    return
                if heir.gone.is_set():
                    self._bury(heir)
                    if not heir.ending:
                        log.error("worker process %d did not get as far as working; the others stay", heir.pid)
                    return
                if child.gone.is_set() or self._stopping.is_set():  # its seat has seen to its place
                    await self._end(heir)
                    self._bury(heir)
                    continue
                child.replaced = True
                self._seats.create_task(self._seat(heir))
                await self._end(child)

    async def _start_heir(self) -> Process:
        """One that works, or is gone."""
        heir = self._heir = self._start()
        while not heir.gone.is_set() and heir.board.state is State.STARTING:  # noqa: ASYNC110  # memory has no event
            await asyncio.sleep(TICK)
        self._heir = None
        return heir

    # -- watching -----------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        for child in list(self._children):
            child.poll()

    async def _watch(self) -> None:
        """Kill those with an overdue job; notice what SIGCHLD may have missed."""
        while True:
            await asyncio.sleep(TICK)
            self._poll()
            now = self._now()
            for child in self._children:
                deadline = child.board.deadline
                if deadline and now > deadline + self._overdue and not child.overdue:
                    child.overdue = True
                    log.error("worker process %d is killed: a job in it is past its timeout and blocks it", child.pid)
                    child.signal(signal.SIGKILL)

    async def _beat(self) -> None:
        """Keep the leases of those that are not stopped, whatever their handlers block."""
        every = min(self._lease / 3000, MAX_BEAT)
        while True:
            await asyncio.sleep(every)
            self._poll()
            workers = [c.board.worker for c in self._children if not c.stopped and c.board.state is not State.STARTING]
            await asyncio.gather(*(self._beat_for(worker) for worker in workers if worker))

    async def _beat_for(self, worker: str) -> None:
        try:
            await self._parts.engine.beat(worker, self._lease, b"")  # the answer is the child's, who hears it too
        except EngineUnavailable as error:
            log.warning("beat for %s: %s; trying again", worker, error)
        except Exception:
            log.exception("beat for %s failed; trying again", worker)

    def _now(self) -> float:
        return self._parts.ports.mono()

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
