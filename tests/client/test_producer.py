"""Enqueueing: what is stored, under which ids and queues, in how many round trips, and what a failure says."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.client.support import Hand, Spy, engine_of

from tasqueue import (
    DEFAULT_QUEUE,
    Chain,
    EngineUnavailable,
    Group,
    InvalidJob,
    Job,
    NotFound,
    PayloadTooLarge,
    Server,
    Status,
    Unsupported,
    faults,
    pack,
)
from tasqueue.core.status import State
from tasqueue.events import Enqueued


async def test_ids_are_the_jobs_own_or_time_sorted_uuids(srv: Server) -> None:
    assert await srv.enqueue(Job("t", id="mine")) == "mine"
    ids = [await srv.enqueue(Job("t")) for _ in range(3)]
    assert [uuid.UUID(id).version for id in ids] == [7, 7, 7]
    assert len(set(ids)) == 3
    assert [m.meta.id for m in await srv.get_pending()] == ["mine", *ids]


async def test_the_same_id_again_is_a_no_op(srv: Server) -> None:
    assert await srv.enqueue(Job("t", b"first", id="x")) == "x"
    assert await srv.enqueue(Job("other", b"second", id="x")) == "x"
    assert await srv.enqueue_many([Job("t", b"third", id="x"), Job("t", id="y"), Job("t", id="y")]) == ["x", "y", "y"]
    assert [(m.meta.id, m.job.payload) for m in await srv.get_pending()] == [("x", b"first"), ("y", b"")]


async def test_calls_that_meet_share_one_round_trip(srv: Server) -> None:
    spy = Spy(await engine_of(srv))
    ids = await asyncio.gather(*(srv.enqueue(Job("t", id=f"j{i}", queue="q")) for i in range(50)))
    assert ids == [f"j{i}" for i in range(50)]
    assert [len(call) for call in spy.calls] == [50]
    await srv.enqueue(Job("t", queue="q"))
    assert [len(call) for call in spy.calls] == [50, 1]


async def test_a_shared_round_trip_is_bounded(srv: Server) -> None:
    spy = Spy(await engine_of(srv))
    await asyncio.gather(*(srv.enqueue(Job("t", queue="q")) for _ in range(2500)))
    assert [len(call) for call in spy.calls] == [1000, 1000, 500]
    spy.calls.clear()
    await asyncio.gather(*(srv.enqueue(Job("t", b"x" * (1 << 20), queue="q")) for _ in range(10)))
    assert [len(call) for call in spy.calls] == [4, 4, 2]


async def test_enqueue_many_needs_one_round_trip_per_batch(srv: Server) -> None:
    spy = Spy(await engine_of(srv))
    ids = await srv.enqueue_many(Job("t", id=f"j{i}", queue="q") for i in range(2500))
    assert ids == [f"j{i}" for i in range(2500)]
    assert [len(call) for call in spy.calls] == [1000, 1000, 500]
    spy.calls.clear()
    await srv.enqueue_many([Job("t", b"x" * (1 << 20), queue="q") for _ in range(10)])
    assert [len(call) for call in spy.calls] == [3, 3, 3, 1]
    assert await srv.enqueue_many([]) == []


async def test_enqueue_many_stores_none_unless_all_are_valid(srv: Server) -> None:
    jobs: list[Any] = [Job("t", queue="q"), Job("t", b"x" * ((1 << 20) + 1), queue="q")]
    with pytest.raises(PayloadTooLarge):
        await srv.enqueue_many(jobs)
    with pytest.raises(InvalidJob, match="not str"):
        await srv.enqueue_many([jobs[0], "t"])  # type: ignore[list-item]
    with pytest.raises(InvalidJob, match="iterable of Jobs"):
        await srv.enqueue_many(5)  # type: ignore[arg-type]
    assert await srv.get_pending("q") == []


async def test_each_caller_of_a_failed_round_trip_gets_its_own_ids(srv: Server) -> None:
    spy = Spy(await engine_of(srv))
    spy.error = EngineUnavailable("no answer from memory:// within 5 s", ids=["others"])
    jobs = [Job("t", id="a", queue="q"), Job("t", id="b", queue="q")]
    chain = Chain([Job("t", queue="q"), Job("t", queue="q")], id="c")
    errors = await asyncio.gather(*map(srv.enqueue, jobs), srv.enqueue_chain(chain), return_exceptions=True)
    assert [type(error) for error in errors] == [EngineUnavailable] * 3
    assert [error.ids for error in errors] == [("a",), ("b",), ("c",)]  # type: ignore[union-attr]
    assert len(spy.calls) == 1
    with pytest.raises(EngineUnavailable, match="no answer") as caught:
        await srv.enqueue_many(jobs)
    assert caught.value.ids == ("a", "b")
    spy.error = None
    assert await srv.enqueue(jobs[0]) == "a"


async def test_a_cancelled_caller_does_not_disturb_the_others(srv: Server) -> None:
    spy = Spy(await engine_of(srv))
    tasks = [asyncio.create_task(srv.enqueue(Job("t", id=id, queue="q"))) for id in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert (done[0], type(done[1]), done[2]) == ("a", asyncio.CancelledError, "c")
    assert len(spy.calls) == 1


async def test_a_job_is_held_to_what_can_be_stored(srv: Server) -> None:
    large = b"x" * ((1 << 20) + 1)
    for job in (Job("t", large), Job("t", on_success=Job("u", on_error=Job("v", large)))):
        with pytest.raises(PayloadTooLarge, match="1,048,577 bytes, over max_payload = 1,048,576"):
            await srv.enqueue(job)
    full = b"x" * (1 << 20)
    with pytest.raises(PayloadTooLarge, match="with its follow-ups"):
        await srv.enqueue(Job("t", on_success=[Job("u", full) for _ in range(20)]))
    with pytest.raises(InvalidJob, match="enqueue_chain"):
        await srv.enqueue(Chain([Job("t"), Job("t")]))  # type: ignore[arg-type]
    with pytest.raises(InvalidJob, match="takes a Chain, not Group"):
        await srv.enqueue_chain(Group([Job("t")]))  # type: ignore[arg-type]
    with pytest.raises(InvalidJob, match="takes a Group, not list"):
        await srv.enqueue_group([Job("t")])  # type: ignore[arg-type]
    assert (await srv.inspector.counts()).queues == {}


async def test_eta_and_priority(srv: Server) -> None:
    await srv.enqueue(Job("t", id="later", eta=datetime.now(UTC) + timedelta(hours=1)))
    await srv.enqueue(Job("t", id="low", priority=-5))
    await srv.enqueue(Job("t", id="high", priority=5))
    await srv.enqueue(Job("t", id="past", eta=datetime.now(UTC) - timedelta(hours=1)))
    assert [m.meta.id for m in await srv.get_pending()] == ["high", "past", "low"]
    assert (await srv.get_job("later")).meta.due_at is not None


# -- queues ---------------------------------------------------------------------------------------------------------


async def test_the_queue_is_the_jobs_the_tasks_or_the_default(srv: Server) -> None:
    srv.register_task("mine", lambda p, c: None, queue="registered")
    for job, queue in (
        (Job("mine", queue="own"), "own"),
        (Job("mine"), "registered"),
        (Job("unknown"), DEFAULT_QUEUE),
    ):
        assert (await srv.get_job(await srv.enqueue(job))).meta.queue == queue


async def test_queues_announced_by_workers_are_read_once_a_minute(srv: Server) -> None:
    engine = await engine_of(srv)
    reads = 0
    tasks = engine.tasks

    async def count() -> dict[str, str]:
        nonlocal reads
        reads += 1
        return await tasks()

    engine.tasks = count  # type: ignore[method-assign]
    await Hand(engine).register({"theirs": "announced", "mine": "other"})
    srv.register_task("mine", lambda p, c: None, queue="registered")
    for task, queue in (
        ("theirs", "announced"),
        ("mine", "registered"),
        ("theirs", "announced"),
        ("new", DEFAULT_QUEUE),
    ):
        assert (await srv.get_job(await srv.enqueue(Job(task)))).meta.queue == queue
    assert reads == 1
    await srv.enqueue_many([Job("new") for _ in range(10)])
    assert reads == 1


async def test_follow_ups_go_to_their_tasks_queues(srv: Server) -> None:
    engine = await engine_of(srv)
    await Hand(engine, "w0").register({"theirs": "announced"})
    srv.register_task("mine", lambda p, c: None, queue="registered")
    id = await srv.enqueue(Job("mine", on_success=[Job("theirs", on_error=Job("mine")), Job("unknown")]))
    first, second = (await srv.get_job(id)).job.follow_ups("on_success")
    assert (first.queue, second.queue) == ("announced", None)
    assert first.follow_ups("on_error")[0].queue == "registered"


# -- chains and groups ----------------------------------------------------------------------------------------------


async def test_a_chain_is_stored_whole_with_one_step_ready(srv: Server) -> None:
    spy = Spy(await engine_of(srv))
    id = await srv.enqueue_chain(Chain([Job("a"), Job("b", queue="q"), Job("c")], id="ch"))
    assert id == "ch"
    (records,) = spy.calls
    assert [(r.id, r.link, r.pos, r.held) for r in records] == [
        ("ch~c0", "c:ch", 0, False),
        ("ch~c1", "c:ch", 1, True),
        ("ch~c2", "c:ch", 2, True),
    ]
    assert [m.meta.id for m in await srv.get_pending()] == ["ch~c0"]
    chain = await srv.get_chain("ch")
    assert (chain.status, chain.job_id, chain.prev_jobs) == (Status.PROCESSING, "ch~c0", ())
    assert await srv.enqueue_chain(Chain([Job("x"), Job("y")], id="ch")) == "ch"
    assert (await srv.get_job("ch~c0")).job.task == "a"


async def test_a_group_is_stored_whole_with_its_callbacks_held_back(srv: Server) -> None:
    engine = await engine_of(srv)
    group = Group([Job("a"), Job("b")], id="g", on_success=Job("done", queue="q"), on_error=[Job("bad"), Job("worse")])
    assert await srv.enqueue_group(group) == "g"
    assert [m.meta.id for m in await srv.get_pending()] == ["g~g0", "g~g1"]
    with pytest.raises(NotFound):
        await srv.get_job("g~s0")
    hand = Hand(engine)
    await hand.register({"a": DEFAULT_QUEUE})
    one, two = await hand.claim()
    await hand.end(one, State.SUCCESSFUL, b"result")
    await hand.end(two, State.FAILED)
    bad = await srv.get_job("g~e0")
    assert (bad.job.task, bad.meta.cause_id, bad.meta.cause_err) == (
        "bad",
        "g",
        "group 'g' failed: not all of its 2 job(s) succeeded",
    )
    assert bad.meta.prev_job_result == b"\x92\xc4\x06result\xc0"
    assert (await srv.get_job("g~e1")).job.task == "worse"
    with pytest.raises(NotFound):
        await srv.get_job("g~s0")
    assert (await srv.get_group("g")).status is Status.FAILED


async def test_links_longer_than_the_engine_stores_are_unsupported(srv: Server) -> None:
    engine = await engine_of(srv)
    engine.capabilities = type(engine.capabilities)(max_link=2)
    with pytest.raises(Unsupported, match=r"3 jobs in one chain or group 'c'.*at most 2"):
        await srv.enqueue_chain(Chain([Job("t")] * 3, id="c"))
    with pytest.raises(Unsupported, match="'g'"):
        await srv.enqueue_group(Group([Job("t")] * 3, id="g"))
    await srv.enqueue_chain(Chain([Job("t")] * 2))


# -- schedules ------------------------------------------------------------------------------------------------------


async def test_a_scheduled_job_becomes_a_schedule(srv: Server) -> None:
    srv.register_task("t", lambda p, c: None, queue="q")
    id = await srv.enqueue(Job("t", b"x", schedule="@every  90s", priority=2))
    assert id.startswith("schedule-")
    (entry,) = await srv.get_schedules()
    assert (entry.id, entry.schedule, entry.paused, entry.last_at) == (id, "@every 90s", False, None)
    assert (entry.job.task, entry.job.payload, entry.job.queue, entry.job.priority) == ("t", b"x", "q", 2)
    assert entry.next_at is not None
    assert timedelta(seconds=80) < entry.next_at - datetime.now(UTC) <= timedelta(seconds=90)
    assert (await srv.inspector.counts()).queues == {}


async def test_a_schedule_enqueued_at_every_start_stays_one(srv: Server) -> None:
    ids = {await srv.enqueue(Job("t", b"x", schedule=text)) for text in ("@hourly", " @hourly ", "@hourly")}
    assert len(ids) == 1
    before = await srv.get_schedules()
    ids.add(await srv.enqueue(Job("t", b"y", schedule="@hourly")))
    ids.add(await srv.enqueue(Job("t", b"x", schedule="@daily")))
    ids.add(await srv.enqueue(Job("t", b"x", schedule="@hourly", queue="q")))
    ids.add(await srv.enqueue(Job("u", b"x", schedule="@hourly")))
    assert len(ids) == 5
    assert before[0] in await srv.get_schedules()


async def test_a_schedule_is_replaced_under_its_own_id(srv: Server) -> None:
    assert await srv.enqueue(Job("t", id="s", schedule="@hourly")) == "s"
    assert await srv.enqueue_many([Job("t", id="j"), Job("t", id="s", schedule="@daily")]) == ["j", "s"]
    assert [(s.id, s.schedule) for s in await srv.get_schedules()] == [("s", "@daily")]
    assert [m.meta.id for m in await srv.get_pending()] == ["j"]
    assert await srv.delete_schedule("s") is True
    assert await srv.delete_schedule("s") is False


async def test_the_schedules_of_tasks_are_stored_at_worker_start(srv: Server) -> None:
    @srv.task(schedule="TZ=Europe/Berlin 30 2 * * *", queue="q")
    async def report(n: int = 1) -> None: ...

    @srv.task
    async def plain() -> None: ...

    assert await srv.get_schedules() == []
    parts = await srv.parts()
    await parts.producer.store_task_schedules()
    await parts.producer.store_task_schedules()
    (entry,) = await srv.get_schedules()
    assert (entry.id, entry.schedule) == ("cron:report", "TZ=Europe/Berlin 30 2 * * *")
    assert (entry.job.payload, entry.job.queue) == (pack(), "q")


# -- hooks, events, fault points ------------------------------------------------------------------------------------


async def test_before_enqueue_sees_every_job(srv: Server) -> None:
    seen: list[str] = []

    @srv.before_enqueue
    def stamp(job: Job[Any]) -> Job[Any]:
        seen.append(job.task)
        return job.replace(headers={**job.headers, "trace": "1"})

    id = await srv.enqueue(Job("a"))
    await srv.enqueue_many([Job("b"), Job("c")])
    await srv.enqueue_chain(Chain([Job("d"), Job("e")], id="ch"))
    await srv.enqueue_group(Group([Job("f")], id="g", on_success=Job("h"), on_error=Job("i")))
    await srv.enqueue(Job("j", schedule="@hourly"))
    assert sorted(seen) == list("abcdefhij")
    assert (await srv.get_job(id)).job.headers == {"trace": "1"}
    assert (await srv.get_job("ch~c1")).job.headers == {"trace": "1"}
    assert (await srv.get_schedules())[0].job.headers == {"trace": "1"}


async def test_a_hook_that_breaks_the_rules_is_named(srv: Server) -> None:
    def forgetful(job: Job[Any]) -> None: ...

    hooks = srv._setup.hooks  # pyright: ignore[reportPrivateUsage]
    hooks[:] = [forgetful]  # type: ignore[list-item]
    with pytest.raises(InvalidJob, match=r"forgetful.*returned None"):
        await srv.enqueue(Job("t"))
    hooks[:] = [lambda job: job.replace(id="same")]
    assert await srv.enqueue(Job("t")) == "same"
    with pytest.raises(InvalidJob, match="gave a step of a chain an id"):
        await srv.enqueue_chain(Chain([Job("t"), Job("t")]))


async def test_enqueued_is_told_after_the_job_is_stored(srv: Server) -> None:
    events: list[Enqueued] = []
    srv.on(Enqueued, events.append)
    await srv.enqueue(Job("t", id="a"))
    await srv.enqueue_many([Job("t", id="b"), Job("t", id="c")])
    await srv.enqueue_group(Group([Job("t")], id="g"))
    assert [event.ids for event in events] == [("a",), ("b", "c"), ("g",)]


async def test_fault_points(srv: Server) -> None:
    hits: list[str] = []
    faults.record(hits.append)
    try:
        await srv.enqueue(Job("t"))
        mine = [hit for hit in hits if hit in ("E1.encoded", "E4.returned")]
        assert mine == ["E1.encoded", "E4.returned"]
        hits.clear()
        await srv.enqueue_many([Job("t")])
        await srv.enqueue_chain(Chain([Job("t"), Job("t")]))
        await srv.enqueue_group(Group([Job("t")]))
        await srv.enqueue(Job("t", schedule="@hourly"))
        assert hits.count("E1.encoded") == hits.count("E4.returned") == 4
        faults.arm("E1.encoded:raise")
        with pytest.raises(faults.FaultInjected):
            await srv.enqueue(Job("t", id="never"))
        with pytest.raises(NotFound):
            await srv.get_job("never")
        faults.arm("E4.returned:raise")
        with pytest.raises(faults.FaultInjected):
            await srv.enqueue(Job("t", id="stored"))
        assert (await srv.get_job("stored")).meta.id == "stored"
    finally:
        faults.disarm()
        faults.record(None)
