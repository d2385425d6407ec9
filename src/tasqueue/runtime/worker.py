"""One worker in this process: it puts the parts together, starts them in order, and takes them down in the reverse
(G8).

Invariant: `run` returns only when everything that was claimed has been settled or given back, whichever way it ends;
after a cancellation at once, after `stop` when the running jobs are done or the grace is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from .. import faults
from ..client.context import JobCtx
from ..client.parts import Parts
from ..core import codec
from ..core.lifecycle import Policy, Stopped, decide, release
from ..core.record import Kind, Step
from ..core.status import State, Status
from ..errors import EngineUnavailable
from ..events import Ended, LeaseLost, Retrying, Returned
from ..interfaces import Beat
from .consumer import Consumer
from .crew import Crew
from .duties import Pruner, Reaper, Scheduler
from .executor import Executor
from .failures import message_of
from .info import Info
from .isolated import Isolator
from .keeper import Keeper
from .lane import Active, Lane
from .processes import Processes
from .service import Service, log
from .settler import Settler
from .slots import FENCE_AFTER, Slots
from .threads import Threads

AFTER_GRACE = 0.7
"""Seconds that cancelled handlers have to end when the grace is over; a supervisor kills this process 1 s after it."""


class Worker:
    """Consumes the queues of the registered tasks (or only `queues`) until `stop`.

    `isolator`: runs a job's last allowed run in a child of its own. `named(worker)`: told the name of each incarnation.
    `moved(deadline)`: told the earliest deadline (monotonic seconds, 0.0: none). `recycle(why)`: told when too many
    slots are stuck; without it that is only logged. `retires=False`: what a handler that ignored its interruption still
    holds is given back by the supervisor, when this process is gone.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        queues: list[str] | None = None,
        concurrency: int | None = None,
        grace: float | None = None,
        isolator: Isolator | None = None,
        named: Callable[[str], None] | None = None,
        moved: Callable[[float], None] | None = None,
        recycle: Callable[[str], None] | None = None,
        retires: bool = True,
    ) -> None:
        self._parts = parts
        self._only = None if queues is None else set(queues)
        self._concurrency = concurrency or parts.options.default_concurrency
        self._grace = parts.options.grace if grace is None else grace
        self._isolator = isolator
        self._named = named
        self._moved = moved
        self._recycle_cb = recycle
        self._retires = retires
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._callbacks: set[asyncio.Task[None]] = set()
        self._registering = asyncio.Lock()
        self._reviving: asyncio.Task[None] | None = None
        self.max_payload = parts.options.max_payload
        self.loop = asyncio.get_running_loop()
        options = parts.options
        self._lease = options.lease
        self._policy = Policy(0, None, options.result_ttl_ms, options.failed_ttl_ms, codec.millis(options.park_for))
        self.settler = Settler(parts.engine, parts.bus, parts.ports.mono, self._stored)
        self.crew = Crew(
            parts.engine, parts.registry, parts.bus, parts.ports, self.settler, options.max_deaths, isolator is not None
        )
        self.info = Info(self.crew, self._concurrency, self._stopping.is_set)
        self._given_back = 0
        """By the drain, so far."""
        self.left_behind = 0
        """After `run`: how many handlers that ignored their interruption still run; they die with the process."""

    # -- Host, for contexts -------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether this worker is about to stop."""
        return self._stopping.is_set()

    def progress(self, ctx: JobCtx, done: int, total: int, note: str) -> None:
        """Kept for the next beat."""
        lease = ctx.run.lease
        self.keeper.note(lease.id, lease.claim, done, total, note)

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        """As `Engine.results`."""
        return await self.crew.engine.results(key, start, limit)

    # -- life ---------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Drain: claim nothing more, let running jobs go on for the grace, then hand everything back. Again: skip the
        grace."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`. Cancelled: everything is given back at once."""
        crew, parts = self.crew, self._parts
        async with AsyncExitStack() as stack:
            await crew.engine.open()
            state = (
                await stack.enter_async_context(parts.lifespan(parts.server)) if parts.lifespan is not None else None
            )
            threads, processes = Threads(self.loop), Processes()
            self._threads = threads
            stack.callback(threads.close)
            stack.callback(processes.close)
            if self._isolator is not None:
                stack.push_async_callback(self._isolator.close)
            executor = Executor(parts.ports, threads, processes, parts.around, self._isolator)
            self._executor = executor
            self.slots = Slots(
                crew,
                executor,
                self,
                state,
                parts.options.default_timeout,
                min(FENCE_AFTER, self._grace or AFTER_GRACE),
                self._moved,
                self._recycle,
            )
            self.consumer = Consumer(crew, self.slots, self._lost, self._switch, self._policy)
            self.keeper = Keeper(
                crew, self._lease, self.info.encode, self._told, not crew.engine.capabilities.thread_beat
            )
            duties: list[Service] = [
                Scheduler(crew.engine, crew.bus),
                Reaper(crew.engine, crew.bus, parts.ports),
                Pruner(crew.engine, parts.ports),
            ]
            try:
                await self._begin(duties)
                await self._stopping.wait()
                await self._end(duties, self._grace)
            except BaseException:
                end = self.loop.create_task(self._end(duties, 0.0))
                while not end.done():
                    try:
                        await asyncio.shield(end)
                    except asyncio.CancelledError:  # once more: it is under way
                        continue
                raise

    async def _begin(self, duties: list[Service]) -> None:
        await self._parts.producer.store_task_schedules()
        self._open_lanes()
        self._parts.registry.changed = self._register_later
        await self._register(self.crew.new_name())
        self.settler.start()
        self.keeper.start()
        for duty in duties:
            duty.start()
        self.consumer.start()
        log.info("worker %s: serving %s", self.crew.worker, ", ".join(sorted(self.crew.lanes)) or "no queue yet")
        queues = self._parts.registry.queues.keys()
        for queue in sorted((self._only or queues) - queues):
            log.warning("no task is on queue %r here; the queues are %s", queue, ", ".join(sorted(queues)) or "none")

    async def _end(self, duties: list[Service], grace: float) -> None:
        """Take everything down. What is not settled by then is given back by `retire`, spending nothing."""
        crew = self.crew
        self._stopping.set()
        self._parts.registry.changed = None
        self._return_ready()  # before anything is awaited: what has not started does not start any more
        await self.consumer.stop()
        for duty in duties:
            await duty.stop()
        if self._reviving is not None:
            self._reviving.cancel()
        self._return_ready()
        if grace > 0:
            await self._wait_idle(grace)
        running = [active for lane in crew.lanes.values() for active in lane.running.values()]
        for active in running:
            self._executor.interrupt(active, "drain")
        if running:
            self._hurry.clear()
            await self._wait_idle(AFTER_GRACE)
            for active in running:
                self.slots.fence(active)
            await self._wait_idle(AFTER_GRACE)
        self.slots.settle_stuck(self._retires)
        try:
            async with asyncio.timeout(self._parts.options.timeout):
                await self.settler.flush()
        except TimeoutError:
            log.warning("%d finish(es) could not be written; their lease gives them back", self.settler.backlog)
        if self._callbacks:
            _, late = await asyncio.wait(self._callbacks, timeout=max(grace, AFTER_GRACE))
            for task in late:
                task.cancel()
        await self.slots.close()
        await self.settler.stop()
        await self.keeper.stop()
        self.left_behind = max(self._threads.abandoned, len(self.slots.stuck))
        if self._retires or not self.left_behind:
            await self.hand_back()
        log.info("worker %s: stopped; %d job(s) given back unfinished", crew.worker, self._given_back)

    def _return_ready(self) -> None:
        for lane in self.crew.lanes.values():
            for run in lane.take_back():
                self.settler.put(release(run.lease), None, run.worker)

    async def hand_back(self) -> None:
        """Give back whatever is still held, spending nothing."""
        if self.crew.worker:
            try:
                self._given_back += await self.crew.engine.retire(self.crew.worker)
            except EngineUnavailable as error:
                log.warning("could not give everything back: %s; the lease will", error)

    async def _wait_idle(self, seconds: float) -> None:
        """Until nothing runs and all is settled, the time is over, or somebody is in a hurry."""
        idle = asyncio.ensure_future(self._idle())
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((idle, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in (idle, hurry):
                future.cancel()

    async def _idle(self) -> None:
        event = asyncio.Event()
        self.crew.hungry = event.set
        self.settler.emptied = event.set
        while self.crew.busy:
            event.clear()
            await event.wait()

    # -- lanes, incarnations -------------------------------------------------------------------------------------------

    def _open_lanes(self) -> None:
        for queue, concurrency in self._parts.registry.queues.items():
            if queue not in self.crew.lanes and (self._only is None or queue in self._only):
                lane = self.crew.lanes[queue] = Lane(queue, concurrency or self._concurrency)
                self.slots.open(lane)

    def _register_later(self) -> None:
        self.loop.call_soon_threadsafe(self._changed)  # a task may be registered in any thread

    def _changed(self) -> None:
        """A task was registered while running: its queue is served at once."""
        if not self._stopping.is_set():
            self._open_lanes()
            self._spawn(self._announce())

    async def _announce(self) -> None:
        async def announce() -> None:
            await self._parts.producer.store_task_schedules()
            async with self._registering:
                if self.crew.worker:
                    await self._store(self.crew.worker)

        await self._insist("announce", announce)

    async def _insist(self, what: str, fn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Until it succeeds or this worker stops."""
        while not self._stopping.is_set():
            try:
                await fn()
            except EngineUnavailable as error:
                log.warning("%s: %s; trying again", what, error)
            except Exception:
                log.exception("%s failed; trying again", what)
            else:
                self.crew.hungry()
                return
            await asyncio.sleep(0.25)

    async def _register(self, worker: str) -> None:
        """Begin this incarnation. One at a time: an announcement must not bring the one before back to life."""
        async with self._registering:
            if self._named is not None:
                self._named(worker)
            await self._store(worker)
            self.crew.worker = worker

    async def _store(self, worker: str) -> None:
        tasks = {
            name: task.queue
            for name, task in self._parts.registry.tasks.items()
            if self._only is None or task.queue in self._only
        }
        await self.crew.engine.register(worker, codec.millis(self._lease), self.info.encode(), tasks, codec.VERSION)

    async def _switch(self, suffix: str) -> None:
        """Go on under another incarnation; nothing is held while this is called."""
        old = self.crew.worker
        await self._register(self.crew.new_name(suffix))
        await self.crew.engine.retire(old)

    def _lost(self, worker: str) -> None:
        """The lease is lost: mute and cancel what runs under it, and go on under a new name (G4)."""
        crew = self.crew
        if worker != crew.worker or not worker:
            return
        crew.worker = ""
        log.warning("worker %s lost its lease; what it ran is somebody else's now, going on under a new name", worker)
        if crew.bus.wanted(LeaseLost):
            crew.bus.emit(LeaseLost(worker))
        for lane in crew.lanes.values():
            lane.take_back()
            for active in list(lane.running.values()):
                self.slots.interrupt(active, "lost")
        self._reviving = self._spawn(self._revive())

    async def _revive(self) -> None:
        await self._insist("register", lambda: self._register(self.crew.new_name()))

    def _told(self, worker: str, reply: Beat) -> None:
        """What a beat was answered."""
        crew = self.crew
        if worker != crew.worker:
            return
        if reply.lost:
            self._lost(worker)
            return
        if reply.cancels:
            wanted = set(reply.cancels)
            for lane in crew.lanes.values():
                for active in [lane.running[id] for id in wanted & lane.running.keys()]:
                    self.slots.interrupt(active, "cancel")
                if any(run.lease.id in wanted for run in list(lane.ready)):
                    self._cancel_ready(lane, wanted)
        paused = set(reply.paused)
        for lane in crew.lanes.values():
            lane.paused = lane.queue in paused
            if lane.paused:
                for run in lane.take_back():
                    self.settler.put(release(run.lease), None, run.worker)
        crew.hungry()
        if reply.drain and not self._stopping.is_set():
            self.stop()

    def _cancel_ready(self, lane: Lane, wanted: set[str]) -> None:
        """Those that have not started need not start."""
        for run in reversed(lane.take_back()):
            if run.lease.id in wanted:
                step = decide(run, Stopped(), int(self.crew.ports.now() * 1000), self.crew.ports.rand)
                self.settler.put(step, self.slots.unstarted(run), run.worker)
            else:
                lane.ready.append(run)

    def _recycle(self, why: str) -> None:
        if self._stopping.is_set():
            return
        if self._recycle_cb is None:
            log.error("%s; restart this process, or run it under `tasqueue worker`, which would do that", why)
        else:
            log.error("%s; this process drains and is replaced", why)
            self._recycle_cb(why)

    # -- after the step is stored --------------------------------------------------------------------------------------

    def _stored(self, steps: Sequence[Step], actives: dict[tuple[str, int], Active]) -> None:
        self.info.count(steps)
        if self._stopping.is_set():
            self._given_back += sum(step.kind is Kind.RELEASE for step in steps)
        if actives:
            for step in steps:
                active = actives.pop((step.id, step.claim), None)
                if active is not None:
                    self._tell(step, active)
                    active.error = None  # its traceback leads back to the run: a cycle that no collector sees
        if self.crew.bus.wanted(Returned):
            returned: dict[str, list[str]] = {}
            for step in steps:
                if step.kind not in (Kind.END, Kind.RETRY):
                    returned.setdefault(step.kind.name.lower(), []).append(step.id)
            for why, ids in returned.items():
                self.crew.bus.emit(Returned(tuple(ids), why))

    def _tell(self, step: Step, active: Active) -> None:
        task, bus, kind = active.task, self.crew.bus, step.kind
        if kind is Kind.END:
            if step.state is State.SUCCESSFUL:
                self._call_back(active, step, task.success_cb)
            elif step.state is State.FAILED:
                log.warning("job %r (task %r) failed: %s", step.id, task.name, _text(active.error))
                self._call_back(active, step, task.failed_cb, active.error)
            if bus.wanted(Ended):
                bus.emit(self._ended(step, active))
        elif kind is Kind.RETRY:
            text = _text(active.error)
            log.info("job %r (task %r): %s; again in %g s", step.id, task.name, text, step.delay / 1000)
            self._call_back(active, step, task.retrying_cb, active.error)
            if bus.wanted(Retrying):
                bus.emit(Retrying(step.id, task.name, active.lane.queue, text))

    def _ended(self, step: Step, active: Active) -> Ended:
        run = active.run
        status = {State.SUCCESSFUL: Status.SUCCESSFUL, State.FAILED: Status.FAILED}.get(step.state, Status.CANCELLED)
        waited = max(0, run.started_at - max(run.spec.enqueued_at, run.spec.eta or 0)) / 1000
        return Ended(step.id, active.task.name, active.lane.queue, status, active.seconds, waited)

    def _call_back(self, active: Active, step: Step, fn: Callable[..., Any] | None, *args: Any) -> None:
        if fn is None:
            return
        if faults.active:
            faults.point("W10.callbacks")
        active.ctx.after(step)
        self._spawn(self._executor.call_back(fn, active.ctx, *args))

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(coro)
        self._callbacks.add(task)
        task.add_done_callback(self._callbacks.discard)
        return task


def _text(error: BaseException | None) -> str:
    return "" if error is None else f"{type(error).__qualname__}: {message_of(error)}"
