"""What any worker does for the fleet: promote due jobs and cron ticks, take back what dead workers held, forget what is
over.

Nothing here needs a leader: each verb is one step in the engine, and a tick's id is derived, so several workers that do
the same at once do it once (G7).
"""

from __future__ import annotations

from .. import faults
from ..clock import Ports
from ..core import codec, cron
from ..core.record import Record, Schedule, Tick
from ..events import Bus, Reclaimed, Ticked
from ..interfaces import Engine
from .service import Service, log

IDLE = 1.5


class Scheduler(Service):
    """Due jobs become ready and schedules tick. With nothing due it asks every `IDLE` seconds: somebody else may have
    stored a schedule."""

    name = "scheduler"

    def __init__(self, engine: Engine, bus: Bus, idle: float = IDLE) -> None:
        super().__init__()
        self._engine = engine
        self._bus = bus
        self._idle = idle

    async def tick(self) -> float:
        coming = await self._engine.promote()
        if coming is None:
            return self._idle
        now = await self._engine.now()
        if coming <= now:
            due = await self._engine.schedules(due=True)
            ticks = [tick for tick in (self._next(entry, now) for entry in due) if tick is not None]
            if ticks:
                if faults.active:
                    faults.point("S1.tick_computed")
                fired = await self._engine.fire(ticks)
                if self._bus.wanted(Ticked):
                    for tick, done in zip(ticks, fired, strict=True):
                        if done:
                            self._bus.emit(Ticked(tick.schedule_id, tick.record.id))
            if ticks or not due:
                return 0.0
            return self._idle  # nothing but schedules that cannot be computed: no reason to hurry
        return min(self._idle, (coming - now) / 1000)

    def _next(self, entry: Schedule, now: int) -> Tick | None:
        try:
            schedule = cron.parse(entry.schedule)
            tick = schedule.latest(entry.next_at, now, entry.anchor)
            coming = schedule.after(tick, entry.anchor)
            spec = codec.restamp(entry.job, now)
        except Exception:  # stored by a newer library, or damaged: the other schedules go on
            log.exception(
                "schedule %r (%r) cannot be computed; delete it or upgrade this worker", entry.id, entry.schedule
            )
            return None
        record = Record(cron.tick_id(entry.id, tick), entry.queue, entry.task, spec, entry.priority)
        return Tick(entry.id, entry.next_at, tick, coming, record)


class Reaper(Service):
    """Takes back what workers held whose lease has ended. Comes round about once a second, not in step with the
    others."""

    name = "reaper"

    def __init__(self, engine: Engine, bus: Bus, ports: Ports) -> None:
        super().__init__()
        self._engine = engine
        self._bus = bus
        self._ports = ports

    async def tick(self) -> float:
        workers = await self._engine.reclaim()
        if workers:
            log.warning("lease ended, jobs taken back: %s", ", ".join(workers))
            if self._bus.wanted(Reclaimed):
                self._bus.emit(Reclaimed(tuple(workers)))
        return 0.8 + 0.6 * self._ports.rand()


class Pruner(Service):
    """Forgets what has outlived its retention, at most a thousand at a time. An engine may stop short of that, at the
    border of what it stored together, so only nothing means that nothing is left."""

    name = "pruner"

    def __init__(self, engine: Engine, ports: Ports) -> None:
        super().__init__()
        self._engine = engine
        self._ports = ports

    async def tick(self) -> float:
        gone = await self._engine.prune()
        return 0.05 if gone else 5.0 + 5.0 * self._ports.rand()
