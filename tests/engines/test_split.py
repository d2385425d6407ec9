"""A pair as an engine: what it lacks (each capability that it does not declare is shown), what a half may bring along.

That it is an engine is proved by the conformance suite; that it survives a crash anywhere, by test_split_crashes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

import pytest
from tests.engines.split_world import LEASE, Pair, pass_time, record, step, take

from tasqueue import faults
from tasqueue.core.record import Kind, Link, Schedule, Tick
from tasqueue.core.status import State
from tasqueue.engines.split.docs import encode
from tasqueue.errors import Unsupported
from tasqueue.interfaces import Message, WorkerGone


@pytest.fixture
def pair() -> Pair:
    return Pair()


# -- what a pair lacks ------------------------------------------------------------------------------------------------


def test_what_is_declared(pair: Pair) -> None:
    lacks = pair.engine().capabilities
    absent = {name for name in lacks.__struct_fields__ if getattr(lacks, name) is False}
    assert absent == {"atomic_finish", "instant_handback", "server_fencing", "thread_beat", "shared", "durable"}
    assert lacks.max_link == 10_000


async def test_the_lack_of_atomic_finish(pair: Pair) -> None:
    """Between the end and what follows from it there is a moment in which a reader sees the one without the other."""
    engine, reader = pair.engine(), pair.engine()
    await engine.submit([record("a")])
    (lease,) = await take(engine, "w")
    seen: list[tuple[State | None, bool]] = []
    put = pair.results.set

    async def look_after(key: str, value: bytes, **options: Any) -> Any:
        revision = await put(key, value, **options)
        a, b = await reader.get(["a", "b"])
        seen.append((a and a.state, b is not None))
        return revision

    pair.results.set = look_after
    assert await engine.settle("w", [step(lease, follow=(record("b"),))]) == [True]
    assert seen[0] == (State.SUCCESSFUL, False)
    assert seen[-1] == (State.SUCCESSFUL, True)


async def test_the_lack_of_instant_handback(pair: Pair) -> None:
    """Another process knows of the death, but only the broker could give the job back; its lease has to end first."""
    dead, other = pair.engine(), pair.engine()
    await dead.submit([record("a")])
    assert [lease.id for lease in await take(dead, "dies")] == ["a"]
    assert await other.reclaim("dies", "killed") == ["dies"]
    assert await take(other, "w", 1) == []
    await pass_time(pair, other, LEASE / 1000 - 1)
    assert (await other.claim("w", 2, {"q": 10})).leases == []
    await pass_time(pair, other, 1)
    await other.register("w", LEASE, b"", {}, 1)
    (lease,) = (await other.claim("w", 3, {"q": 10})).leases
    assert (lease.id, lease.deaths, lease.died_with, lease.death_cause) == ("a", 1, "dies", "killed")


async def test_after_a_standstill_a_claim_takes_nothing_from_the_living(pair: Pair) -> None:
    """The broker's leases have ended, too, and it offers what is held before anybody has had time for a beat."""
    holds, other = pair.engine(), pair.engine()
    await holds.submit([record("a")])
    (lease,) = await take(holds, "holds")
    await take(other, "w", 1)
    await other.reclaim()
    pair.clock.advance(3 * LEASE / 1000)  # nothing was reached, by anybody
    await other.register("w", LEASE, b"", {}, 1)
    assert (await other.claim("w", 2, {"q": 10})).leases == []
    await other.reclaim()
    pair.clock.advance(1.5)
    assert (await other.claim("w", 3, {"q": 10})).leases == []
    assert not (await holds.beat("holds", LEASE, b"")).lost
    assert await holds.settle("holds", [step(lease)]) == [True]
    (row,) = await other.get(["a"])
    assert row is not None
    assert (row.state, row.deaths) == (State.SUCCESSFUL, 0)


async def test_what_this_object_holds_is_handed_back_at_once(pair: Pair) -> None:
    engine = pair.engine()
    await engine.submit([record("a"), record("b")])
    await take(engine, "w")
    assert await engine.retire("w") == 2
    assert [lease.id for lease in await take(pair.engine(), "v")] == ["a", "b"]


async def test_another_process_that_retires_a_worker_counts_no_death(pair: Pair) -> None:
    worker, supervisor = pair.engine(), pair.engine()
    await worker.submit([record("a")])
    await take(worker, "w")
    assert await supervisor.retire("w") == 0
    await pass_time(pair, supervisor, LEASE / 1000 + 1)
    (lease,) = await take(supervisor, "v")
    assert lease.deaths == 0


async def test_the_lack_of_server_fencing(pair: Pair) -> None:
    """The broker obeys an old owner and hands the message out once more; the record refuses, so it is not run twice."""
    old, new, third = pair.engine(), pair.engine(), pair.engine()
    await old.submit([record("a")])
    await take(old, "old")
    stale = old._hands["old"].deliveries()
    await pass_time(pair, new, LEASE / 1000 + 1)
    (lease,) = await take(new, "new")
    await pair.broker.release(stale)
    assert len(await pair.broker.consume("tasqueue:q", 1, 0.0)) == 1
    assert await take(third, "third") == []
    assert await old.settle("old", [step(lease)]) == [False]
    assert await new.settle("new", [step(lease)]) == [True]


