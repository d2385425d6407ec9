"""One simulated process: the real Worker or the real client, on strands and a clock of its own, and its handlers.

Invariant: a process is a loop strand and a keeper strand; nothing else of the simulation runs in them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tasqueue import EngineUnavailable, Fail, JobCtx, Retry, Snooze
from tasqueue.client.connection import Connection
from tasqueue.client.inspector import Inspector
from tasqueue.client.parts import Parts
from tasqueue.client.producer import Producer
from tasqueue.client.registry import Registry, define
from tasqueue.client.setup import Setup
from tasqueue.clock import Ports
from tasqueue.core.status import State
from tasqueue.engines.memory import MemoryEngine
from tasqueue.events import Bus
from tasqueue.runtime.keeper import Keeper
from tasqueue.runtime.worker import Worker
from tasqueue.testing.clock import START

from .ledger import Attempt
from .loop import CURRENT, Strand, context_of
from .network import Wire
from .plan import TASKS, TIMEOUT, Op

if TYPE_CHECKING:
    from .world import World


class StrandKeeper(Keeper):
    """The keeper with a strand for its thread: what runs there is the same coroutine, on an engine of its own."""

    _kept: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._kept = self._loop.create_task(self._keep_twin(), context=context_of(self.strand()))

    def strand(self) -> Strand:
        """What stands for its thread."""
        return CURRENT.get().side

    async def stop(self) -> None:
        self._stopping.set()
        if self._kept is not None:
            await asyncio.wait((self._kept,))


class Process:
    """One simulated process: a worker or a client. It has a clock of its own, which may be wrong."""

    def __init__(self, world: World, name: str, skew: float, knows_new: bool = True) -> None:
        self.world, self.name, self.skew, self.knows_new = world, name, skew, knows_new
        loop = world.loop
        self.main = loop.strand(name)
        self.side = loop.strand(f"{name} keeper", self.main)
        self.main.side = self.side
        self._rand = random.Random(f"{world.plan.seed} {name}")
        base = self._rand.uniform(0, 1e6)
        ports = Ports(
            now=lambda: loop.clock + self.skew,
            mono=lambda: loop.clock - START + base,
            rand=self._rand.random,
            bits=self._rand.randbytes,
        )
        self.registry = Registry()
        self.setup = Setup(world.options, ports, self.registry, Bus(), [], [])
        self.connection = Connection(Wire(self.engine(ports), world.network, name))
        self.producer = Producer(self.connection, self.setup)
        self.inspector = Inspector(self.connection, self.setup)
        self.worker: Worker | None = None
        self.task: asyncio.Task[None] | None = None
        self.alive = True
        self.left = False
        """Its worker came to its end."""
        self.disturbed = False
        """Something befell it, so that its lease may end while it lives."""

    def engine(self, _ports: Ports) -> MemoryEngine:
        """The store goes by its own clock, not by this process's (G12)."""
        return self.world.engine.twin()

    @property
    def strands(self) -> tuple[Strand, Strand]:
        return self.main, self.side

    def works_as(self, name: str) -> bool:
        """Whether it is at work under this incarnation; one that drains beats no more before its very end."""
        return self.alive and self.worker is not None and not self.worker.draining and self.worker.crew.worker == name

    def kill(self) -> None:
        """As SIGKILL does."""
        self.alive = False
        self.world.loop.kill(*self.strands)

    def forget(self) -> None:
        """The collector does not see runs (`gc=False`), so what may close a cycle through one is cut."""
        self.registry.tasks.clear()
        if self.worker is not None and self.worker.crew.lanes:
            self.worker.settler._actives.clear()
            self.worker.slots.deadlines._heap.clear()
            self.worker.slots.stuck.clear()
            for lane in self.worker.crew.lanes.values():
                lane.running.clear()

    # -- a worker -----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Begin to be a worker."""
        for task, queue in TASKS.items():
            if task != "new" or self.knows_new:
                timeout = TIMEOUT if task == "limited" else None
                backoff = 0.3 if task == "limited" else [0.1, 0.5]
                self.registry.add(define(task, self._handler, queue=queue, timeout=timeout, backoff=backoff), None)
        self.task = self.world.loop.spawn(self.main, self._work())

    async def _work(self) -> None:
        engine = await self.connection.engine()
        setup = self.setup
        parts = Parts(engine, setup.registry, setup.bus, setup.ports, setup.options, [], self.producer, None, None)
        self.worker = Worker(parts)
        try:
            await self.worker.run()
        except EngineUnavailable as error:  # at its start: whoever runs it starts it again
            self.world.say(self.name, f"could not start: {error}")
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self.world.ledger.breach(f"{self.name}: the worker ended: {type(error).__name__}: {error}")
        self.world.ended(self)

    async def _handler(self, payload: bytes, ctx: JobCtx) -> None:
        world, lease = self.world, ctx.run.lease
        attempt = world.ledger.started(ctx, world.loop.clock)
        world.say(self.name, "run", lease.id, attempt.token)
        how = "error"
        try:
            await self._act(json.loads(payload), ctx, attempt)
            how = "done"
        except Exception as error:
            how = "snoozed" if isinstance(error, Snooze) else how
            world.raised.append(error)
            raise
        except GeneratorExit:
            return  # the simulation is over
        finally:
            assert self.worker is not None
            if self.worker.crew.worker != ctx.run.worker and not ctx.interrupted:
                world.ledger.breach(f"{lease.id} went on to its end, though {ctx.run.worker} is known to be lost")
            world.ledger.left(attempt, how, world.loop.clock)
            world.say(self.name, attempt.how, lease.id, attempt.token)

    async def _act(self, what: dict[str, Any], ctx: JobCtx, attempt: Attempt) -> None:
        world, id = self.world, attempt.id
        if "progress" in what:
            for done in range(what["progress"]):
                await ctx.progress(done, what["progress"])
        if "block" in what:
            world.block(self, what["block"])
            await asyncio.sleep(0)
        try:
            await asyncio.sleep(what.get("s", 0))
        except asyncio.CancelledError:
            if "stubborn" not in what:
                raise
            end = world.loop.clock + what["stubborn"]
            while world.loop.clock < end:
                try:
                    await asyncio.sleep(end - world.loop.clock)
                except asyncio.CancelledError:
                    continue
        if world.ledger.errors[id] < what.get("fail", 0):
            raise ValueError("as it was told")
        if world.ledger.errors[id] < what.get("asks", 0):
            raise Retry(0.2)
        if "fatal" in what:
            attempt.fatal = True
            raise Fail("as it was told")
        if world.snoozed[id] < what.get("snooze", 0):
            world.snoozed[id] += 1
            raise Snooze(0.3)
        if not ctx.interrupted:
            ctx.save(attempt.saved)

    # -- a client -----------------------------------------------------------------------------------------------------

    def do(self, op: Op) -> asyncio.Task[None]:
        """Carry it out, again and again until it is answered."""
        return self.world.loop.spawn(self.main, self._do(op))

    async def _do(self, op: Op) -> None:
        world = self.world
        if op.verb == "pause":
            queue, span = op.what
            await self._insist(op, lambda: self.inspector.pause(queue, "why"))
            await asyncio.sleep(span)
            await self._insist(op, lambda: self.inspector.resume(queue))
        elif op.verb == "retry":
            over = [id for id, state in world.ledger.final.items() if state is not State.SUCCESSFUL]
            if over:
                id = over[int(op.what * len(over))]
                await self._insist(op, lambda: self.inspector.retry(id))
        elif hasattr(self.producer, op.verb):
            said = await self._insist(op, lambda: getattr(self.producer, op.verb)(op.what))
            world.acknowledged += [said] if isinstance(said, str) else said
        else:
            await self._insist(op, lambda: getattr(self.inspector, op.verb)(op.what))
        world.done.append(op)

    async def _insist(self, op: Op, fn: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            self.world.say(self.name, op.verb, getattr(op.what, "id", op.what))
            try:
                return await fn()
            except EngineUnavailable as error:
                self.world.say(self.name, op.verb, str(error))
            await asyncio.sleep(self._rand.uniform(0.05, 0.4))
