"""Losing or repeating work: L1 to L13 of docs/original.md; each test fails if we do as the original does."""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.faults.fleet import Fleet, job
from tests.faults.history import judge
from tests.runtime.conftest import Make
from tests.runtime.helpers import engine_of, soon, until, working

from tasqueue import DEFAULT_QUEUE, Job, JobCtx, Server, Status
from tasqueue.core.record import Record

from .helpers import all_end, all_succeed, echo, flaky, nothing


@pytest.mark.fault
async def test_L1_a_killed_worker_loses_neither_running_nor_waiting_jobs(fleet: Fleet) -> None:
    srv = fleet.server()
    ids = await srv.enqueue_many([job("first_waits", f"held{i}") for i in range(4)])
    ids += await srv.enqueue_many([job("work", f"behind{i}") for i in range(20)])
    boss = fleet.supervised(1, default_concurrency=4)
    await fleet.until(lambda: len(fleet.history().open()) == 4, "they do not start")
    kill = await fleet.kill(boss.children()[0])
    assert kill.held >= 4
    await fleet.all_successful(srv, ids)
    judge(fleet.history(), ids, fleet.kills).check()


async def untouched(srv: Server, id: str) -> None:
    """As if it had never run."""
    meta = (await srv.get_job(id)).meta
    assert (meta.status, meta.retried, meta.deaths, meta.errors) == (Status.QUEUED, 0, 0, ())


async def test_L2_what_a_shutdown_cuts_off_is_no_success_and_runs_again(make: Make) -> None:
    srv = make(grace=0.05, default_concurrency=4)
    runs: list[str] = []
    told: list[str] = []
    release = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(ctx.meta.id)
        await release.wait()

    srv.register_task("t", handler, success_cb=lambda ctx: told.append(ctx.meta.id))
    ids = await srv.enqueue_many([Job("t") for _ in range(8)])
    async with working(srv):
        await until(lambda: len(runs) == 4)
    assert told == []
    for id in ids:
        await untouched(srv, id)
    release.set()
    async with working(srv):
        await all_succeed(srv, ids)
        await until(lambda: sorted(told) == sorted(ids))
    assert sorted(runs) == sorted([*ids, *ids[:4]])


async def test_L3_no_success_is_recorded_while_the_handler_still_runs(make: Make) -> None:
    """It does not listen, so the worker stops without it; later it fails."""
    srv = make(grace=0.05)
    entered, release, over = threading.Event(), threading.Event(), threading.Event()

    def handler(payload: bytes, ctx: JobCtx) -> None:
        if entered.is_set():
            return
        entered.set()
        release.wait(20)
        over.set()
        raise ValueError("in the end it failed")

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await soon(asyncio.to_thread(entered.wait))
    assert not over.is_set()
    await untouched(srv, id)
    release.set()
    await soon(asyncio.to_thread(over.wait))
    await untouched(srv, id)
    async with working(srv):
        await all_succeed(srv, [id])


async def test_L4_what_is_prefetched_survives_a_shutdown_and_a_failing_store(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine, default_concurrency=1)
    ran: list[str] = []
    entered, release = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(ctx.meta.id)
        if payload == b"wait":
            entered.set()
            await release.wait()

    srv.register_task("t", handler)
    ids = await srv.enqueue_many([Job("t", b"wait" if i == 60 else b"", id=f"j{i}") for i in range(200)])
    engine.weather.plan("claim", "drop")
    engine.weather.plan("settle", "refuse")
    async with working(srv):
        await soon(entered.wait())
        stopping = asyncio.ensure_future(srv.stop())
        await asyncio.sleep(0)
        release.set()
        await soon(stopping)
    assert len(ran) > 60
    assert ran + [message.meta.id for message in await srv.get_pending(limit=1000)] == ids
    engine.weather.plan("claim", "refuse")
    engine.weather.plan("settle", "drop")
    async with working(srv):
        await all_succeed(srv, ids)
    assert ran == ids


