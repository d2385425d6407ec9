"""Claims jobs for the slots and keeps the slots busy: many in one round trip, no more held than start within 50 ms.

Invariant: a claim's number is used again until its answer has been read (G14), so a lost reply strands nothing. What is
claimed is in a lane's `ready`, in a slot, or in the settler.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from .. import faults
from ..client.registry import TaskDef
from ..core import codec
from ..core.codec import ErrorEntry, Spec
from ..core.lifecycle import Policy, Raised, Run, Stopped, Unrunnable, decide, park, refuse, release
from ..core.record import Lease, Step
from ..errors import EngineUnavailable, JobFailed
from ..events import Claimed
from ..interfaces import Claim, WorkerGone
from .crew import Crew
from .service import log
from .settler import BACKLOG
from .slots import Slots

FIRST_OFFER, LAST_OFFER = 1_000, 60_000
"""Milliseconds between the times that a parked job is offered to workers that may know it."""
LAST_ANSWER = 1.0
"""Seconds that the answer to the last claim may take."""
STUCK_FOR = 60.0
"""Seconds that a job which has to run alone waits for handlers that ignore their interruption."""
ALONE = "!alone"
"""Ends the name of an incarnation that runs one job and nothing beside it."""


class Consumer:
    """One coroutine that claims for all lanes, and each lane's slots."""

    def __init__(
        self,
        crew: Crew,
        slots: Slots,
        lost: Callable[[str], None],
        switch: Callable[[str], Awaitable[None]],
        policy: Policy,
    ) -> None:
        self.crew = crew
        self._slots = slots
        self._lost = lost
        self._switch = switch
        self._policy = policy
        self._queue_of = crew.registry.queue_of
        self._policies: dict[str, Policy] = {}
        self._number = 0
        self._hungry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unknown: list[Run] = []
        self._said: set[str] = set()
        """Unknown tasks that were warned of: once each."""
        self._behind = 0
        """ms by which this worker's clock is behind the engine's, as last looked."""
        self._claiming = False
        self._stopped = False
        self._nap: asyncio.Future[None] | None = None
        self._asleep: Mapping[str, int] = {}
        crew.hungry = self._woken
        crew.settler.emptied = self._woken

    def start(self) -> None:
        """Begin claiming."""
        self._hungry.set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="tasqueue-consumer")

    async def stop(self) -> None:
        """Claim nothing more. The answer to a claim under way is waited for: what it brings goes back at once."""
        task, self._task = self._task, None
        self._stopped = True
        if task is not None:
            if self._claiming:
                await asyncio.wait((task,), timeout=LAST_ANSWER)
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        crew = self.crew
        while not self._stopped:
            self._hungry.clear()
            try:
                if crew.alone_queue:
                    await self._run_alone(crew.alone_queue)
                wants = self._wants()
                if not wants:
                    await self._hungry.wait()
                    continue
                claim = await self._claim(wants)
                if claim is not None and len(claim.leases) < sum(wants.values()):
                    await self._sleep(_short(wants, claim.leases), claim.next_due)
            except EngineUnavailable as error:
                log.warning("consumer: %s; trying again", error)
                await asyncio.sleep(0.25)
            except Exception:
                log.exception("consumer failed; trying again")
                await asyncio.sleep(0.5)

    def _wants(self) -> dict[str, int]:
        crew = self.crew
        if crew.settler.backlog > BACKLOG or not crew.worker:
            return {}
        now = crew.ports.mono()
        return {lane.queue: n for lane in crew.lanes.values() if (n := lane.want(now)) > 0}

    async def _run_alone(self, queue: str) -> None:
        """One job of this queue with nothing beside it, under an incarnation whose name says so."""
        crew = self.crew
        for lane in crew.lanes.values():
            for run in lane.take_back():
                self._put(release(run.lease))
        await self._until_idle()
        await self._switch(ALONE)
        await self._claim({queue: 1})
        await self._until_idle()
        crew.alone_queue = ""
        await self._switch("")

    async def _until_idle(self) -> None:
        """Until this incarnation may end: nothing runs, and nothing waits to be written under its name.

        The retry of a handler that ignores its interruption waits for its end; for so long, and no longer, so do we.
        """
        slots = self._slots
        await self._until(lambda: not self.crew.busy)
        try:
            async with asyncio.timeout(STUCK_FOR):
                await self._until(lambda: not any(slots.stuck.values()))
        except TimeoutError:
            slots.settle_stuck(True)
        await self._until(lambda: not self.crew.busy)

    async def _until(self, holds: Callable[[], bool]) -> None:
        """The settler wakes us when it has written something, a slot when it falls idle."""
        while not holds():
            self._hungry.clear()
            if not holds():
                await self._hungry.wait()

    async def _claim(self, wants: dict[str, int]) -> Claim | None:
        """None: the incarnation was lost meanwhile, whatever it claimed is no longer ours; or it is time to stop; or
        the answer is that of a claim made some time ago, which says nothing about what is ready now."""
        crew = self.crew
        worker = crew.worker
        number = self._number + 1
        repeated = False
        if faults.active:
            faults.point("W1.before_claim")
        self._claiming = True
        try:
            while True:
                try:
                    claim = await crew.engine.claim(worker, number, wants)
                    break
                except WorkerGone:
                    self._lost(worker)
                    return None
                except EngineUnavailable as error:
                    log.warning("claim: %s; asking again under the same number", error)
                except Exception:
                    log.exception("claim failed; asking again under the same number")
                repeated = True
                await asyncio.sleep(0.25)
                if worker != crew.worker:
                    return None
        finally:
            self._claiming = False
        if faults.active and claim.leases:
            faults.point("W3.decoded")
        if any(lease.parked_at is not None for lease in claim.leases):
            await self._set_clock()
        self._number = number  # only now: whatever else was raised, the next claim asks for this one's answer again
        if worker != crew.worker:
            return None
        if self._stopped:
            for lease in claim.leases:
                self._put(release(lease))
            return None
        if claim.leases:
            self._distribute(claim.leases)
            if self._unknown:
                await self._park_unknown()
        return None if repeated else claim

    def _distribute(self, leases: Sequence[Lease]) -> None:
        crew = self.crew
        runs: dict[str, list[Run]] = {}
        size = 0
        for lease in leases:
            try:
                run = self._decode(lease)
            except Exception as error:  # follow-ups that cannot be decoded: the others of the batch go on
                log.exception("job %r cannot be handled", lease.id)
                run = self._refuse(lease, type(error).__qualname__, str(error))
            if run is not None:
                size += len(lease.spec)
                try:
                    runs[lease.queue].append(run)
                except KeyError:
                    runs[lease.queue] = [run]
        now = crew.ports.mono()
        for queue, batch in runs.items():
            lane = crew.lanes[queue]
            lane.bytes = size / len(leases)
            lane.add(batch, now)
        if crew.bus.wanted(Claimed):
            crew.bus.emit(Claimed(crew.worker, tuple(lease.id for lease in leases)))

    def _decode(self, lease: Lease) -> Run | None:
        """A runnable job, or None when it was settled here: undecodable, newer, cancelled, unknown, died alone."""
        crew = self.crew
        try:
            spec = codec.decode_spec(lease.spec)
            tail = codec.decode_tail(lease.tail)
        except codec.Undecodable as error:
            log.warning("job %r cannot be decoded: %s; failed, its bytes are kept", lease.id, error)
            return self._refuse(lease, "Undecodable", str(error))
        except codec.NewerVersion as error:
            if lease.asked:
                self._cancel(self._opaque(lease), keep=True)
                return None
            if self._waited_enough(lease):
                return self._refuse(lease, "NewerVersion", f"{error}; nobody else took it")
            reason = Unrunnable(f"version:{error.version}", f"newer version: {error}")
            self._put(park(lease, reason, self._patience(lease, True)))
            return None
        task = crew.registry.tasks.get(spec.task)
        policy = self._policies.get(spec.task) or self._make_policy(spec.task, task)
        if spec.max_retries is not None:
            policy = _with_retries(policy, spec.max_retries)
        run = Run(lease, spec, tail, policy, crew.worker, self._queue_of)
        if lease.asked:
            self._cancel(run)
            return None
        if task is None:
            self._unknown.append(run)
            return None
        if (lease.deaths and lease.deaths >= crew.max_deaths - 1) or crew.max_deaths == 1:
            return self._last_run(run)
        return run

    def _last_run(self, run: Run) -> Run | None:
        """A job's last allowed run is made alone (G10); only one that died alone is failed."""
        crew, lease = self.crew, run.lease
        if lease.deaths >= crew.max_deaths and lease.died_with.endswith(ALONE):
            cause = lease.death_cause or "the process died"
            message = f"{cause}; {lease.deaths} workers died running it, the last one ran nothing else"
            log.error("job %r: %s", lease.id, message)
            self._fail(run, "WorkerDied", message)
            return None
        if crew.isolates or crew.worker.endswith(ALONE):
            return run
        self._put(release(lease))
        crew.alone_queue = lease.queue
        return None

    async def _park_unknown(self) -> None:
        runs, self._unknown = self._unknown, []
        try:
            announced = set(await self.crew.engine.tasks())
        except EngineUnavailable:  # as if they were: then they are offered again soon
            announced = {run.spec.task for run in runs}
        for run in runs:
            self._park(run, run.spec.task in announced)

    def _park(self, run: Run, announced: bool) -> None:
        name, lease = run.spec.task, run.lease
        if self._waited_enough(lease):
            seconds = self._policy.park_for / 1000
            message = f"no worker that serves queue {lease.queue!r} knew task {name!r} within {seconds:g} s"
            self._fail(run, "UnknownTask", message)
            return
        level = logging.DEBUG if name in self._said else logging.WARNING
        self._said.add(name)
        log.log(level, "job %r: task %r is not registered here; parked for a worker that knows it", lease.id, name)
        reason = f"task {name!r} is not known to the worker that took it"
        self._put(park(lease, Unrunnable(f"task:{name}", reason), self._patience(lease, announced)))

    def _patience(self, lease: Lease, announced: bool) -> Policy:
        """For how long to park it, counted from when it first was. Where a worker that can run it may live beside this
        one (a rolling deploy), nobody will announce it again: so it is offered again soon, then ever more seldom, and
        not in step with this worker's own claims."""
        if not announced:
            return self._policy
        parked = 0 if lease.parked_at is None else max(0, self._now() + self._behind - lease.parked_at)
        pause = min(max(parked // 8, FIRST_OFFER), LAST_OFFER) * (0.5 + self.crew.ports.rand())
        return replace(self._policy, park_for=min(parked + int(pause), self._policy.park_for))

    def _waited_enough(self, lease: Lease) -> bool:
        return lease.parked_at is not None and self._now() + self._behind - lease.parked_at >= self._policy.park_for

    async def _set_clock(self) -> None:
        """When a job was first parked is told by the engine's clock, and so is for how long (G12)."""
        try:
            self._behind = await self.crew.engine.now() - self._now()
        except EngineUnavailable:  # then by what was known before: the worst is another parking
            pass

    def _make_policy(self, name: str, task: TaskDef | None) -> Policy:
        policy = self._policy if task is None else policy_of(task, self._policy)
        if task is not None:
            self._policies[name] = policy
        return policy

    def _fail(self, run: Run, type: str, message: str) -> None:
        entry = ErrorEntry(self._now(), run.worker, type, message, "")
        step = decide(run, Raised(entry, final=True), self._now(), self.crew.ports.rand)
        self.crew.settler.put(step, self._slots.unstarted(run, JobFailed(step.id, type, message)), run.worker)

    def _cancel(self, run: Run, keep: bool = False) -> None:
        """Somebody asked for it while another worker ran it. `keep`: its tail cannot be read here, and stays."""
        step = decide(run, Stopped(), self._now(), self.crew.ports.rand)
        if keep:
            step.tail = None
        self.crew.settler.put(step, self._slots.unstarted(run, None), run.worker)

    def _opaque(self, lease: Lease) -> Run:
        """Of a job that cannot be decoded."""
        spec = Spec(codec.VERSION, "", lease.spec)
        return Run(lease, spec, codec.FRESH, self._policy, self.crew.worker, self._queue_of)

    def _refuse(self, lease: Lease, type: str, message: str) -> None:
        entry = ErrorEntry(self._now(), self.crew.worker, type, message, "")
        run = self._opaque(lease)
        step = refuse(lease, entry, self._policy, self._now())
        self.crew.settler.put(step, self._slots.unstarted(run, JobFailed(step.id, type, message)), run.worker)

    def _put(self, step: Step) -> None:
        self.crew.settler.put(step, None, self.crew.worker)

    def _now(self) -> int:
        return int(self.crew.ports.now() * 1000)

    async def _sleep(self, queues: Mapping[str, int], until: int | None) -> None:
        """Until there may be work in these queues, which are empty, or a slot of another one falls idle."""
        nap = self._nap = asyncio.ensure_future(self.crew.engine.wait(list(queues), until))
        self._asleep = queues
        if self._hungry.is_set():
            self._woken()
        try:
            await nap
        except asyncio.CancelledError:
            if self._task is None or self._task.cancelling():
                raise
        finally:
            self._nap = None

    def _woken(self) -> None:
        """A slot is idle, or the settler has caught up."""
        self._hungry.set()
        nap, crew = self._nap, self.crew
        if nap is not None and (crew.alone_queue or not crew.worker or self._wants().keys() - self._asleep.keys()):
            nap.cancel()


def policy_of(task: TaskDef, server: Policy) -> Policy:
    """A task's own policy on top of its server's."""
    ttl = server.result_ttl if isinstance(task.result_ttl, msgspec.UnsetType) else task.result_ttl
    return Policy(task.max_retries, task.backoff, ttl, server.failed_ttl, server.park_for)


def _with_retries(policy: Policy, max_retries: int) -> Policy:
    return Policy(max_retries, policy.backoff, policy.result_ttl, policy.failed_ttl, policy.park_for)


def _short(wants: Mapping[str, int], leases: Sequence[Lease]) -> Mapping[str, int]:
    """The queues that had less than was asked for: in the others there may be more, and nothing need happen before it
    is claimed."""
    left = dict(wants)
    for lease in leases:
        left[lease.queue] -= 1
    return {queue: n for queue, n in left.items() if n > 0}
