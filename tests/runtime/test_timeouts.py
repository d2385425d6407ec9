"""Timeouts, and handlers that ignore their interruption: fenced off, one outcome, no two runs at once."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from tasqueue import Job, JobCtx, NotFound, Server, Status, TasqueueError

from .conftest import Make
from .helpers import soon, until, worker_of, working


def hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


async def sleeper(payload: bytes, ctx: JobCtx) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("of_job", "of_task", "default", "said"),
    [(0.05, 30, 30, "0.05 s"), (None, 0.06, 30, "0.06 s"), (None, None, 0.07, "0.07 s")],
)
async def test_the_nearest_timeout_counts(
    make: Make, of_job: float | None, of_task: float | None, default: float, said: str
) -> None:
    srv = make(default_timeout=default)
    srv.register_task("t", sleeper, timeout=of_task)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t", timeout=of_job)), 10)).meta
    assert (meta.status, meta.prev_err) == (Status.FAILED, f"TimeoutError: timed out after {said}")


async def test_an_async_handler_is_cancelled_and_retried(srv: Server) -> None:
    ended: list[str] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"so far")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(ctx.meta.prev_err)
            with pytest.raises(TasqueueError, match="timeout"):
                ctx.save(b"late")

    srv.register_task("t", handler, timeout=0.05, max_retries=1, backoff=0)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        meta = (await srv.wait(id, 10)).meta
    assert ended == ["", "TimeoutError: timed out after 0.05 s"]
    assert (meta.status, meta.retried, meta.deaths) == (Status.FAILED, 1, 0)
    assert await srv.get_result(id) == b"so far"


async def test_a_success_after_the_timeout_does_not_count(srv: Server) -> None:
    async def handler(payload: bytes, ctx: JobCtx) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    srv.register_task("t", handler, timeout=0.05)
    typed = srv.task(name="typed", timeout=0.05)(returning)
    async with working(srv):
        assert (await srv.wait(await srv.enqueue(Job("t")), 10)).meta.status is Status.FAILED
        id = (await typed.enqueue()).id
        assert (await srv.wait(id, 10)).meta.status is Status.FAILED
        with pytest.raises(NotFound):
            await srv.get_result(id)


async def returning() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass
    return "late"


async def test_a_thread_sees_it_and_what_it_returns_is_dropped(srv: Server) -> None:
    seen: list[bool] = []

    @srv.task(timeout=0.05)
    def task(ctx: JobCtx) -> str:
        while not ctx.cancelled:
            time.sleep(0.005)
        seen.append(True)
        return "late"

    async with working(srv):
        id = (await task.enqueue()).id
        meta = (await srv.wait(id, 10)).meta
        with pytest.raises(NotFound):
            await srv.get_result(id)
    assert seen
    assert (meta.status, meta.prev_err) == (Status.FAILED, "TimeoutError: timed out after 0.05 s")


async def test_a_process_is_killed(make: Make, tmp_path: Path) -> None:
    srv = make(default_concurrency=1)
    task = srv.task(executor="process")(hang)
    path = tmp_path / "pid"
    async with working(srv):
        id = await srv.enqueue(task.job(str(path)))
        pid = int(await until(lambda: path.exists() and path.read_text()))
        assert await srv.cancel(id)
        assert (await srv.wait(id, 10)).meta.status is Status.CANCELLED
        await until(lambda: not alive(pid))
        path.unlink()
        id = await srv.enqueue(task.job(str(path)).replace(timeout=3))
        meta = (await srv.wait(id, 20)).meta
        assert meta.prev_err == "TimeoutError: timed out after 3 s"
        if path.exists():
            await until(lambda: not alive(int(path.read_text())))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("sync", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize("retries", [0, 1])
async def test_ignored_timeout(make: Make, sync: bool, retries: int) -> None:
    """Fenced off: the slot goes on, one outcome, and the retry waits until the ignorant run has ended."""
    srv = make(default_concurrency=1, grace=0.2)
    release = threading.Event()
    log: list[str] = []
    runs = 0

    def begin(ctx: JobCtx) -> bool:
        nonlocal runs
        runs += 1
        log.append(f"begin {runs}")
        return runs == 1

    def thread(payload: bytes, ctx: JobCtx) -> None:
        if begin(ctx):
            release.wait(20)
            log.append("end 1")

    async def loop(payload: bytes, ctx: JobCtx) -> None:
        if begin(ctx):
            while not release.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
            log.append("end 1")

    srv.register_task("t", thread if sync else loop, timeout=0.05, max_retries=retries, backoff=0)
    srv.register_task("good", lambda payload, ctx: log.append("good"))
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: log)
        await srv.wait(await srv.enqueue(Job("good")), 10)  # in the one slot, while the first run still goes on
        assert log == ["begin 1", "good"]
        if retries:
            assert not (await srv.get_job(id)).meta.status.final
        else:
            assert (await srv.wait(id, 10)).meta.status is Status.FAILED
        release.set()
        meta = (await srv.wait(id, 10)).meta
        await until(lambda: "end 1" in log)
    assert meta.errors[0].message == "timed out after 0.05 s"
    assert len(meta.errors) == 1
    if retries:
        assert meta.status is Status.SUCCESSFUL
        assert log == ["begin 1", "good", "end 1", "begin 2"]


async def test_what_an_ignorant_run_saves_or_returns_is_dropped(make: Make) -> None:
    srv = make(default_concurrency=1, grace=0.1)
    release = threading.Event()
    late: list[str] = []

    @srv.task(timeout=0.05)
    def task(ctx: JobCtx) -> str:
        release.wait(20)
        late.append("done")
        return "late"

    async with working(srv):
        id = (await task.enqueue()).id
        meta = (await srv.wait(id, 10)).meta
        release.set()
        await until(lambda: late)
        await srv.wait((await task.options(id="next").enqueue()).id, 10)
        assert (await srv.get_job(id)).meta == meta
        with pytest.raises(NotFound):
            await srv.get_result(id)


async def test_recycled_when_a_quarter_of_the_slots_are_stuck(make: Make) -> None:
    srv = make(default_concurrency=8, grace=0.05)
    release = asyncio.Event()
    asked: list[str] = []
    told = asyncio.Event()

    async def stubborn(payload: bytes, ctx: JobCtx) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    def recycle(why: str) -> None:
        asked.append(why)
        told.set()

    srv.register_task("t", stubborn, timeout=0.02)
    async with worker_of(srv, recycle=recycle):
        await srv.wait(await srv.enqueue(Job("t")), 10)
        assert not asked
        await srv.wait(await srv.enqueue(Job("t")), 10)
        await soon(told.wait())
        release.set()
    assert asked[0].startswith("2 of 8 slots")


async def test_many_timeouts_beside_quick_jobs(make: Make) -> None:
    srv = make(default_concurrency=8)
    srv.register_task("slow", sleeper, timeout=0.1)
    srv.register_task("quick", lambda payload, ctx: None, timeout=20)
    async with working(srv):
        slow = await srv.enqueue_many([Job("slow") for _ in range(8)])
        quick = await srv.enqueue_many([Job("quick") for _ in range(50)])
        assert {(await srv.wait(id, 10)).meta.status for id in quick} == {Status.SUCCESSFUL}
        assert {(await srv.wait(id, 10)).meta.status for id in slow} == {Status.FAILED}


async def test_the_deadline_of_one_that_has_ended_hits_nobody_else(make: Make) -> None:
    """Its slot runs another job by then."""
    srv = make(default_concurrency=2)
    hung, go = asyncio.Event(), asyncio.Event()

    async def hangs(payload: bytes, ctx: JobCtx) -> None:
        hung.set()
        await asyncio.sleep(60)

    async def waits(payload: bytes, ctx: JobCtx) -> None:
        await go.wait()

    srv.register_task("hangs", hangs)
    srv.register_task("waits", waits)
    srv.register_task("quick", lambda payload, ctx: None)
    async with working(srv):
        slow = await srv.enqueue(Job("hangs", timeout=0.3))  # the earliest deadline, so the next one's stays behind it
        await soon(hung.wait())
        await srv.wait(await srv.enqueue(Job("quick", timeout=0.5)), 10)
        other = await srv.enqueue(Job("waits"))
        assert (await srv.wait(slow, 10)).meta.status is Status.FAILED
        late = await srv.enqueue(Job("hangs", timeout=0.4))  # when it is over, so is the quick one's time
        await srv.wait(late, 10)
        go.set()
        meta = (await srv.wait(other, 10)).meta
    assert (meta.status, meta.errors) == (Status.SUCCESSFUL, ())
