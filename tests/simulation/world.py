"""The simulated fleet: processes, one store, one network, and what befalls them.

What is not here: real threads (the keeper's coroutine runs on a strand of its own, sync handlers are left out), process
pools, the supervisor and its children, sockets.

Invariant: what halts or kills a process does so to all of it, and whatever happens is decided by the plan and its seed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from tasqueue import Job
from tasqueue.client.setup import Options, options
from tasqueue.clock import Ports
from tasqueue.core.status import State
from tasqueue.engines.memory import MemoryEngine
from tasqueue.engines.memory.store import Store
from tasqueue.testing.clock import START

from .ledger import Ledger
from .loop import SimLoop, context_of
from .network import Network
from .plan import Fault, Op, Plan
from .process import Process

PATIENCE = 300.0
"""Virtual seconds in which everything has to end when nothing goes wrong any more."""


class World:
    """Plays a plan. `trace`: what is told of each thing that happens, or None."""

    def __init__(self, plan: Plan, trace: Callable[[str], None] | None = None) -> None:
        self.plan = plan
        self.loop = loop = SimLoop(f"order {plan.seed}")
        self._trace = trace
        self.server = loop.strand("store")
        self.rand = random.Random(f"world {plan.seed}")
        ports = Ports(now=loop.time, mono=loop.time, rand=self.rand.random, bits=self.rand.randbytes)
        self.store = Store()
        self.engine = MemoryEngine(namespace="tasqueue", timeout=plan.timeout, ports=ports, store=self.store)
        self.options: Options = options(
            default_concurrency=plan.concurrency,
            lease=plan.lease,
            grace=plan.grace,
            timeout=plan.timeout,
            max_deaths=plan.max_deaths,
            result_ttl=None,
            failed_ttl=None,
        )
        self.ledger = Ledger(loop.time, self._state, plan.lease)
        self.network = Network(loop, self.server, f"network {plan.seed}", plan.rates, plan.timeout, self._executed)
        self.processes: list[Process] = []
        self.slots: list[Process | None] = [None] * plan.workers
        """The worker processes that are to be."""
        self.snoozed: Counter[str] = Counter()
        self.raised: list[Exception] = []
        """By handlers."""
        self.acknowledged: list[str] = []
        self.done: list[Op] = []
        self.healed = False
        self._started = 0

    def _state(self, id: str) -> State | None:
        job = self.store.jobs.get(id)
        return None if job is None else job.state

    @property
    def traced(self) -> bool:
        return self._trace is not None

    def say(self, who: str, *what: Any) -> None:
        """A line of the trace."""
        if self._trace is not None:
            self._trace(f"{self.loop.clock - START:10.6f}  {who:<12} {' '.join(map(str, what))}")

    def _executed(self, process: str, verb: str, args: tuple[Any, ...], answer: Any) -> None:
        if self._trace is not None:
            self.say(f"{process} >", verb, shown(args), "->", shown(answer))
        before = len(self.ledger.ends)
        self.ledger.note(verb, args, answer)
        if len(self.ledger.ends) > before and verb == "reclaim":
            self._check_deaths(answer)

    def _check_deaths(self, workers: list[str]) -> None:
        """A worker that nothing befell keeps its lease, and gives everything back before it ends."""
        if self.plan.rates.may_starve:
            return
        for process in self.processes:
            for name in workers:
                if process.disturbed or not name.startswith(f"{process.name}:"):
                    continue
                if process.works_as(name):
                    self.ledger.breach(f"{name} lost its lease, and nothing was wrong with it")
                if process.left and self.ledger.ends[name].held:
                    self.ledger.breach(f"{name} has ended in peace, and left what it held to its lease")

    # -- processes ----------------------------------------------------------------------------------------------------

    def start_worker(self, slot: int) -> None:
        """A new process in this place."""
        self._started += 1
        knows = self.healed or slot >= self.plan.old_workers
        process = Process(self, f"w{slot}.{self._started}", self.plan.skews[slot], knows)
        self.slots[slot] = process
        self.processes.append(process)
        self.say(process.name, "starts", f"skew {process.skew:+.3f}")
        process.work()

    def ended(self, process: Process) -> None:
        """Its worker has come to its end, and so has the process."""
        self.say(process.name, "ends")
        process.left = True
        process.kill()
        for slot, one in enumerate(self.slots):
            if one is process:
                self.slots[slot] = None
                if not self.closing:
                    self._later(0.2, self._restart, slot)

    def _restart(self, slot: int) -> None:
        if self.slots[slot] is None and not self.closing:
            self.start_worker(slot)

    def _later(self, seconds: float, fn: Callable[..., Any], *args: Any) -> None:
        self.loop.call_later(seconds, fn, *args, context=self._context)

    def block(self, process: Process, seconds: float) -> None:
        """Its event loop stands still; its keeper does not."""
        self.say(process.name, f"blocks its loop for {seconds:g} s")
        self.loop.halt(process.main)
        self._later(seconds, self.loop.resume, process.main)

    # -- faults -------------------------------------------------------------------------------------------------------

    def strike(self, fault: Fault) -> None:
        """It goes wrong now."""
        process = self.slots[fault.target]
        if fault.kind in ("outage", "freeze"):
            for one in self.processes:
                one.disturbed = True
            self._fail_store(fault)
            return
        if fault.kind == "kill client":
            self._kill_client()
            return
        if process is None or not process.alive:
            return
        self.say(process.name, f"fault: {fault.kind} {fault.span:.3f}")
        if fault.kind == "kill":
            process.kill()
            self.slots[fault.target] = None
            self._later(fault.span / 2, self._restart, fault.target)
        elif fault.kind == "pause":
            process.disturbed = True
            self.loop.halt(*process.strands)
            self._later(fault.span, self._resume, process)
        elif fault.kind == "block":
            process.disturbed |= process.worker is None or not process.worker.crew.worker  # no beats yet
            self.block(process, fault.span)
        elif fault.kind == "drain":
            if process.worker is not None:
                process.worker.stop()
        elif fault.kind == "cancel":
            if process.task is not None and process.worker is not None:
                process.task.cancel()
        elif fault.kind == "cut":
            process.disturbed = True
            self._cut(process.name, fault.span)
        elif fault.kind == "skew":
            process.skew += fault.span

    def _resume(self, process: Process) -> None:
        self.say(process.name, "goes on")
        self.loop.resume(*process.strands)

    def _fail_store(self, fault: Fault) -> None:
        self.say("store", f"fault: {fault.kind} {fault.span:.3f}")
        if fault.kind == "freeze":
            self.loop.halt(self.server)
            self._later(fault.span, self.loop.resume, self.server)
        else:
            for process in self.processes:
                self._cut(process.name, fault.span)

    def _cut(self, name: str, span: float) -> None:
        cut = self.network.cut
        cut[name] = cut.get(name, 0) + 1
        self._later(span, self._mend, name)

    def _mend(self, name: str) -> None:
        self.network.cut[name] -= 1

    def _kill_client(self) -> None:
        self.say(self.client.name, "fault: kill")
        self.client.kill()
        self.client = self._new_client()
        for op in self._begun:
            if not any(one is op for one in self.done):
                self.client.do(op)

    def _new_client(self) -> Process:
        self._started += 1
        process = Process(self, f"client.{self._started}", 0.0)
        self.processes.append(process)
        return process

    # -- the course ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """From the start until everything has ended and the workers have drained."""
        self.loop.run(self._whole())

    def forget(self) -> None:
        """The collector does not see runs (`gc=False`), so cycles through one have to be cut."""
        self.ledger.runs.clear()
        self.ledger.attempts.clear()
        for error in self.raised:
            error.__traceback__ = None
        for process in self.processes:
            process.forget()

    async def _whole(self) -> None:
        try:
            await self._play()
        finally:
            self.ledger.closed = True

    async def _play(self) -> None:
        plan, loop = self.plan, self.loop
        self._context = context_of(loop._home)
        self.closing = False
        self._begun: list[Op] = []
        self.client = self._new_client()
        for slot in range(plan.workers):
            self._later(self.rand.random() * 0.5, self.start_worker, slot)
        todo: list[tuple[float, int, Op | Fault]] = [(op.at, 1, op) for op in plan.ops]
        todo += [(fault.at, 0, fault) for fault in plan.faults]
        for at, _, what in sorted(todo, key=lambda item: item[:2]):
            await self._until(at)
            if isinstance(what, Fault):
                self.strike(what)
            else:
                self._begun.append(what)
                self.client.do(what)
        await self._until(plan.heal)
        await self._heal()
        await self._settle_down()
        self.closing = True
        await self._drain()

    async def _until(self, at: float) -> None:
        left = START + at - self.loop.clock
        if left > 0:
            await asyncio.sleep(left)

    async def _heal(self) -> None:
        self.say("world", "is well again")
        self.network.rates = self.plan.rest
        self.healed = True
        ticks = self.ledger.fired["tick"]
        for slot in range(self.plan.old_workers):  # an old release is replaced
            process = self.slots[slot]
            if process is not None and process.worker is not None:
                process.worker.stop()
        while len(self.done) < len(self.plan.ops):
            await asyncio.sleep(0.1)
            self._check_patience("the client")
        while self.network.pending:  # noqa: ASYNC110  (a pause whose sender has given up may come after its end)
            await asyncio.sleep(0.1)
        for queue in sorted(self.ledger.paused):
            self.client.do(Op(0.0, "resume", queue))
        if any(op.what.schedule for op in self.plan.ops if isinstance(op.what, Job)):
            while self.ledger.fired["tick"] == ticks:
                await asyncio.sleep(0.1)
                self._check_patience("the ticks of the schedule")
            self.client.do(Op(0.0, "delete_schedule", "tick"))
            await asyncio.sleep(0.1)

    async def _settle_down(self) -> None:
        while self.ledger.unfinished():
            await asyncio.sleep(0.25)
            self._check_patience("the jobs")
        await asyncio.sleep(0.5)  # what is under way comes in

    def _check_patience(self, whose: str) -> None:
        if self.loop.clock - START > self.plan.heal + PATIENCE:
            raise Stuck(whose)

    async def _drain(self) -> None:
        workers = [process for process in self.slots if process is not None]
        for process in workers:
            if process.worker is not None:
                process.worker.stop()
        for _ in range(200):
            if not any(process.alive for process in workers):
                return
            await asyncio.sleep(0.1)
        self.ledger.breach("a worker does not come to its end")


class Stuck(Exception):
    """Something does not end, though nothing is wrong any more."""


def shown(value: Any) -> str:
    """For the trace: ids and numbers, not bytes."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(one)}" for key, one in value.items()) + "}"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>" if len(value) > 16 else repr(value)
    kind = type(value).__name__
    if kind == "Step":
        return f"{value.kind.name}:{value.state.name} {value.id} #{value.claim}"
    if kind == "Lease":
        return f"{value.id} #{value.claim}"
    if kind == "Record":
        return value.id
    if kind == "Claim":
        return f"{shown(value.leases)} next {value.next_due}"
    if isinstance(value, BaseException):
        return f"{kind}: {value}"
    return f"{value}"[:100]
