"""Reading and steering: what is found, in which order, and what cancelling, retrying and waiting come to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.client.support import Hand, engine_of, working

from tasqueue import (
    DEFAULT_QUEUE,
    Chain,
    Fail,
    Group,
    InvalidJob,
    Job,
    JobCtx,
    NotFound,
    Retry,
    Server,
    Status,
)
from tasqueue.core import codec
from tasqueue.core.codec import ErrorEntry, Tail
from tasqueue.core.status import State


async def hand_of(srv: Server, **tasks: str) -> Hand:
    hand = Hand(await engine_of(srv))
    await hand.register(tasks or {"t": DEFAULT_QUEUE})
    return hand


async def test_unknown_ids(srv: Server) -> None:
    for call in (srv.get_job, srv.get_result, srv.wait):
        with pytest.raises(NotFound, match="job 'nope' is unknown"):
            await call("nope")
    for call in (srv.get_chain, srv.wait_chain):
        with pytest.raises(NotFound, match="chain 'nope' is unknown"):
            await call("nope")
    for call in (srv.get_group, srv.wait_group):
        with pytest.raises(NotFound, match="group 'nope' is unknown"):
            await call("nope")
    for call in (srv.cancel, srv.cancel_chain, srv.cancel_group, srv.retry, srv.delete_job, srv.delete_schedule):
        assert await call("nope") is False


async def test_an_id_is_a_str(srv: Server) -> None:
    for call in (srv.get_job, srv.cancel, srv.retry, srv.delete_job, srv.wait, srv.explain, srv.get_chain):
        with pytest.raises(InvalidJob, match=r"not int \(5\)"):
            await call(5)  # type: ignore[operator]


async def test_results(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue_many([Job("t", id="a"), Job("t", id="b")])
    with pytest.raises(NotFound, match=r"'a' has no result: it is queued; `await srv.wait\('a'\)`"):
        await srv.get_result("a")
    a, b = await hand.claim()
    await hand.end(a, State.SUCCESSFUL, b"")
    await hand.end(b, State.SUCCESSFUL)
    assert await srv.get_result("a") == b""
    with pytest.raises(NotFound, match="'b' has no result: it is successful and saved nothing"):
        await srv.get_result("b")


async def test_ended_jobs_are_listed_newest_first_and_in_pages(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue_many([Job("t", id=f"j{i}") for i in range(6)])
    for i, lease in enumerate(await hand.claim()):
        await hand.end(lease, State.FAILED if i % 2 else State.SUCCESSFUL)
    assert await srv.get_success() == ["j4", "j2", "j0"]
    assert await srv.get_failed(limit=2) == ["j5", "j3"]
    assert await srv.get_failed(limit=2, after="j3") == ["j1"]
    with pytest.raises(InvalidJob, match="limit 0"):
        await srv.get_failed(limit=0)


async def test_pending_in_pages(srv: Server) -> None:
    await srv.enqueue_many([Job("t", id=f"j{i}") for i in range(5)])
    assert [m.meta.id for m in await srv.get_pending(limit=2)] == ["j0", "j1"]
    assert [m.meta.id for m in await srv.get_pending(limit=2, after="j1")] == ["j2", "j3"]
    assert [m.meta.id for m in await srv.get_pending(limit=1, after="gone")] == ["j0"]
    assert await srv.get_pending("other") == []


async def test_jobs_by_status_queue_and_task(srv: Server) -> None:
    hand = await hand_of(srv, t=DEFAULT_QUEUE)
    await srv.enqueue_many([Job("t", id=f"j{i}") for i in range(4)])
    done, failed, retrying, _running = await hand.claim()
    await hand.end(done, State.SUCCESSFUL)
    await hand.end(failed, State.FAILED)
    from tasqueue.core.record import Kind, Step

    tail = codec.encode_tail(Tail(status=Status.RETRYING, retried=1))
    step = Step(retrying.id, retrying.claim, Kind.RETRY, State.DUE, tail, delay=60_000, ref=retrying.ref)
    assert await hand.engine.settle(hand.name, [step]) == [True]
    later = datetime.now(UTC) + timedelta(hours=1)
    await srv.enqueue_many(
        [Job("t", id="q0", queue="q"), Job("u", id="q1", queue="q"), Job("u", id="later", eta=later)]
    )

    async def ids(**which: Any) -> list[str]:
        return [m.meta.id for m in await srv.inspector.jobs(**which)]

    assert await ids(status="successful") == ["j0"]
    assert await ids(status=Status.FAILED) == ["j1"]
    assert await ids(status="retrying") == ["j2"]
    assert await ids(status="processing") == ["j3"]
    assert await ids(status="queued") == ["later", "q1", "q0"]
    assert await ids(status="queued", limit=1) == ["later"]
    assert await ids(status="queued", limit=2, after="later") == ["q1", "q0"]
    assert await ids(status="cancelled") == []
    assert await ids(queue="q") == ["q1", "q0"]
    assert await ids(task="u", queue="q") == ["q1"]
    assert len(await ids()) == 7
    with pytest.raises(InvalidJob, match="'done': one of queued, processing"):
        await ids(status="done")


async def test_cancel(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue_many([Job("t", id="running"), Job("t", id="ended")])
    await srv.enqueue(Job("t", id="later", eta=datetime.now(UTC) + timedelta(hours=1)))
    running, ended = await hand.claim()
    await hand.end(ended, State.SUCCESSFUL)
    await srv.enqueue(Job("t", id="waiting"))
    for id in ("waiting", "later"):
        assert await srv.cancel(id) is True
        assert (await srv.get_job(id)).meta.status is Status.CANCELLED
        assert await srv.cancel(id) is False
    assert await srv.cancel("running") is True
    assert (await srv.get_job("running")).meta.status is Status.PROCESSING
    assert (await hand.engine.beat(hand.name, 60_000, b"")).cancels == ["running"]
    await hand.end(running, State.SUCCESSFUL)
    assert (await srv.get_job("running")).meta.status is Status.SUCCESSFUL
    assert await srv.cancel("ended") is False


@pytest.mark.parametrize(("own", "expected"), [(0, None), (None, Status.CANCELLED)])
async def test_a_cancelled_job_is_kept_as_its_task_says(own: float | None, expected: Status | None) -> None:
    async with Server("memory://", result_ttl=None if own == 0 else 0) as srv:
        srv.register_task("t", lambda p, c: None, result_ttl=own)
        await srv.enqueue(Job("t", id="a"))
        assert await srv.cancel("a")
        if expected is None:
            with pytest.raises(NotFound):
                await srv.get_job("a")
        else:
            assert (await srv.get_job("a")).meta.status is expected


async def test_cancel_chain_and_group(srv: Server) -> None:
    await srv.enqueue_chain(Chain([Job("t"), Job("t")], id="c"))
    await srv.enqueue_group(Group([Job("t"), Job("t")], id="g"))
    assert await srv.cancel_chain("c") is True
    assert (await srv.get_chain("c")).status is Status.CANCELLED
    assert await srv.cancel_chain("c") is False
    assert await srv.cancel_group("g") is True
    assert (await srv.get_group("g")).job_status == {"g~g0": Status.CANCELLED, "g~g1": Status.CANCELLED}
    assert await srv.get_pending() == []


async def test_retry_opens_a_new_generation(srv: Server) -> None:
    runs: list[int] = []

    @srv.task(max_retries=1, backoff=0)
    async def flaky(ctx: JobCtx) -> int:
        runs.append(ctx.meta.generation)
        if len(runs) == 1:
            raise Retry(0)
        if ctx.meta.generation == 0:
            raise Fail("not yet")
        return ctx.meta.generation

    @srv.task
    async def after(ctx: JobCtx) -> None: ...

    async with working(srv):
        handle = await flaky.options(id="f", on_error=after.job(), on_success=after.job()).enqueue()
        before = (await srv.wait("f", 5)).meta
        assert (before.status, before.retried, before.on_error_ids) == (Status.FAILED, 1, ("f~e0",))
        assert await srv.retry("f") is True
        assert await handle.result(timeout=5) == 1
        meta = (await srv.get_job("f")).meta
        assert (meta.generation, meta.retried, meta.deaths, meta.prev_err) == (1, 0, 0, "")
        assert meta.on_success_ids == ("f~s0.1",)
        assert [error.message for error in meta.errors] == ["the handler asked for a retry", "not yet"]
        assert await srv.retry("f") is False
    assert runs == [0, 0, 1]


async def test_retry_of_a_cancelled_job(srv: Server) -> None:
    await srv.enqueue(Job("t", id="a"))
    assert await srv.retry("a") is False
    await srv.cancel("a")
    assert await srv.retry("a") is True
    meta = (await srv.get_job("a")).meta
    assert (meta.status, meta.generation, meta.ended_at) == (Status.QUEUED, 1, None)
    assert [m.meta.id for m in await srv.get_pending()] == ["a"]


ERROR = ErrorEntry(5, "w0", "Undecodable", "no good", "")


@pytest.mark.parametrize(
    ("tail", "reopened"),
    [
        (Tail(status=Status.FAILED, errors=(ERROR,), kept=b""), (1, 1)),
        (Tail(status=Status.FAILED, errors=(ERROR,), kept=codec.encode_tail(Tail(generation=4, retried=3))), (5, 1)),
    ],
)
async def test_what_was_refused_as_undecodable_is_offered_again(
    srv: Server, tail: Tail, reopened: tuple[int, int]
) -> None:
    hand = await hand_of(srv)
    await srv.enqueue(Job("t", id="a"))
    (lease,) = await hand.claim()
    await hand.end(lease, State.FAILED, tail=codec.encode_tail(tail))
    assert await srv.retry("a") is True
    meta = (await srv.get_job("a")).meta
    assert (meta.generation, len(meta.errors), meta.retried) == (*reopened, 0)


@pytest.mark.parametrize(("tail", "kept"), [(Tail(kept=b"\xc1"), b"\xc1"), (None, b"\xc1\xc1")])
async def test_a_tail_that_cannot_be_decoded_stays_as_it_is(srv: Server, tail: Tail | None, kept: bytes) -> None:
    hand = await hand_of(srv)
    await srv.enqueue(Job("t", id="a"))
    (lease,) = await hand.claim()
    await hand.end(lease, State.FAILED, tail=kept if tail is None else codec.encode_tail(tail))
    assert await srv.retry("a") is True
    (row,) = await hand.engine.get(["a"])
    assert row is not None
    assert (row.tail, row.state) == (kept, State.READY)


async def test_delete_only_what_has_ended(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue(Job("t", b"one", id="a"))
    assert await srv.delete_job("a") is False
    (lease,) = await hand.claim()
    assert await srv.delete_job("a") is False
    await hand.end(lease, State.SUCCESSFUL, b"r")
    assert await srv.delete_job("a") is True
    assert await srv.delete_job("a") is False
    assert await srv.get_success() == []
    assert await srv.enqueue(Job("t", b"two", id="a")) == "a"
    assert (await srv.get_job("a")).job.payload == b"two"


async def test_wait_is_woken_and_gives_up_in_time(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue(Job("t", id="a"))
    for timeout in (0, 0.02):
        with pytest.raises(TimeoutError, match=rf"job 'a' has not ended within {timeout} s"):
            await srv.wait("a", timeout)
    waiting = asyncio.create_task(srv.wait("a", 5))
    await asyncio.sleep(0)
    (lease,) = await hand.claim()
    await hand.end(lease, State.FAILED)
    assert (await waiting).meta.status is Status.FAILED
    assert (await srv.wait("a", 0)).meta.status is Status.FAILED


async def test_wait_for_what_is_forgotten_meanwhile(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue(Job("t", id="a"))
    waiting = asyncio.create_task(srv.wait("a"))
    await asyncio.sleep(0)
    (lease,) = await hand.claim()
    await hand.end(lease, State.SUCCESSFUL, ttl=0)
    with pytest.raises(NotFound):
        await waiting


async def test_wait_for_chains_and_groups(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue_chain(Chain([Job("t"), Job("t")], id="c"))
    await srv.enqueue_group(Group([Job("t")], id="g"))
    with pytest.raises(TimeoutError, match="chain 'c'"):
        await srv.wait_chain("c", 0)
    with pytest.raises(TimeoutError, match="group 'g'"):
        await srv.wait_group("g", 0.01)
    waiting = asyncio.gather(srv.wait_chain("c", 5), srv.wait_group("g", 5))
    while leases := await hand.claim():
        for lease in leases:
            await hand.end(lease, State.SUCCESSFUL, b"r")
    chain, group = await waiting
    assert (chain.status, chain.prev_jobs) == (Status.SUCCESSFUL, ("c~c0", "c~c1"))
    assert (group.status, group.job_status) == (Status.SUCCESSFUL, {"g~g0": Status.SUCCESSFUL})


async def test_pause_says_who_and_why(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue(Job("t", id="a"))
    await srv.pause(DEFAULT_QUEUE, "maintenance")
    (row,) = await srv.inspector.paused()
    assert (row.queue, row.reason) == (DEFAULT_QUEUE, "maintenance")
    assert row.by.count("@") == 1
    assert await hand.claim() == []
    await srv.resume(DEFAULT_QUEUE)
    await srv.resume("never paused")
    assert len(await hand.claim()) == 1


async def test_workers_counts_durability_and_drain(srv: Server) -> None:
    hand = await hand_of(srv)
    await srv.enqueue_many([Job("t", id="a"), Job("t", id="b")])
    await hand.claim(limit=1)
    (worker,) = await srv.inspector.workers()
    assert (worker.id, worker.held, worker.info["tasks"]) == ("w1", 1, ["t"])
    assert worker.lease_until is not None
    assert worker.lease_until > datetime.now(UTC)
    await hand.engine.beat("w1", 60_000, b"\xc1 not msgpack")
    assert (await srv.inspector.workers())[0].info == {}
    assert (await srv.inspector.counts()).queues == {DEFAULT_QUEUE: {State.READY: 1, State.RUNNING: 1}}
    assert (await srv.inspector.durability()).level in {"process", "os-crash", "power-loss"}
    assert await srv.inspector.drain("w1") is True
    assert await srv.inspector.drain("w2") is False
    assert (await hand.engine.beat("w1", 60_000, b"")).drain is True
