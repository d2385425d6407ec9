"""Order, scheduling, retries: S1 to S13 of docs/original.md; each test fails if we do as the original does."""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Make
from tests.runtime.helpers import soon, until, working

from tasqueue import Job, JobCtx, Meta, ScheduleMessage, Server, Status, TasqueueError
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults

from .helpers import all_end, all_succeed, fails, flaky, nothing


def later(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_S1_all_that_is_due_starts_at_once_the_oldest_first(make: Make) -> None:
    """One a second, and this takes half a minute."""
    srv = make(default_concurrency=1)
    order: list[bytes] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        order.append(payload)

    srv.register_task("t", handler)
    jobs = [Job("t", b"%02d" % i, eta=later(0.2 + i / 200)) for i in range(30)]
    async with working(srv):
        ids = await srv.enqueue_many(random.Random(1).sample(jobs, len(jobs)))
        await soon(all_succeed(srv, ids))
    assert order == [job.payload for job in jobs]


async def test_S2_queues_are_first_in_first_out(make: Make) -> None:
    srv = make(default_concurrency=1)
    order: list[str] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        order.append(ctx.meta.id)
        if payload:  # what comes while others wait has to wait behind them
            ids.append(await srv.enqueue(Job("t")))

    srv.register_task("t", handler)
    ids = [await srv.enqueue(Job("t", b"x" if i < 5 else b"")) for i in range(20)]
    async with working(srv):
        await all_succeed(srv, ids[:20])
        await all_succeed(srv, ids[20:])
    assert len(ids) == 25
    assert order == ids


async def test_S3_a_retry_waits_with_jitter_and_behind_the_others(make: Make) -> None:
    srv = make(default_concurrency=1)
    order: list[bytes] = []
    delays: list[float] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        order.append(payload)
        if ctx.meta.retried == 0:
            raise ValueError("the first time")

    async def retrying(ctx: JobCtx, err: BaseException) -> None:
        assert ctx.meta.due_at is not None
        assert ctx.meta.processed_at is not None
        delays.append((ctx.meta.due_at - ctx.meta.processed_at).total_seconds())

    srv.register_task("at-once", handler, max_retries=1, backoff=0)
    srv.register_task("default", fails, max_retries=1, retrying_cb=retrying)
    async with working(srv):
        await all_succeed(srv, await srv.enqueue_many([Job("at-once", b"%d" % i) for i in range(3)]))
        await srv.enqueue_many([Job("default") for _ in range(30)])
        await until(lambda: len(delays) == 30)
    assert order == [b"0", b"1", b"2"] * 2
    assert len(set(delays)) > 15  # what failed together does not come back together
    assert 0 <= min(delays) < max(delays) <= 1.0
    assert max(delays) > 0.2


class Ticks:
    """What three seconds of schedules came to: the metas of each schedule's runs, in their order, and the schedules."""

    def __init__(self) -> None:
        self.runs: dict[str, list[str]] = {}
        self.metas: dict[str, Meta] = {}
        self.schedules: dict[str, ScheduleMessage] = {}

    def of(self, schedule: str) -> list[Meta]:
        return [self.metas[id] for id in self.runs[schedule]]

    def count(self) -> dict[str, int]:
        """How many occurrences have run, by schedule."""
        return {name: len(set(self.runs.get(name, ()))) for name in REPEATED}

    def serve(self, srv: Server) -> None:
        """The tasks of a worker."""

        def told(ctx: JobCtx) -> None:
            self.runs.setdefault(ctx.meta.id.partition("@")[0], []).append(ctx.meta.id)

        async def fail(payload: bytes, ctx: JobCtx) -> None:
            told(ctx)
            raise ValueError("as always")

        async def quiet(payload: bytes, ctx: JobCtx) -> None:
            told(ctx)

        @srv.task(schedule="@every 1s")
        async def declared(ctx: JobCtx) -> None:
            told(ctx)

        srv.task(schedule="0 3 * * *")(nightly)
        srv.register_task("fail", fail)
        srv.register_task("quiet", quiet)
        srv.register_task("after", nothing)


async def nightly() -> None:
    """Never runs here, unless it is three in the morning."""


REPEATED = ("failing", "mine", "cron:declared")


async def watch(url: str) -> Ticks:
    """The first worker is cut off after the first ticks; the second one sees the others."""
    ticks = Ticks()
    first, second = Server(url, grace=1.0), Server(url, grace=1.0)
    for srv in (first, second):
        ticks.serve(srv)
    async with first, second:
        follow: dict[str, Any] = {"on_success": Job("after"), "on_error": [Job("after"), Job("after")]}
        await first.enqueue(Job("fail", schedule="@every 1s", id="failing", **follow))
        await first.enqueue(Job("quiet", schedule="@every 1s", id="mine", **follow))
        for srv, more in ((first, 1), (second, 2)):
            seen = ticks.count()
            started = asyncio.create_task(srv.start())
            await until(lambda seen=seen, more=more: all(ticks.count()[name] >= seen[name] + more for name in REPEATED))
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
        ticks.schedules = {entry.id: entry for entry in await second.get_schedules()}
        for name in ticks.schedules:
            await second.delete_schedule(name)
        async with working(second):  # what was cut off, and what follows
            for id in {id for runs in ticks.runs.values() for id in runs}:
                ticks.metas[id] = (await second.wait(id, 10)).meta
            for id in [id for meta in ticks.metas.values() for id in (*meta.on_success_ids, *meta.on_error_ids)]:
                ticks.metas[id] = (await second.wait(id, 10)).meta
    return ticks


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ticks]:
    """Both stores at the same time, and once for all: it takes three seconds."""
    path: Path = tmp_path_factory.mktemp("ticks") / "jobs.db"

    async def both() -> list[Ticks]:
        return await asyncio.gather(watch(f"memory://{uuid.uuid4().hex}"), watch(f"sqlite:///{path}"))

    return dict(zip(("memory", "sqlite"), asyncio.run(both()), strict=True))


