"""An engine beside the model: whatever happens in whatever order, both say the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from tasqueue.core.record import Kind, Lease, Link, Record, Schedule, Step, Tick
from tasqueue.core.status import ENDED, State
from tasqueue.interfaces import Engine, WorkerGone
from tasqueue.testing.clock import ManualClock
from tasqueue.testing.conformance.sources import Source, SqliteSource, UrlSource
from tasqueue.testing.model import Model

T = TypeVar("T")
QUEUES = ["q", "p"]
JOBS = [f"j{i}" for i in range(12)]
CHAINS = {"c:x": 2, "c:y": 3}
GROUPS = {"g:x": 1, "g:y": 3}
MEMBERS = [f"{key[2:]}~{key[0]}{i}" for key, n in {**CHAINS, **GROUPS}.items() for i in range(n)]

jobs = st.sampled_from(JOBS + MEMBERS)
queues = st.sampled_from(QUEUES)
ttls = st.sampled_from([None, 0, 900, 900])
delays = st.sampled_from([0, 0, 300])
numbers = st.integers(1, 1_000)
rarely = st.sampled_from([False, False, False, False, True])
endings = st.sampled_from([State.SUCCESSFUL, State.SUCCESSFUL, State.SUCCESSFUL, State.FAILED, State.CANCELLED])


class Machine(RuleBasedStateMachine):
    """Each rule does a thing to both and compares the answers; after each rule all that can be read is compared."""

    source: ClassVar[Source]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="tasqueue-machine-"))
        self.clock = ManualClock()
        self.model = Model(self.clock.ms)
        self.engine: Engine = self.source.fresh(self.folder).engine(self.clock.ports)
        self.run(self.engine.open())
        self.leases: list[tuple[str, Lease]] = []
        """Every lease that was ever handed out, and to whom: most of them are stale."""
        self.claims: dict[str, int] = {}
        self.born = 0
        self.schedule: Schedule | None = None
        self.ticks = 0

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def teardown(self) -> None:
        self.run(self.engine.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    # -- producing ----------------------------------------------------------------------------------------------------

    def submit(self, records: list[Record], *links: Link) -> None:
        self.run(self.engine.submit(records, links))
        self.model.submit(records, links)

    @rule(ids=st.lists(st.sampled_from(JOBS), min_size=1, max_size=8), queue=queues, priority=st.integers(-1, 1))
    def submit_jobs(self, ids: list[str], queue: str, priority: int) -> None:
        self.submit([Record(id, queue, "t", f"spec {id}".encode(), priority) for id in ids])

    @rule(id=st.sampled_from(JOBS), queue=queues, after=st.sampled_from([-5, 300, 300, 2_000]))
    def submit_due(self, id: str, queue: str, after: int) -> None:
        self.submit([Record(id, queue, "t", b"", due=self.model.now + after)])

    @rule(key=st.sampled_from(list(CHAINS)), ttl=ttls, due=st.booleans())
    def submit_chain(self, key: str, ttl: int | None, due: bool) -> None:
        n = CHAINS[key]
        steps = [Record(f"{key[2:]}~c{i}", QUEUES[i % 2], "t", b"", held=i > 0, link=key, pos=i) for i in range(n)]
        if due:
            steps[-1].due = self.model.now + 300
        self.submit(steps, Link(key, n, result_ttl=ttl, failed_ttl=900))

    @rule(key=st.sampled_from(list(GROUPS)), ttl=ttls)
    def submit_group(self, key: str, ttl: int | None) -> None:
        n, name = GROUPS[key], key[2:]
        members = [Record(f"{name}~g{i}", "q", "t", b"", link=key, pos=i) for i in range(n)]
        good, bad = Record(f"{name}~s0", "callbacks", "t", b""), Record(f"{name}~e0", "callbacks", "t", b"")
        self.submit(members, Link(key, n, (good,), (bad,), result_ttl=ttl, failed_ttl=900))

    @rule(every=st.sampled_from([1, 2]))
    def put_schedule(self, every: int) -> None:
        entry = Schedule("s", f"@every {every}s", "t", "q", 0, b"job", anchor=0, next_at=self.ticks)
        changed = self.schedule is None or self.schedule.schedule != entry.schedule
        assert self.run(self.engine.put_schedule(entry)) is changed
        if changed:
            self.schedule = entry

    @rule(behind=st.sampled_from([0, 0, 1]))
    def tick(self, behind: int) -> None:
        at = self.ticks - behind
        tick = Tick("s", at, at, at + 1, Record(f"s@{at}", "q", "t", b""))
        stands = self.schedule is not None and self.schedule.next_at == at
        assert self.run(self.engine.fire([tick])) == [stands]
        if self.schedule is not None and stands:
            self.schedule = replace(self.schedule, next_at=at + 1, last_at=at)
            self.model.submit([tick.record])
            self.ticks += 1

    # -- working ------------------------------------------------------------------------------------------------------

    @initialize(key=st.sampled_from([*CHAINS, *GROUPS]), ttl=ttls)
    def start(self, key: str, ttl: int | None) -> None:
        self.register("", 0)
        self.reclaim_expired()
        if key in CHAINS:
            self.submit_chain(key, ttl, due=False)
        else:
            self.submit_group(key, ttl)

    @rule(again=st.sampled_from(["", "w1", "w2"]), version=st.integers(1, 2))
    def register(self, again: str, version: int) -> None:
        if again not in self.model.workers:
            if len(self.model.workers) == 3:
                return
            self.born += 1
            again = f"w{self.born}"
        tasks = {"t": "q"} if version == 2 else {}
        lease = 1_000 * version
        self.run(self.engine.register(again, lease, b"info", tasks, version))
        self.model.register(again, lease, tasks, version)

    def worker(self, number: int) -> str:
        """A living worker; now and then any that ever was."""
        if number % 5:
            if not self.model.workers:
                self.register("", 1)
            living = sorted(self.model.workers)
            return living[number % len(living)]
        return f"w{number % self.born + 1}"

    def claim_as(self, worker: str, claim: int, wants: dict[str, int]) -> None:
        expected = self.model.claim(worker, claim, wants)
        try:
            leases = list(self.run(self.engine.claim(worker, claim, wants)).leases)
        except WorkerGone:
            assert expected is None
            return
        assert expected is not None
        for queue in wants:
            assert [lease.id for lease in leases if lease.queue == queue] == [
                id for id in expected if self.model.jobs[id].record.queue == queue
            ]
        for lease in leases:
            job = self.model.jobs[lease.id]
            assert (lease.claim, lease.tail, lease.prev) == (claim, job.tail, job.prev)
            assert (lease.deaths, lease.died_with, lease.parked_at) == (job.deaths, job.died_with, job.parked_at)
            assert (lease.link, lease.pos, lease.asked) == (job.record.link, job.record.pos, job.asked)
        self.leases += [(worker, lease) for lease in leases]

    @rule(number=numbers, limit=st.integers(1, 4), wanted=st.sampled_from([["q"], ["p", "q"], ["q", "p", "callbacks"]]))
    def claim(self, number: int, limit: int, wanted: list[str]) -> None:
        worker = self.worker(number)
        self.claims[worker] = self.claims.get(worker, 0) + 1
        self.claim_as(worker, self.claims[worker], dict.fromkeys(wanted, limit))

    @rule(number=numbers, back=st.integers(0, 2))
    def claim_again(self, number: int, back: int) -> None:
        worker = self.worker(number)
        if self.claims.get(worker, 0) > back:
            self.claim_as(worker, self.claims[worker] - back, {"q": 5, "p": 5})

    def settle_as(self, worker: str, *steps: Step) -> None:
        unknown = [(step.id, worker, step.claim) in self.model.forgotten for step in steps]
        expected = [self.model.settle(worker, step) for step in steps]
        answers = self.run(self.engine.settle(worker, steps))
        assert [a for a, skip in zip(answers, unknown, strict=True) if not skip] == [
            e for e, skip in zip(expected, unknown, strict=True) if not skip
        ]

    def step(self, lease: Lease, kind: Kind, state: State, **fields: Any) -> Step:
        return Step(lease.id, lease.claim, kind, state, link=lease.link, pos=lease.pos, ref=lease.ref, **fields)

    def held(self) -> list[tuple[str, Lease]]:
        running = {(id, job.token) for id, job in self.model.jobs.items() if job.state is State.RUNNING}
        return [(worker, lease) for worker, lease in self.leases if (lease.id, (worker, lease.claim)) in running]

    def pick(self, which: int, stale: bool) -> tuple[str, Lease]:
        """One that is held, claimed now if need be; or any, most of which are not."""
        if not stale and not self.held():
            self.claim(which, 3, ["q", "p", "callbacks"])
        leases = self.leases if stale else self.held() or self.leases
        return leases[which % len(leases)]

    @precondition(lambda self: self.leases)
    @rule(
        which=numbers,
        stale=rarely,
        state=endings,
        result=st.sampled_from([None, b"", b"saved"]),
        ttl=ttls,
        follow=st.booleans(),
    )
    def end(self, which: int, stale: bool, state: State, result: bytes | None, ttl: int | None, follow: bool) -> None:
        worker, lease = self.pick(which, stale)
        records = [Record(f"{lease.id}~s9", "p", "t", b"", prev=result)] if follow and "s9" not in lease.id else []
        self.settle_as(worker, self.step(lease, Kind.END, state, tail=b"end", result=result, ttl=ttl, follow=records))

    @precondition(lambda self: self.leases)
    @rule(which=numbers, stale=rarely, delay=delays, kind=st.sampled_from([Kind.RETRY, Kind.SNOOZE]))
    def put_back(self, which: int, stale: bool, delay: int, kind: Kind) -> None:
        worker, lease = self.pick(which, stale)
        self.settle_as(worker, self.step(lease, kind, State.DUE, tail=f"after {lease.claim}".encode(), delay=delay))

    @precondition(lambda self: self.leases)
    @rule(which=numbers, stale=rarely, died=st.booleans())
    def release(self, which: int, stale: bool, died: bool) -> None:
        worker, lease = self.pick(which, stale)
        self.settle_as(worker, self.step(lease, Kind.RELEASE, State.READY, died=died, reason="it died"))

    @precondition(lambda self: self.leases)
    @rule(which=numbers, stale=rarely, key=st.sampled_from(["task:t", "version:2", "task:never"]))
    def park(self, which: int, stale: bool, key: str) -> None:
        worker, lease = self.pick(which, stale)
        self.settle_as(worker, self.step(lease, Kind.PARK, State.PARKED, key=key, reason="why", delay=1_500))

    @rule(number=numbers, states=st.lists(endings, min_size=1, max_size=4), backwards=st.booleans(), ttl=ttls)
    def work(self, number: int, states: list[State], backwards: bool, ttl: int | None) -> None:
        """Claim a batch and end all of it at once."""
        had = len(self.leases)
        self.claim(number, len(states), ["q", "p"])
        leases = self.leases[had:][:: -1 if backwards else 1]
        steps = [
            self.step(lease, Kind.END, states[i % len(states)], tail=b"work", result=lease.id.encode(), ttl=ttl)
            for i, (_, lease) in enumerate(leases)
        ]
        self.settle_as(self.worker(number), *steps)

    @rule(key=st.sampled_from([*CHAINS, *GROUPS]), back=st.integers(0, 2))
    def reopen_a_member(self, key: str, back: int) -> None:
        """One that has failed or was cancelled, if there is one: what a random id seldom is."""
        link = self.model.links.get(key)
        found = [id for id in (link.ids.values() if link else ()) if self.may_reopen(id)]
        if found:
            self.reopen(found[back % len(found)], 0)

    def may_reopen(self, id: str) -> bool:
        job = self.model.jobs.get(id)
        return job is not None and job.state in (State.FAILED, State.CANCELLED)

    @rule(number=numbers, lease=st.sampled_from([1_000, 5_000]))
    def beat(self, number: int, lease: int) -> None:
        worker = self.worker(number)
        beat = self.run(self.engine.beat(worker, lease, b"beat"))
        known = self.model.workers.get(worker)
        assert beat.lost is (known is None)
        if known is not None:
            known.deadline, known.lease = self.model.now + lease, lease
            assert sorted(beat.cancels) == sorted(id for id in self.model.held(worker) if self.model.jobs[id].asked)
            assert sorted(beat.paused) == sorted(self.model.paused)

    @rule(number=numbers, death=st.booleans())
    def take_back(self, number: int, death: bool) -> None:
        worker = self.worker(number)
        known = worker in self.model.workers
        held = self.model.take_back(worker, death)
        if death:
            assert self.run(self.engine.reclaim(worker, "killed")) == [worker] * known
        else:
            assert self.run(self.engine.retire(worker)) == held

    @rule()
    def reclaim_expired(self) -> None:
        assert sorted(self.run(self.engine.reclaim())) == sorted(self.model.reclaim())

    @rule()
    def promote(self) -> None:
        self.run(self.engine.promote())
        self.model.promote()

    @rule(ms=st.sampled_from([1, 300, 900, 1_100, 3_500]))
    def pass_time(self, ms: int) -> None:
        """And prune: what has outlived its retention may be forgotten at once, but need not be until then."""
        self.clock.advance(ms / 1000)
        self.model.now = self.clock.ms
        self.run(self.engine.prune())
        self.model.prune()

    # -- operating ----------------------------------------------------------------------------------------------------

    @rule(id=jobs, ttl=ttls)
    def cancel(self, id: str, ttl: int | None) -> None:
        (answer,) = self.run(self.engine.cancel([id], ttl))
        said = "done" if answer.done else "asked" if answer.asked else "neither"
        assert said == self.model.cancel(id, ttl)

    @rule(key=st.sampled_from([*CHAINS, *GROUPS]), ttl=ttls)
    def cancel_link(self, key: str, ttl: int | None) -> None:
        assert self.run(self.engine.cancel_link(key, ttl)) is self.model.cancel_link(key, ttl)

    @rule(id=jobs, off=st.sampled_from([0, 0, 0, 1]))
    def reopen(self, id: str, off: int) -> None:
        job = self.model.jobs.get(id)
        ended_at = ((job and job.ended_at) or 0) + off
        assert self.run(self.engine.reopen(id, ended_at, b"again")) is self.model.reopen(id, ended_at, b"again")

    @rule(id=jobs)
    def delete(self, id: str) -> None:
        job = self.model.jobs.get(id)
        ended = job is not None and job.state in ENDED
        assert self.run(self.engine.delete([id])) == [ended]
        if ended:
            del self.model.jobs[id]

    @rule(queue=queues, stop=st.booleans())
    def pause_or_resume(self, queue: str, stop: bool) -> None:
        if stop:
            self.run(self.engine.pause(queue, "why", "who"))
            self.model.paused.add(queue)
        else:
            self.run(self.engine.resume(queue))
            self.model.paused.discard(queue)

    # -- both say the same --------------------------------------------------------------------------------------------

    @invariant()
    def rows_agree(self) -> None:
        ids = sorted({*self.model.jobs, *JOBS, *MEMBERS})
        for id, row in zip(ids, self.run(self.engine.get(ids)), strict=True):
            job = self.model.jobs.get(id)
            if job is None or row is None:
                assert row is None, f"{id} is stored"
                assert job is None, f"{id} is not stored"
                continue
            seen = (row.state, row.queue, row.prev, row.tail, row.result, row.ended_at, row.deaths, row.link, row.pos)
            record = job.record
            expected = (job.state, record.queue, job.prev, job.tail, job.result, job.ended_at, job.deaths)
            assert seen == (*expected, record.link, record.pos), id
            if job.state in (State.DUE, State.PARKED):
                assert row.due == job.due, id
            if job.state is State.RUNNING and job.token:
                assert row.worker == job.token[0], id

    @invariant()
    def orders_agree(self) -> None:
        for queue in (*QUEUES, "callbacks"):
            assert [row.id for row in self.run(self.engine.pending(queue, 100, None))] == self.model.ready(queue)
        for state in ENDED:
            found = self.run(self.engine.ended(state, 100, None))
            assert sorted(found) == sorted(id for id, job in self.model.jobs.items() if job.state is state)
            dates = [self.model.jobs[id].ended_at or 0 for id in found]
            assert dates == sorted(dates, reverse=True)

    @invariant()
    def links_agree(self) -> None:
        for key in (*CHAINS, *GROUPS):
            link, found = self.model.links.get(key), self.run(self.engine.get_link(key))
            if link is None or found is None:
                assert link is None
                assert found is None
                continue
            assert (found.status, found.pos, found.n) == (link.status, link.pos, link.link.n)
            assert dict(found.members) == {i: status for i, (status, _) in link.members.items()}
            if key in GROUPS:
                assert found.generation == link.generation
                saved = [link.members[i][1] if i in link.members else None for i in range(link.link.n)]
                assert self.run(self.engine.results(key, 0, 100)) == saved

    @invariant()
    def fleets_agree(self) -> None:
        seen = {row.id: (row.deadline, row.held) for row in self.run(self.engine.workers())}
        workers = self.model.workers.items()
        assert seen == {name: (known.deadline, len(self.model.held(name))) for name, known in workers}
        assert self.run(self.engine.schedules()) == ([self.schedule] if self.schedule else [])


@pytest.mark.timeout(360)  # only a failure takes so long, until its example is small
@pytest.mark.parametrize(
    ("source", "examples", "steps"),
    [(UrlSource("memory://"), 200, 60), (SqliteSource(), 60, 40)],
    ids=["memory", "sqlite"],
)
def test_it_does_what_the_model_does(source: Source, examples: int, steps: int) -> None:
    machine = type("Bound", (Machine,), {"source": source})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