async def test_the_lack_of_a_twin(pair: Pair) -> None:
    with pytest.raises(Unsupported, match="twin"):
        pair.engine().twin()


async def test_the_lack_of_sharing_and_of_durability(pair: Pair) -> None:
    """Nothing of it is to be found by another pair, as another process or a later one would have it."""
    await pair.engine().submit([record("a")])
    other = Pair().engine()
    assert await other.get(["a"]) == [None]
    assert await take(other, "w") == []
    durability = await pair.engine().durability()
    assert durability.level == "process"
    assert [finding.level for finding in durability.findings] == ["warn", "warn"]


async def test_a_link_that_is_too_large_for_the_broker(pair: Pair) -> None:
    pair.broker.max_link = 2
    engine = pair.engine()
    assert engine.capabilities.max_link == 2
    members = [record(f"x~g{i}", link="g:x", pos=i) for i in range(3)]
    with pytest.raises(Unsupported, match="2 at most"):
        await engine.submit(members, [Link("g:x", 3)])
    assert await engine.get_link("g:x") is None


async def test_an_unparked_job_of_another_process_goes_behind(pair: Pair) -> None:
    """Only who parked it has the delivery that would bring it back to its old place."""
    parks, knows = pair.engine(), pair.engine()
    await parks.submit([record("a"), record("b")])
    await parks.register("w", LEASE, b"", {}, 1)
    (lease,) = (await parks.claim("w", 1, {"q": 1})).leases
    await parks.settle("w", [step(lease, Kind.PARK, State.PARKED, key="task:t", delay=100_000)])
    await knows.register("v", LEASE, b"", {"t": "q"}, 1)
    assert [row.id for row in await knows.pending("q", 10, None)] == ["b", "a"]
    assert [lease.id for lease in (await knows.claim("v", 1, {"q": 10})).leases] == ["b", "a"]


# -- deliveries that nobody should trust ------------------------------------------------------------------------------


async def test_a_copy_of_what_a_living_worker_holds_waits(pair: Pair) -> None:
    """The broker's lease ended, the worker's did not: its beats came through, but not to the broker."""
    busy, other = pair.engine(), pair.engine()
    await busy.submit([record("a")])
    (lease,) = await take(busy, "busy")
    for _ in range(3):
        await pass_time(pair, other, LEASE / 1000 - 1)
        await other.beat("busy", LEASE, b"")  # another process, as the supervisor: it has no deliveries to extend
        await other.register("w", LEASE, b"", {}, 1)
        assert await take(other, "w", int(pair.clock.time())) == []
    assert await busy.settle("busy", [step(lease)]) == [True]
    await pass_time(pair, other, LEASE / 1000 + 1)
    assert await take(other, "v") == []
    (row,) = await other.get(["a"])
    assert row is not None
    assert (row.state, row.deaths) == (State.SUCCESSFUL, 0)


async def test_a_delivery_that_comes_back_to_its_own_worker_is_the_one_to_acknowledge(pair: Pair) -> None:
    engine = pair.engine()
    await engine.submit([record("a")])
    (lease,) = await take(engine, "w")
    for seconds in (9, 9):
        await pass_time(pair, engine, seconds)
        await engine.register("w", LEASE, b"", {}, 1)
    assert (await engine.claim("w", 2, {"q": 10})).leases == []
    assert await engine.settle("w", [step(lease)]) == [True]
    await pass_time(pair, engine, LEASE / 1000 + 1)
    assert await pair.broker.consume("tasqueue:q", 10, 1.0) == []


async def test_a_message_twice_is_run_once(pair: Pair) -> None:
    """A producer's broker client sent it again because the first answer was lost."""
    once = pair.broker.enqueue

    async def twice(queue: str, messages: Sequence[Message]) -> None:
        await once(queue, messages)
        await once(queue, messages)

    pair.broker.enqueue = twice
    engine = pair.engine()
    await engine.submit([record("a"), record("b")])
    leases = await take(engine, "w")
    assert [lease.id for lease in leases] == ["a", "b"]
    assert await engine.settle("w", [step(lease) for lease in leases]) == [True, True]
    await pass_time(pair, engine, LEASE / 1000 + 1)
    other = pair.engine()
    assert await take(other, "v") == []
    assert await pair.broker.consume("tasqueue:q", 10, 1.0) == []


async def test_foreign_bytes_in_the_queue_become_a_job_that_can_be_failed(pair: Pair) -> None:
    engine = pair.engine()
    await engine.submit([record("a")])
    await pair.broker.enqueue("tasqueue:q", [Message("a/x", b"\xff nobody's"), Message("", b"")])
    leases = await take(engine, "w")
    assert [lease.spec for lease in leases] == [b"spec of a", b"\xff nobody's", b""]
    assert len({lease.id for lease in leases}) == 3
    assert await engine.settle("w", [step(lease, state=State.FAILED) for lease in leases]) == [True] * 3
    assert len(await engine.ended(State.FAILED, 10, None)) == 3
    assert await pair.broker.consume("tasqueue:q", 10, 1.0) == []


