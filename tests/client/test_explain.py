"""One case for each answer of `explain`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.client.support import Hand, engine_of

from tasqueue import DEFAULT_QUEUE, Chain, Explanation, Group, Job, Server, Status
from tasqueue.core import codec
from tasqueue.core.codec import Tail
from tasqueue.core.record import Kind, Lease, Step
from tasqueue.core.status import State


@pytest.fixture
async def hand(srv: Server) -> Hand:
    return Hand(await engine_of(srv))


async def settle(hand: Hand, lease: Lease, kind: Kind, state: State, tail: Tail | None, **more: object) -> None:
    step = Step(lease.id, lease.claim, kind, state, tail and codec.encode_tail(tail), ref=lease.ref, **more)  # type: ignore[arg-type]
    assert await hand.engine.settle(hand.name, [step]) == [True]


def check(answer: Explanation, code: str, *words: str) -> None:
    assert answer.code == code, answer.text
    assert str(answer) == answer.text
    for word in words:
        assert word in answer.text


async def test_unknown(srv: Server) -> None:
    check(await srv.explain("nope"), "unknown", "'nope' is unknown")


async def test_ended(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_many([Job("t", id=id) for id in "abc"])
    await srv.cancel("c")
    a, b = await hand.claim()
    await hand.end(a, State.SUCCESSFUL)
    await hand.end(b, State.FAILED, tail=codec.encode_tail(Tail(status=Status.FAILED, prev_err="ValueError: bad")))
    check(await srv.explain("a"), "successful", "ended as successful")
    answer = await srv.explain("b")
    check(answer, "failed", "ValueError: bad", "srv.retry('b')")
    assert answer.evidence["prev_err"] == "ValueError: bad"
    check(await srv.explain("c"), "cancelled", "ended as cancelled")


async def test_running_and_lease_ended(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue(Job("t", id="a"))
    await hand.claim()
    answer = await srv.explain("a")
    check(answer, "running", "running on w1, since 20", "lease is valid")
    assert answer.evidence["worker"] == "w1"
    await hand.engine.beat("w1", -1000, b"")
    check(await srv.explain("a"), "lease-ended", "w1, whose lease has ended")


async def test_paused(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue(Job("t", id="a"))
    await srv.pause(DEFAULT_QUEUE, "moving house")
    check(await srv.explain("a"), "paused", DEFAULT_QUEUE, "moving house", "@", "srv.resume")


async def test_no_worker(srv: Server, hand: Hand) -> None:
    await srv.enqueue(Job("t", id="a"))
    check(await srv.explain("a"), "no-worker", "no worker is alive")
    await hand.register({"t": "other"})
    answer = await srv.explain("a")
    check(answer, "no-worker", "1 living serve others")
    assert answer.evidence["workers"] == ["w1"]


async def test_unknown_task(srv: Server, hand: Hand) -> None:
    await hand.register({"u": DEFAULT_QUEUE})
    await srv.enqueue(Job("t", id="a", queue=DEFAULT_QUEUE))
    check(await srv.explain("a"), "unknown-task", "knows task 't'")


async def test_waiting(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_many([Job("t", id=f"j{i}") for i in range(4)])
    answer = await srv.explain("j3")
    check(answer, "waiting", "behind 3 job(s)", "1 worker(s) with 10 slot(s)")
    assert answer.evidence["ahead"] == 3
    await srv.enqueue_many([Job("t") for _ in range(1000)])
    await srv.enqueue(Job("t", id="last"))
    check(await srv.explain("last"), "waiting", "behind more than 1,000 job(s)")


async def test_due_and_retrying(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue(Job("t", id="later", eta=datetime(2100, 5, 6, 7, 8, 9, tzinfo=UTC)))
    check(await srv.explain("later"), "due", "at 2100-05-06 07:08:09 UTC")
    await srv.enqueue(Job("t", id="a", max_retries=3))
    (lease,) = await hand.claim()
    tail = Tail(status=Status.RETRYING, retried=2, prev_err="OSError: no")
    await settle(hand, lease, Kind.RETRY, State.DUE, tail, delay=60_000)
    answer = await srv.explain("a")
    check(answer, "retrying", "OSError: no", "retry 2")
    assert answer.evidence["max_retries"] == 3
    assert answer.evidence["due_at"] > datetime.now(UTC) + timedelta(seconds=30)


async def test_parked(srv: Server, hand: Hand) -> None:
    await hand.register({"u": DEFAULT_QUEUE})
    await srv.enqueue(Job("t", id="a", queue=DEFAULT_QUEUE))
    (lease,) = await hand.claim()
    await settle(
        hand, lease, Kind.PARK, State.PARKED, None, delay=60_000, key="task:t", reason="no worker knows task 't'"
    )
    answer = await srv.explain("a")
    check(answer, "parked", "no worker knows task 't'", "offered again at 20", "fails when `park_for` has passed")


async def test_held(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_chain(Chain([Job("t"), Job("t"), Job("t")], id="c"))
    answer = await srv.explain("c~c2")
    check(answer, "held", "step 2 of chain 'c'", "waits for step 0, 'c~c0'")
    assert answer.evidence["waits_for"] == "c~c0"
    (lease,) = await hand.claim()
    await hand.end(lease, State.SUCCESSFUL)
    check(await srv.explain("c~c2"), "held", "waits for step 1, 'c~c1'")
    await hand.claim()
    await srv.cancel_chain("c")
    check(await srv.explain("c"), "chain", "cancelled")


async def test_chain_and_group(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_chain(Chain([Job("t"), Job("t")], id="c"))
    check(await srv.explain("c"), "chain", "processing, at step 0 of 2", "explain 'c~c0'")
    await srv.enqueue_group(Group([Job("t"), Job("t")], id="g"))
    lease = next(lease for lease in await hand.claim() if lease.id == "g~g0")
    await hand.end(lease, State.SUCCESSFUL)
    answer = await srv.explain("g")
    check(answer, "group", "1 of 2 job(s) have not ended", "explain 'g~g1'")
    assert answer.evidence["not_ended"] == ["g~g1"]


async def fail(hand: Hand, lease: Lease, error: str) -> None:
    await hand.end(lease, State.FAILED, tail=codec.encode_tail(Tail(status=Status.FAILED, prev_err=error)))


async def test_a_failed_chain_names_the_step_and_its_error(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_chain(Chain([Job("t"), Job("t"), Job("t")], id="c"))
    (lease,) = await hand.claim()
    await hand.end(lease, State.SUCCESSFUL)
    (lease,) = await hand.claim()
    await fail(hand, lease, "OSError: disk full\nand more")
    answer = await srv.explain("c")
    check(answer, "chain", "failed, at step 1 of 3", "'c~c1' failed: OSError: disk full;", "srv.retry('c~c1')")
    assert "and more" not in answer.text
    assert (answer.evidence["job_id"], answer.evidence["prev_err"]) == ("c~c1", "OSError: disk full\nand more")
    check(await srv.explain("c~c2"), "held", "chain 'c', which is failed", "explain the chain")
    await srv.delete_job("c~c1")
    check(await srv.explain("c"), "chain", "'c~c1' is failed, and forgotten meanwhile")


async def test_a_chain_that_was_cancelled_while_its_step_runs(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_chain(Chain([Job("t"), Job("t")], id="c"))
    await hand.claim()
    await srv.cancel_chain("c")
    check(await srv.explain("c"), "chain", "cancelled, at step 0 of 2: 'c~c0' is processing")


async def test_a_group_names_the_first_job_that_failed(srv: Server, hand: Hand) -> None:
    await hand.register({"t": DEFAULT_QUEUE})
    await srv.enqueue_group(Group([Job("t")] * 4, id="g"))
    leases = {lease.id: lease for lease in await hand.claim()}
    await hand.end(leases["g~g1"], State.CANCELLED)
    await fail(hand, leases["g~g2"], "OSError: x" + "y" * 300)
    answer = await srv.explain("g")
    check(answer, "group", "2 of 4 job(s) have not ended, 1 ended as failed, 1 ended as cancelled; explain 'g~g0'")
    assert "'g~g2' failed: OSError: xyyy" in answer.text
    assert len(answer.text) < 450
    assert answer.evidence["job_id"] == "g~g2"
    assert answer.evidence["not_successful"] == ["g~g1", "g~g2"]
    assert answer.evidence["not_ended"] == ["g~g0", "g~g3"]


async def test_a_group_with_a_cancelled_job(srv: Server) -> None:
    await srv.enqueue_group(Group([Job("t")], id="g"))
    await srv.cancel("g~g0")
    check(await srv.explain("g"), "group", "Group 'g' is failed", "'g~g0' was cancelled", "srv.retry('g~g0')")
