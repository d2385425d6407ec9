"""Long-lived coroutines that run jobs one after another: no task, no timeout scope, no lock per job.

Invariant: a job leaves `lane.running` together with its step's entry into the settler, unless its lease is lost. A
handler that ignores its interruption is fenced off: its slot is given back, and a retry of it waits until it has really
ended, so that two runs of one job never overlap in this process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from .. import faults
from ..client.context import OVER, TYPED, Host, JobCtx
from ..client.registry import TaskDef
from ..core.codec import ErrorEntry
from ..core.lifecycle import Outcome, Raised, Returned, Run, decide, refuse, release
from ..core.record import Kind, Step
from ..core.status import State
from ..events import Started
from .crew import Crew
from .deadlines import Deadlines
from .executor import Executor
from .failures import message_of, trace_of
from .lane import Active, Lane
from .service import log

YIELD_EVERY = 32
FENCE_AFTER = 5.0
"""Seconds that an interrupted handler has to end, or less when the grace is shorter."""


def _nothing(_payload: bytes, _ctx: JobCtx) -> None:
    """Stands for the handler of a task that is not known here."""


class Trait(msgspec.Struct, frozen=True):
    """What a slot has to know of a task, looked up once."""

    task: TaskDef
    plain: bool
    """Awaiting its handler is all there is to a run."""
    heard: bool
    """It has callbacks that follow the stored step."""
    timeout: float


class Slots:
    """Makes the slots of each lane. `recycle(why)` is called when too many of them are stuck."""

    def __init__(
        self,
        crew: Crew,
        executor: Executor,
        host: Host,
        state: Any,
        default_timeout: float | None,
        fence_after: float,
        moved: Callable[[float], None] | None,
        recycle: Callable[[str], None],
    ) -> None:
        self._crew = crew
        self._executor = executor
        self._host = host
        self._state = state
        self._default_timeout = default_timeout
        self._fence_after = fence_after
        self._recycle = recycle
        self._traits: dict[str, Trait] = {}
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self.deadlines = Deadlines(self._loop, crew.ports.mono, self._expired, moved)
        self.stuck: dict[Active, Step | None] = {}
        """Fenced off and not yet ended; with the step that waits for that, since another run of the job may begin after
        it."""

    def open(self, lane: Lane) -> None:
        """Give a lane its slots."""
        while len(lane.slots) < lane.concurrency:
            task = self._loop.create_task(
                self._slot(lane), name=f"tasqueue-slot-{lane.queue}", context=self._context.copy()
            )
            lane.slots.add(task)
            task.add_done_callback(partial(self._over, lane))

    def _over(self, lane: Lane, slot: asyncio.Task[None]) -> None:
        """A slot ends when it is closed or has a successor. One that failed instead gives back what it ran, and gets
        one."""
        lane.slots.discard(slot)
        if slot.cancelled() or not isinstance(error := slot.exception(), Exception):
            return
        log.error("a slot of queue %r failed; its job goes back", lane.queue, exc_info=error)
        for active in [active for active in lane.running.values() if active.slot is slot]:
            active.ended = True
            self._vacate(active)
            self._put(active, release(active.run.lease))
        self.open(lane)

    async def close(self) -> None:
        """End all slots; what still runs in one is cancelled and left to the lease."""
        self.deadlines.close()
        tasks = [task for lane in self._crew.lanes.values() for task in lane.slots]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def _slot(self, lane: Lane) -> None:  # noqa: C901  (a call per job would cost what this is about)
        # The hot loop: what it does per job is counted in tenths of a microsecond, hence the locals.
        crew, executor, host, state = self._crew, self._executor, self._host, self._state
        traits, ready, running, bus = self._traits, lane.ready, lane.running, crew.bus
        mono, wall, rand, put = crew.ports.mono, crew.ports.now, crew.ports.rand, crew.settler.put
        isolates, last_death = crew.isolates, crew.max_deaths - 1
        me = asyncio.current_task()
        assert me is not None
        clean, successful = self._context, State.SUCCESSFUL
        count, at, now = 0, mono(), int(wall() * 1000)
        while True:
            try:
                run = ready.popleft()
            except IndexError:
                await self._idle(lane)
                at, now = mono(), int(wall() * 1000)
                continue
            lane.taken += 1
            if run.worker != crew.worker:
                continue  # claimed under a lease that was lost since
            if len(ready) == lane.low:
                crew.hungry()
            lease, spec = run.lease, run.spec
            run.started_at = now
            trait = traits.get(spec.task) or self._learn(spec.task)
            task = trait.task
            ctx = JobCtx(run, state, host)
            active = Active(run, ctx, task, lane, me, at)
            running[lease.id] = active
            if task.typed:
                ctx.closed = TYPED
            if (lease.deaths and isolates and lease.deaths >= last_death) or not last_death:
                active.alone = isolates
            timeout = spec.timeout or trait.timeout
            if timeout:
                active.timeout = timeout
                if not active.alone:  # the isolator gives the whole of it to the child, once that has started
                    self.deadlines.add(active, timeout)
            if bus.per_job and bus.wanted(Started):
                bus.emit(Started(lease.id, spec.task, lane.queue, run.worker))
            try:
                if faults.active:
                    faults.point("W4.before_handler")
                if trait.plain and not active.alone:
                    if faults.active:
                        faults.point("W5.entered")
                    await task.handler(spec.payload, ctx)
                    outcome = Returned(ctx.saved)
                else:
                    outcome = await executor.enter(active)
                if faults.active:
                    faults.point("W6.returned")
            except BaseException as error:
                outcome = executor.caught(active, error)
            if timeout:
                self.deadlines.done(active)
            ended = mono()
            now = int(wall() * 1000)
            if ctx.interrupted:
                while me.cancelling():
                    me.uncancel()
                if self._left(active):
                    return
            else:
                active.ended = True
                ctx.closed = OVER
                try:
                    step = decide(run, outcome, now, rand)
                except Exception as error:
                    step = self._undecided(active, outcome, error)
                if faults.active:
                    faults.point("W7.decided")
                del running[lease.id]
                if step.state is not successful or trait.heard or bus.per_job:
                    active.seconds = ended - at
                    put(step, active, run.worker)
                else:
                    put(step, None, run.worker)
            mean = lane.mean
            lane.mean = ended - at if mean is None else mean + (ended - at - mean) * 0.1
            at = ended
            if (
                contextvars.copy_context() != clean
            ):  # the handler has set a context variable; the next job must not see it
                lane.slots.discard(me)
                self.open(lane)
                return
            count += 1
            if not count % YIELD_EVERY:
                await asyncio.sleep(0)
                at, now = mono(), int(wall() * 1000)

    def unstarted(self, run: Run, error: BaseException | None = None) -> Active:
        """For a job that ends without a run here, so that callbacks and listeners hear of it."""
        lane = self._crew.lanes[run.lease.queue]
        task = self._crew.registry.tasks.get(run.spec.task) or TaskDef(run.spec.task, _nothing, run.lease.queue)
        me = asyncio.current_task() or next(iter(lane.slots))
        ctx = JobCtx(run, self._state, self._host)
        return Active(run, ctx, task, lane, me, self._crew.ports.mono(), ended=True, error=error)

    def _learn(self, name: str) -> Trait:
        task = self._crew.registry.tasks[name]
        trait = self._traits[name] = Trait(
            task,
            self._executor.plain(task),
            task.success_cb is not None or task.retrying_cb is not None or task.failed_cb is not None,
            task.timeout or self._default_timeout or 0.0,
        )
        return trait

    async def _idle(self, lane: Lane) -> None:
        future = self._loop.create_future()
        lane.idle.append(future)
        self._crew.hungry()
        try:
            await future
        except asyncio.CancelledError:
            if future in lane.idle:
                lane.idle.remove(future)
            raise

    # -- interruption -------------------------------------------------------------------------------------------------

    def interrupt(self, active: Active, why: str) -> None:
        """Ask it to stop, and fence it off if it has not done so in time."""
        self._executor.interrupt(active, why)
        self._loop.call_later(self._fence_after, self.fence, active)

    def _expired(self, active: Active) -> None:
        log.warning("job %r (task %r) is past its timeout", active.run.lease.id, active.task.name)
        self.interrupt(active, "timeout")

    def fence(self, active: Active) -> None:
        """Give its slot back while it still runs."""
        lane = active.lane
        if active.ended or active.fenced:
            return
        active.fenced = True
        log.error("job %r (task %r) ignores its interruption; fenced off", active.run.lease.id, active.task.name)
        if active.future is not None:
            active.slot.cancel()  # the slot leaves the thread behind and goes on, see _left
        else:
            lane.slots.discard(active.slot)
            self.open(lane)
            self._leave_behind(active, self._executor.interrupted(active))

    def _left(self, active: Active) -> bool:
        """After an interrupted run. True: this slot has a successor, and ends."""
        outcome = self._executor.interrupted(active)
        if active.fenced and active.future is None:  # an async handler that was fenced off has ended after all
            self._ended(active)
            return True
        if active.future is not None:
            active.future.add_done_callback(lambda _: self._ended(active))
            self._leave_behind(active, outcome)
            return False
        active.ended = True
        self._vacate(active)
        if outcome is not None:
            self._put(active, self._decide(active, outcome))
        return False

    def _leave_behind(self, active: Active, outcome: Outcome | None) -> None:
        self._vacate(active)
        step = None if outcome is None else self._decide(active, outcome)
        if step is not None and step.kind is Kind.END:
            self._put(active, step)
            step = None
        self.stuck[active] = step
        slots = sum(lane.concurrency for lane in self._crew.lanes.values())
        if len(self.stuck) >= max(1, slots // 4):
            self._recycle(f"{len(self.stuck)} of {slots} slots are stuck in handlers that ignore their interruption")

    def _ended(self, active: Active) -> None:
        active.ended = True
        step = self.stuck.pop(active, None)
        if step is not None:
            self._put(active, step)

    def settle_stuck(self, releases: bool) -> None:
        """The process is about to end, and with it what is stuck: the retries that wait for that can be written.

        `releases`: what the drain gives back too; otherwise somebody else does, when the process is gone.
        """
        for active, step in self.stuck.items():
            if step is not None and (releases or step.kind is not Kind.RELEASE):
                self._put(active, step)
        self.stuck = dict.fromkeys(self.stuck)

    def _vacate(self, active: Active) -> None:
        """Its id may stand for a run under a newer lease by now, when its own was lost."""
        running, id = active.lane.running, active.run.lease.id
        if running.get(id) is active:
            del running[id]

    def _decide(self, active: Active, outcome: Outcome) -> Step:
        ports = self._crew.ports
        try:
            return decide(active.run, outcome, int(ports.now() * 1000), ports.rand)
        except Exception as error:
            return self._undecided(active, outcome, error)

    def _undecided(self, active: Active, outcome: Outcome, error: Exception) -> Step:
        """Its backoff function raised (the default takes its place), or its follow-ups cannot be decoded (it is
        failed)."""
        run, ports = active.run, self._crew.ports
        log.error("job %r (task %r): %s", run.lease.id, active.task.name, message_of(error), exc_info=error)
        now = int(ports.now() * 1000)
        if isinstance(outcome, Raised) and run.policy.backoff is not None:
            run.policy = replace(run.policy, backoff=None)
            return self._decide(active, outcome)
        active.error = error
        entry = ErrorEntry(now, run.worker, type(error).__qualname__, message_of(error), trace_of(error))
        return refuse(run.lease, entry, run.policy, now)

    def _put(self, active: Active, step: Step) -> None:
        active.seconds = self._crew.ports.mono() - active.started
        self._crew.settler.put(step, active, active.run.worker)