async def test_L5_an_unknown_task_is_kept_and_said_until_somebody_knows_it(make: Make) -> None:
    old, new = make(), make()
    old.register_task("known", nothing)
    new.register_task("unknown", echo)

    async def parked(id: str) -> str:
        return (await old.get_job(id)).meta.parked

    async with working(old):
        id = await old.enqueue(Job("unknown", b"kept"))
        assert "'unknown'" in await until(lambda: parked(id))
        assert (await old.get_job(id)).meta.status is Status.QUEUED
        await all_succeed(old, [await old.enqueue(Job("known"))])  # nobody waits behind it
    async with working(new):
        await all_succeed(new, [id])
    assert await new.get_result(id) == b"kept"


async def test_L6_undecodable_bytes_are_kept_with_the_reason(srv: Server) -> None:
    srv.register_task("t", nothing)
    engine = await engine_of(srv)
    await engine.submit([Record("bad", DEFAULT_QUEUE, "t", b"\xc1 what is this")])
    async with working(srv):
        meta = (await all_end(srv, ["bad"]))["bad"]
        assert meta.status is Status.FAILED
        assert meta.prev_err.startswith("Undecodable: ")
        assert await srv.get_failed() == ["bad"]
        assert (await srv.get_job("bad")).job.payload == b"\xc1 what is this"
        assert await srv.retry("bad")  # once more, say with a newer worker
        await all_end(srv, ["bad"])


MALFORMED: list[object] = [
    {},
    None,
    [],
    [1],
    [1, None, b""],
    [1, "t", None],
    [1, "t", b"", 0, None, None, None, None],
    [1, "t", b"", 0, None, None, "now"],
    [1, "t", b"", 0, None, None, 1.5],
]
"""No job, no payload, a nil or a textual time."""


async def test_L7_malformed_messages_stop_no_worker(srv: Server) -> None:
    srv.register_task("t", nothing)
    engine = await engine_of(srv)
    bad = [f"bad{i}" for i in range(len(MALFORMED))]
    good = [f"good{i}" for i in range(len(MALFORMED))]
    for one, other, body in zip(bad, good, MALFORMED, strict=True):
        await engine.submit([Record(one, DEFAULT_QUEUE, "t", msgspec.msgpack.encode(body))])
        await srv.enqueue(Job("t", id=other))
    started = asyncio.create_task(srv.start())
    await all_succeed(srv, good)
    assert {meta.status for meta in (await all_end(srv, bad)).values()} == {Status.FAILED}
    assert not started.done()
    assert len(await srv.inspector.workers()) == 1
    await srv.stop()
    await started


class Panic(BaseException):
    """What no `except Exception` catches."""


PANICS: list[type[BaseException]] = [ValueError, RecursionError, MemoryError, SystemExit, GeneratorExit, Panic]


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
async def test_L8_whatever_a_handler_or_callback_raises_harms_nobody_else(make: Make, sync: bool) -> None:
    srv = make(default_concurrency=2)
    entered, release = asyncio.Event(), asyncio.Event()
    runs = 0

    async def neighbour(payload: bytes, ctx: JobCtx) -> None:
        nonlocal runs
        runs += 1
        entered.set()
        await release.wait()

    def panic(payload: bytes, ctx: JobCtx) -> None:
        raise PANICS[int(payload)]("panic")

    async def panic_on_loop(payload: bytes, ctx: JobCtx) -> None:
        panic(payload, ctx)

    def callback(ctx: JobCtx, err: BaseException) -> None:
        raise SystemExit("a callback's panic")

    srv.register_task("neighbour", neighbour)
    srv.register_task("panics", panic if sync else panic_on_loop, failed_cb=callback)
    started = asyncio.create_task(srv.start())
    beside = await srv.enqueue(Job("neighbour"))
    await soon(entered.wait())
    ids = await srv.enqueue_many([Job("panics", b"%d" % i) for i in range(len(PANICS))])
    for meta in (await all_end(srv, ids)).values():
        assert (meta.status, meta.deaths) == (Status.FAILED, 0)
        assert "panic" in meta.prev_err or "raised in a thread" in meta.prev_err
    release.set()
    await all_succeed(srv, [beside])
    assert not started.done()
    assert runs == 1
    await srv.stop()
    await started


