"""Wrong versions of the library, a function each: the simulation has to find every one of them.

`MUTANTS[name]` is what is replaced and by what; `planted(name)` does it for a while.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from tasqueue.clock import Ports
from tasqueue.core import codec, lifecycle
from tasqueue.core.record import Kind, Lease, Record, Step
from tasqueue.core.status import State, Status
from tasqueue.engines.memory import MemoryEngine, links, working
from tasqueue.engines.memory.store import Job, Store, StoredLink, Worker
from tasqueue.engines.memory.working import Working
from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import Claim, Engine
from tasqueue.runtime.consumer import Consumer
from tasqueue.runtime.executor import Executor
from tasqueue.runtime.keeper import Keeper
from tasqueue.runtime.lane import Active
from tasqueue.runtime.settler import Settler

from .loop import CURRENT, Strand
from .process import Process, StrandKeeper


class Mutant(NamedTuple):
    """`where.name` becomes `what`."""

    where: Any
    name: str
    what: Callable[..., Any]


_settle, _claim, _bury, _decode = Working.settle, Working.claim, working._bury, Consumer._decode
_put_back, _step_ended, _job_ended, _insert = working._put_back, links._step_ended, links.job_ended, Store.insert
_claim_for, _interrupt = Consumer._claim, Executor.interrupt


async def settle_without_token(self: Working, worker: str, steps: Sequence[Step]) -> list[bool]:
    accepted: list[bool] = []
    for step in steps:
        job = self._store.jobs.get(step.id)
        if job is not None and job.state is State.RUNNING and job.hold is not None:
            accepted += await _settle(self, job.hold.worker, [replace(step, claim=job.hold.number)])
        else:
            accepted += await _settle(self, worker, [step])
    return accepted


def bury_and_drop(store: Store, member: Worker, cause: str) -> None:
    del store.workers[member.id]
    for job in member.held.values():
        del store.jobs[job.id]


def bury_and_forget_the_cancel(store: Store, member: Worker, cause: str) -> None:
    store.asked -= member.held.keys()
    _bury(store, member, cause)


def release_as_retry(lease: Lease, died: str = "") -> Step:
    tail = codec.decode_tail(lease.tail)
    tail = replace(tail, retried=tail.retried + 1, status=Status.RETRYING)
    return Step(lease.id, lease.claim, Kind.RETRY, State.DUE, codec.encode_tail(tail))


def release_with_a_death(store: Store, job: Job, worker: str, step: Step, now: int) -> None:
    if step.kind is Kind.RELEASE:
        step = replace(step, died=True, reason="it was given back")
    _put_back(store, job, worker, step, now)


def acknowledge_first(self: Consumer, lease: Lease) -> lifecycle.Run | None:
    run = _decode(self, lease)
    if run is not None:
        self._put(lifecycle.decide(run, lifecycle.Returned(), self._now(), self.crew.ports.rand))
    return run


def go_on_after_a_failure(store: Store, chain: StoredLink, job: Job, now: int) -> None:
    state = job.state
    job.state = State.SUCCESSFUL
    _step_ended(store, chain, job, now)
    job.state = state


def hold_nothing_back(self: Store, records: Sequence[Record], now: int) -> None:
    _insert(self, [replace(record, held=False) for record in records], now)


def engine_on_its_own_clock(self: Process, ports: Ports) -> MemoryEngine:
    whole = self.world.engine
    return MemoryEngine(namespace=whole._namespace, timeout=whole._timeout, ports=ports, store=self.world.store)


_count = itertools.count()


def random_child(cause: str, suffix: str, generation: int = 0) -> str:
    return f"{cause}~{suffix}{next(_count)}"


async def claim_without_number(self: Working, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
    member = self._store.workers.get(worker)
    return await _claim(self, worker, number if member is None else member.last + 1, wants)


async def never_beat(self: Keeper, engine: Engine) -> None:
    pass


def beat_on_the_loop(self: StrandKeeper) -> Strand:
    return CURRENT.get().main


def ring_nobody(self: Store, name: str) -> None:
    self.stamp += 1
    self.queue(name).stamp = self.stamp


async def settle_once(self: Settler, worker: str, steps: list[Step]) -> None:
    try:
        accepted = await self._engine.settle(worker, steps)
    except EngineUnavailable:
        return
    self._stored([step for step, ok in zip(steps, accepted, strict=True) if ok], self._actives)


def count_members(store: Store, job: Job, now: int) -> list[Record]:
    group = store.links.get(job.link)
    if group is None or group.is_chain:
        return _job_ended(store, job, now)
    group.pos += 1  # which a group has no use for
    group.members[job.pos] = (Status(job.state.name.lower()), job.result)
    if group.pos != group.link.n:
        return []
    for pos in range(group.link.n):
        group.members.setdefault(pos, (Status.SUCCESSFUL, None))
    return links._group_ended(store, group, now)


def run_what_was_lost(self: Any, active: Active, why: str) -> None:
    if why != "lost":
        _interrupt(self, active, why)


async def sleep_after_a_repeat(self: Consumer, wants: dict[str, int]) -> Claim | None:
    worker = self.crew.worker
    claim = await _claim_for(self, wants)
    return claim if claim is not None or self._stopped or worker != self.crew.worker else Claim([])


MUTANTS: dict[str, Mutant] = {
    "no token": Mutant(Working, "settle", settle_without_token),
    "reclaim drops": Mutant(working, "_bury", bury_and_drop),
    "reclaim forgets a cancel": Mutant(working, "_bury", bury_and_forget_the_cancel),
    "release spends an attempt": Mutant(lifecycle, "release", release_as_retry),
    "release counts a death": Mutant(working, "_put_back", release_with_a_death),
    "acknowledge first": Mutant(Consumer, "_decode", acknowledge_first),
    "a chain goes on after a failure": Mutant(links, "_step_ended", go_on_after_a_failure),
    "a chain holds nothing back": Mutant(Store, "insert", hold_nothing_back),
    "local clock": Mutant(Process, "engine", engine_on_its_own_clock),
    "random child": Mutant(lifecycle, "derive", random_child),
    "claim without number": Mutant(Working, "claim", claim_without_number),
    "no beat": Mutant(Keeper, "_beat", never_beat),
    "beat on the loop": Mutant(StrandKeeper, "strand", beat_on_the_loop),
    "nobody is woken": Mutant(Store, "stir", ring_nobody),
    "settle once": Mutant(Settler, "_write", settle_once),
    "counter instead of set": Mutant(links, "job_ended", count_members),
    "sleep after a repeated claim": Mutant(Consumer, "_claim", sleep_after_a_repeat),
    "a lost run counts": Mutant(Executor, "interrupt", run_what_was_lost),
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """The library is wrong meanwhile; "": it is not."""
    if not name:
        yield
        return
    mutant = MUTANTS[name]
    before = getattr(mutant.where, mutant.name)
    setattr(mutant.where, mutant.name, mutant.what)
    try:
        yield
    finally:
        setattr(mutant.where, mutant.name, before)