async def test_what_a_newer_library_wrote_is_left_for_one(pair: Pair) -> None:
    engine = pair.engine()
    await pair.broker.enqueue("tasqueue:q", [Message("n", encode([99, "whatever"]))])
    await engine.submit([record("a"), record("b")])
    job = (await engine._store.jobs(["b"]))[0]
    assert job is not None
    assert job.doc is not None
    job.doc.version = 99
    await engine._store.put(job.doc, job.revision, 0)
    assert [lease.id for lease in await take(engine, "w")] == ["a"]
    pair.clock.advance(6)
    kept = await pair.broker.consume("tasqueue:q", 10, 1.0)
    assert [one.id.partition("/")[0] for one in kept] == ["n", "b"]


async def test_a_store_that_a_newer_library_has_used_is_refused(pair: Pair) -> None:
    await pair.results.set("tasqueue:fleet", encode([99]), expect=None, ttl=None)
    with pytest.raises(Unsupported, match="newer"):
        await pair.engine().open()


async def test_the_fault_points_are_passed_where_they_belong(pair: Pair) -> None:
    passed: list[str] = []
    engine = pair.engine()

    async def points(call: Awaitable[Any]) -> list[str]:
        passed.clear()
        await call
        return list(dict.fromkeys(passed))

    group = Link("g:x", 1, on_success=[record("x~s0")])
    schedule = Schedule("s", "@daily", "t", "q", 0, b"job", 0, pair.clock.ms)
    faults.record(passed.append)
    try:
        assert await points(engine.submit([record("a"), record("r"), record("later", due=pair.clock.ms + 10)])) == [
            "E2.before_write",
            "E3.written",
        ]
        assert await points(engine.submit([record("x~g0", link="g:x")], [group])) == [
            "E2.before_write",
            "G1.record_written",
            "G2.members_written",
            "E3.written",
        ]
        await engine.register("w", LEASE, b"", {}, 1)
        assert await points(engine.claim("w", 1, {"q": 10})) == ["W2.claimed"]
        held = {one.lease.id: one.lease for one in engine._hands["w"].held.values()}
        assert await points(engine.settle("w", [step(held["x~g0"])])) == [
            "G3.last_member",
            "G4.callback_enqueued",
            "W9.settled",
        ]
        assert await points(engine.settle("w", [step(held["r"], Kind.RETRY)])) == ["W9.settled", "R2.rescheduled"]
        pair.clock.advance(1)
        assert await points(engine.promote()) == ["M1.due_read", "M2.moved"]
        await engine.put_schedule(schedule)
        assert await points(engine.fire([Tick("s", schedule.next_at, 0, 1, record("s@0"))])) == ["S2.tick_inserted"]
        await pass_time(pair, engine, LEASE / 1000)
        pair.clock.advance(2)
        assert await points(engine.reclaim()) == ["P1.expired_read", "P2.offered"]
    finally:
        faults.record(None)


async def test_a_record_that_cannot_be_read_is_kept_and_can_be_failed(pair: Pair) -> None:
    engine = pair.engine()
    await engine.submit([record("a")])
    (found,) = await pair.results.get(["tasqueue:j:a"])
    await pair.results.set("tasqueue:j:a", b"\xc1 rubbish", expect=found[1], ttl=None)
    assert await engine.get(["a"]) == [None]
    (lease,) = await take(engine, "w")
    assert (lease.id, lease.tail) == ("a", b"\xc1 rubbish")
    assert await engine.settle("w", [step(lease, state=State.FAILED)]) == [True]


async def test_an_expander_is_shown_to_nobody(pair: Pair) -> None:
    engine = pair.engine()
    await engine.submit([record("x~g0", link="g:x")], [Link("g:x", 1)])
    assert len(await pair.broker.get_pending("tasqueue:q", 10, None)) == 2
    assert [row.id for row in await engine.pending("q", 10, None)] == ["x~g0"]
    assert [lease.id for lease in await take(engine, "w")] == ["x~g0"]
    assert await pair.broker.get_pending("tasqueue:q", 10, None) == []


async def test_namespaces_are_apart(pair: Pair) -> None:
    one, two = pair.engine(namespace="one"), pair.engine(namespace="two")
    await one.submit([record("a")])
    assert await two.get(["a"]) == [None]
    assert await take(two, "w") == []
    assert [lease.id for lease in await take(one, "w")] == ["a"]


async def test_a_gone_worker_can_do_nothing(pair: Pair) -> None:
    engine, other = pair.engine(), pair.engine()
    await engine.submit([record("a"), record("b")])
    await engine.register("w", LEASE, b"", {}, 1)
    (lease,) = (await engine.claim("w", 1, {"q": 1})).leases
    await other.reclaim("w", "killed")
    with pytest.raises(WorkerGone):
        await engine.claim("w", 2, {"q": 1})
    assert await engine.settle("w", [step(lease)]) == [False]
    assert (await engine.beat("w", LEASE, b"")).lost