@pytest.fixture(params=["memory", "sqlite"])
def ticks(request: pytest.FixtureRequest, watched: dict[str, Ticks]) -> Ticks:
    return watched[request.param]


def test_S4_a_recurring_job_goes_on_after_failures_crashes_and_empty_results(ticks: Ticks) -> None:
    assert {meta.status for meta in ticks.of("failing")} == {Status.FAILED}
    assert {meta.status for meta in ticks.of("mine")} == {Status.SUCCESSFUL}
    for name in ("failing", "mine"):
        assert ticks.count()[name] >= 3


def test_S5_every_occurrence_has_its_follow_ups(ticks: Ticks) -> None:
    for name, follow in (("failing", ("~e0", "~e1")), ("mine", ("~s0",))):
        for meta in ticks.of(name):
            ids = (*meta.on_success_ids, *meta.on_error_ids)
            assert ids == tuple(meta.id + suffix for suffix in follow)
            assert {ticks.metas[id].status for id in ids} == {Status.SUCCESSFUL}


def test_S6_every_occurrence_has_an_id_of_its_own(ticks: Ticks) -> None:
    for name in REPEATED:
        ids = sorted({meta.id for meta in ticks.of(name)})
        dates = [datetime.fromisoformat(id.removeprefix(f"{name}@")) for id in ids]
        gaps = [(after - before).total_seconds() for before, after in pairwise(dates)]
        assert len(ids) >= 3
        assert all(gap >= 1.0 for gap in gaps)
        assert all(meta.id not in meta.on_success_ids for meta in ticks.of(name))


def test_S7_declared_schedules_are_stored_and_tick(ticks: Ticks) -> None:
    assert set(ticks.schedules) == {"failing", "mine", "cron:declared", "cron:nightly"}
    assert {meta.status for meta in ticks.of("cron:declared")} == {Status.SUCCESSFUL}
    night = ticks.schedules["cron:nightly"].next_at
    assert night is not None
    assert (night.hour, night.minute, night.utcoffset()) == (3, 0, timedelta(0))
    assert timedelta(0) < night - datetime.now(UTC) <= timedelta(days=1)


