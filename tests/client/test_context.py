"""What a handler may do with its context, and what a muted one refuses."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from tasqueue import InvalidJob, Job, JobCtx, PayloadTooLarge, Status, TasqueueError
from tasqueue.client.context import IN_CALLBACK, TYPED, local
from tasqueue.core import codec
from tasqueue.core.lifecycle import Policy, Returned, Run, Snoozed, decide
from tasqueue.core.record import Lease


class FakeHost:
    """Records what it is told."""

    def __init__(self, results: list[bytes | None] | None = None) -> None:
        self.max_payload = 10
        self.draining = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.told: list[tuple[int, int, str]] = []
        self.pages: list[tuple[str, int, int]] = []
        self._results = results or []

    def progress(self, ctx: JobCtx, done: int, total: int, note: str) -> None:
        self.told.append((done, total, note))

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        self.pages.append((key, start, limit))
        return self._results[start : start + limit]


def make(host: FakeHost | None = None, *, prev: bytes | None = None, link: str = "", results_of: str = "") -> JobCtx:
    job: Job[Any] = Job("resize", b"in", queue="images", max_retries=2, headers={"trace": "1"})
    spec = codec.encode_spec(job, 1_000, results_of=results_of)
    lease = Lease("job-1", "images", 1, spec, b"", prev, 1, link=link, pos=2)
    run = Run(lease, codec.decode_spec(spec), codec.FRESH, Policy(2), "w1", lambda _: "q", 2_000)
    return JobCtx(run, {"db": 1}, host or FakeHost())


def test_meta_and_job_are_those_of_the_run() -> None:
    ctx = make(prev=b"\x05", link="c:chain")
    meta = ctx.meta
    assert meta.id == "job-1"
    assert meta.status is Status.PROCESSING
    assert (meta.queue, meta.max_retries, meta.deaths, meta.worker) == ("images", 2, 1, "w1")
    assert (meta.chain_id, meta.group_id, meta.prev_job_result) == ("chain", "", b"\x05")
    assert meta.enqueued_at is not None
    assert meta.started_at is not None
    assert (meta.started_at - meta.enqueued_at).total_seconds() == 1.0
    assert ctx.meta is meta
    assert ctx.job == Job("resize", b"in", id="job-1", queue="images", max_retries=2, headers={"trace": "1"})
    assert ctx.state == {"db": 1}


def test_meta_has_the_new_status_after_the_step() -> None:
    ctx = make()
    assert ctx.meta.status is Status.PROCESSING
    ctx.after(decide(ctx.run, Returned(b"x"), 5_000, lambda: 0.5))
    assert ctx.meta.status is Status.SUCCESSFUL
    assert ctx.meta.ended_at is not None
    assert ctx.meta.ended_at.timestamp() == 5.0
    assert ctx.meta.worker == "w1"


def test_meta_of_a_snoozed_run_says_when_it_is_due() -> None:
    ctx = make()
    ctx.after(decide(ctx.run, Snoozed(3.0), 5_000, lambda: 0.5))
    assert ctx.meta.status is Status.QUEUED
    assert ctx.meta.due_at is not None
    assert ctx.meta.due_at.timestamp() == 8.0


def test_the_last_save_counts() -> None:
    ctx = make()
    assert ctx.saved is None
    ctx.save(b"one")
    ctx.save(bytearray(b"two"))  # type: ignore[arg-type]
    assert ctx.saved == b"two"
    assert type(ctx.saved) is bytes


@pytest.mark.parametrize("data", ["text", None, 5, [b""]])
def test_only_bytes_are_saved(data: Any) -> None:
    ctx = make()
    with pytest.raises(InvalidJob, match=r"'job-1'.*bytes"):
        ctx.save(data)
    assert ctx.saved is None


def test_what_is_saved_is_bounded() -> None:
    ctx = make()
    ctx.save(b"x" * 10)
    for save in (ctx.save, ctx.keep):
        with pytest.raises(PayloadTooLarge, match=r"'job-1' saves 11 bytes, over max_payload = 10"):
            save(b"y" * 11)
    assert ctx.saved == b"x" * 10


@pytest.mark.parametrize(
    ("why", "message"), [("timeout", "timeout"), ("cancel", "cancelled"), ("drain", "stops"), ("lost", "lease")]
)
async def test_an_interrupted_context_is_muted(why: str, message: str) -> None:
    host = FakeHost()
    ctx = make(host)
    assert not ctx.cancelled
    ctx.interrupted = why
    assert ctx.cancelled
    with pytest.raises(TasqueueError, match=message):
        ctx.save(b"x")
    await ctx.progress(1, 2)
    ctx.progress_sync(1, 2)
    assert ctx.saved is None
    assert host.told == []


def test_save_is_refused_in_typed_tasks_and_in_callbacks() -> None:
    ctx = make()
    ctx.closed = TYPED
    with pytest.raises(TasqueueError, match="what it returns is its result"):
        ctx.save(b"x")
    ctx.keep(b"kept")
    assert ctx.saved == b"kept"
    ctx = make()
    ctx.closed = IN_CALLBACK
    with pytest.raises(TasqueueError, match="callback"):
        ctx.save(b"x")
    ctx = make()
    ctx.after(decide(ctx.run, Returned(), 5_000, lambda: 0.5))
    with pytest.raises(TasqueueError, match="callback"):
        ctx.save(b"x")


async def test_progress_reaches_the_host_on_its_loop() -> None:
    host = FakeHost()
    host.loop = asyncio.get_running_loop()
    ctx = make(host)
    await ctx.progress(1, 3, "one")
    assert ctx.meta.progress == (1, 3, "one")
    await asyncio.to_thread(ctx.progress_sync, 2, 3)
    await asyncio.sleep(0)
    assert host.told == [(1, 3, "one"), (2, 3, "")]
    assert ctx.meta.progress == (2, 3, "")


@pytest.mark.parametrize("arguments", [(1.5, 2, ""), (1, "2", ""), (1, 2, b""), (1, 2, "x" * 1001), (True, 2, "")])
async def test_progress_is_two_numbers_and_a_note(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidJob, match="progress"):
        await make().progress(*arguments)


def test_prev_is_decoded() -> None:
    assert make().prev(int) is None
    assert make().prev(bytes) is None
    ctx = make(prev=msgspec.msgpack.encode([1, 2]))
    assert ctx.prev(list[int]) == [1, 2]
    assert ctx.prev(bytes) == b"\x92\x01\x02"
    with pytest.raises(InvalidJob, match=r"'job-1': the previous result is not dict"):
        ctx.prev(dict[str, int])


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
async def test_results_of_a_group_are_read_in_pages(count: int) -> None:
    stored = [None if i % 3 == 0 else msgspec.msgpack.encode(i) for i in range(count)]
    host = FakeHost(stored)
    ctx = make(host, results_of="g1")
    assert [r async for r in ctx.results(int)] == [None if i % 3 == 0 else i for i in range(count)]
    assert {key for key, _, _ in host.pages} == {"g:g1"}
    assert len(host.pages) == count // 64 + 1


async def test_results_outside_of_a_group_callback_are_refused() -> None:
    with pytest.raises(TasqueueError, match="no callback of a group"):
        [r async for r in make().results(int)]


async def test_a_result_of_another_type_is_named() -> None:
    ctx = make(FakeHost([b"\x01", b"\xa1x"]), results_of="g1")
    with pytest.raises(InvalidJob, match="member 1 of group 'g1'"):
        [r async for r in ctx.results(int)]


def test_log_knows_the_job(caplog: pytest.LogCaptureFixture) -> None:
    ctx = make()
    with caplog.at_level(logging.INFO, "tasqueue.job"):
        ctx.log.info("at %d", 5, extra={"more": 1})
    (record,) = caplog.records
    assert record.getMessage() == "at 5"
    assert (record.job_id, record.task, record.queue, record.more) == ("job-1", "resize", "images", 1)  # type: ignore[attr-defined]
    assert ctx.log is ctx.log


def test_draining_is_the_hosts() -> None:
    host = FakeHost()
    ctx = make(host)
    assert not ctx.draining
    host.draining = True
    assert ctx.draining


def test_a_local_context_stores_nothing() -> None:
    ctx = local("t", "q", b"in", 1_000, 5)
    assert (ctx.meta.id, ctx.meta.status, ctx.job.task, ctx.job.payload) == ("local", Status.PROCESSING, "t", b"in")
    ctx.progress_sync(1, 2, "half")
    assert ctx.meta.progress == (1, 2, "half")
    assert (ctx.draining, ctx.cancelled, ctx.prev(bytes)) == (False, False, None)
    with pytest.raises(PayloadTooLarge):
        ctx.save(b"123456")