async def test_L9_a_final_status_that_could_not_be_written_is_written_later(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine)
    runs: Counter[str] = Counter()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] += 1
        ctx.save(b"done")
        if payload:
            raise ValueError("as told")

    srv.register_task("t", handler)
    ids = await srv.enqueue_many([Job("t", id="good"), Job("t", b"x", id="bad")])
    engine.weather.plan("settle", "refuse", "drop")
    async with working(srv):
        metas = await all_end(srv, ids)
    assert len(engine.weather.made("settle")) >= 3
    assert (metas["good"].status, metas["bad"].status) == (Status.SUCCESSFUL, Status.FAILED)
    assert await srv.get_result("good") == b"done"
    assert runs == {"good": 1, "bad": 1}


PRODUCER = """
import asyncio, os, signal, sys
from tasqueue import Job, Server

async def main():
    srv = Server(sys.argv[1])
    await asyncio.gather(*(srv.enqueue(Job("t", id=f"j{i}")) for i in range(100)))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.fault
async def test_L10_what_enqueue_returned_for_outlives_its_producer(tmp_path: Path) -> None:
    """There is no pipe: when `enqueue` returns, another process sees the job, though the producer dies that moment."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    producer = await asyncio.create_subprocess_exec(sys.executable, "-c", PRODUCER, url, stderr=subprocess.PIPE)
    _, complaint = await soon(producer.communicate())
    assert producer.returncode == -signal.SIGKILL, complaint
    async with Server(url) as srv:
        srv.register_task("t", nothing)
        ids = [message.meta.id for message in await srv.get_pending(limit=1000)]
        assert sorted(ids) == sorted(f"j{i}" for i in range(100))
        async with working(srv):
            await all_succeed(srv, ids)


async def test_L11_a_status_never_goes_backwards(make: Make) -> None:
    srv, producer = make(), make()
    srv.register_task("t", nothing)
    order = [Status.QUEUED, Status.PROCESSING, Status.SUCCESSFUL]

    async def follow(id: str) -> list[Status]:
        """What a reader elsewhere sees, from the enqueue to the end, and after the producer has said it again."""
        seen: list[Status] = []
        await producer.enqueue(Job("t", id=id))
        while not seen or not seen[-1].final:
            seen.append((await producer.get_job(id)).meta.status)
            await asyncio.sleep(0)
        await producer.enqueue(Job("t", id=id))
        return [*seen, (await producer.get_job(id)).meta.status]

    async with working(srv):
        histories = await soon(asyncio.gather(*(follow(f"j{i}") for i in range(50))))
    for seen in histories:
        assert seen == sorted(seen, key=order.index)
    await all_succeed(srv, (f"j{i}" for i in range(50)))


async def test_L12_jobs_due_at_once_run_once_whoever_moves_them(make: Make) -> None:
    workers = [make() for _ in range(4)]
    runs: Counter[str] = Counter()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] += 1

    for worker in workers:
        worker.register_task("t", handler)
    async with working(*workers):
        eta = datetime.now(UTC) + timedelta(seconds=0.4)
        ids = await workers[0].enqueue_many([Job("t", eta=eta) for _ in range(300)])
        await all_succeed(workers[0], ids)
    assert runs == dict.fromkeys(ids, 1)


async def test_L13_one_id_is_one_job_with_one_end(make: Make) -> None:
    srv, other = make(), make()
    runs: Counter[str] = Counter()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] += 1
        if payload and runs[ctx.meta.id] == 1:
            raise ValueError("the first time")

    srv.register_task("t", handler)
    jobs = [Job("t", id="good"), Job("t", b"x", id="bad")]
    async with working(srv):
        for _ in range(2):  # while they wait or run, and when they have ended
            await asyncio.gather(*(server.enqueue(job) for job in jobs for server in (srv, other) for _ in range(5)))
            await all_end(srv, ["good", "bad"])
        await all_succeed(srv, [await srv.enqueue(Job("t", id="last"))])
    assert runs == {"good": 1, "bad": 1, "last": 1}
    assert await srv.get_success() == ["last", "good"]
    assert await srv.get_failed() == ["bad"]