async def test_S8_an_idle_worker_writes_nothing_and_an_error_is_said(
    make: Make, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = flaky(url)
    srv = make(engine)
    srv.register_task("t", nothing)
    engine.weather.plan("promote", "refuse")
    async with working(srv):
        await until(lambda: len(engine.weather.made("promote")) >= 2)
        made = {verb for verb, _ in engine.weather.calls}
        assert not made & {"settle", "submit", "fire", "put_schedule", "cancel", "delete"}
        await all_succeed(srv, [await srv.enqueue(Job("t", eta=later(0.05)))])
    assert "scheduler: promote: refused by the test; trying again in 1 s" in caplog.messages


@pytest.mark.parametrize("store", ["memory", "sqlite", "pair"])
async def test_S9_due_jobs_move_on_every_store(tmp_path: Path, store: str) -> None:
    if store == "pair":
        srv = Server(broker=MemoryBroker(), results=MemoryResults(), grace=1.0)
    else:
        srv = Server("memory://" if store == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}", grace=1.0)
    async with srv:
        srv.register_task("t", nothing)
        async with working(srv):
            await all_succeed(srv, await srv.enqueue_many([Job("t", eta=later(0.1)) for _ in range(10)]))


async def test_S10_what_is_due_in_a_moment_waits_for_no_poll(srv: Server) -> None:
    """Twelve, one after another, each due 20 ms after it came: with a poll of a second this takes more than 10 s."""
    srv.register_task("t", nothing)

    async def one_after_another() -> None:
        for _ in range(12):
            await all_succeed(srv, [await srv.enqueue(Job("t", eta=later(0.02)))])

    async with working(srv):
        await soon(one_after_another())


class Runs:
    """How many runs there are at once: of all jobs, and of any one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now: Counter[str] = Counter()
        self.begun = self.most = self.most_of_one = 0
        self.refused: list[str] = []

    def begin(self, ctx: JobCtx) -> None:
        with self.lock:
            self.begun += 1
            self.now[ctx.meta.id] += 1
            self.most = max(self.most, self.now.total())
            self.most_of_one = max(self.most_of_one, self.now[ctx.meta.id])

    def end(self, ctx: JobCtx) -> None:
        """It is over its time, so what it saves is refused."""
        try:
            ctx.save(b"late")
        except TasqueueError as error:
            self.refused.append(str(error))
        with self.lock:
            self.now[ctx.meta.id] -= 1


@pytest.mark.parametrize("kind", ["async", "thread", "deaf"])
async def test_S11_a_timeout_ends_the_handler_before_the_next_run_begins(make: Make, kind: str) -> None:
    """A thread that does not listen cannot be ended: its slot goes on without it, but its job does not."""
    srv = make(default_concurrency=1, grace=0.05)
    runs = Runs()
    release = threading.Event()

    async def on_loop(payload: bytes, ctx: JobCtx) -> None:
        runs.begin(ctx)
        try:
            await asyncio.Event().wait()
        finally:
            runs.end(ctx)

    def thread(payload: bytes, ctx: JobCtx) -> None:
        runs.begin(ctx)
        if kind == "deaf":
            release.wait(20)
        while not ctx.cancelled:
            threading.Event().wait(0.002)
        runs.end(ctx)

    srv.register_task("t", on_loop if kind == "async" else thread, timeout=0.03, max_retries=3, backoff=0)
    srv.register_task("good", nothing)
    async with working(srv):
        ids = await srv.enqueue_many([Job("t"), Job("t")])
        if kind == "deaf":
            await until(lambda: runs.begun == 2)
            for _ in range(2):
                await all_succeed(srv, [await srv.enqueue(Job("good"))])
            assert runs.begun == 2  # nobody has begun anew
            release.set()
        metas = await all_end(srv, ids)
        assert runs.now.total() == 0
    assert (runs.begun, runs.most_of_one) == (8, 1)
    assert runs.most == 1 or kind == "deaf"
    assert all("timeout" in text for text in runs.refused)
    assert len(runs.refused) == 8
    for meta in metas.values():
        assert (meta.status, meta.prev_err) == (Status.FAILED, "TimeoutError: timed out after 0.03 s")


async def test_S12_a_handler_that_raises_a_cancellation_has_failed(srv: Server) -> None:
    async def of_its_own(payload: bytes, ctx: JobCtx) -> None:
        raise asyncio.CancelledError

    async def of_a_child(payload: bytes, ctx: JobCtx) -> None:
        child = asyncio.ensure_future(asyncio.Event().wait())
        child.cancel()
        await child

    def in_thread(payload: bytes, ctx: JobCtx) -> None:
        raise asyncio.CancelledError

    async def out_of_time(payload: bytes, ctx: JobCtx) -> None:
        raise TimeoutError("its own")

    for handler in (of_its_own, of_a_child, in_thread, out_of_time):
        srv.register_task(handler.__name__, handler)
    async with working(srv):
        ids = await srv.enqueue_many([Job(name) for name in srv.get_tasks()])
        for meta in (await all_end(srv, ids)).values():
            assert meta.status is Status.FAILED, meta
    assert await srv.get_success() == []


async def test_S13_the_default_of_max_retries_is_the_documented_none(srv: Server) -> None:
    async def own(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] += 1
        raise ValueError("always")

    runs: Counter[str] = Counter()
    srv.register_task("t", own, backoff=0)
    srv.register_task("one", own, max_retries=1, backoff=0)
    jobs = [Job("t", id="default"), Job("t", id="jobs", max_retries=2), Job("one", id="tasks")]
    async with working(srv):
        metas = await all_end(srv, await srv.enqueue_many(jobs))
    assert {id: meta.max_retries for id, meta in metas.items()} == {"default": 0, "jobs": 2, "tasks": 1}
    assert runs == {"default": 1, "jobs": 3, "tasks": 2}
