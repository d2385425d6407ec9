"""How often a job runs, when it runs again, and what a handler may ask for."""

from __future__ import annotations

from typing import Any

import pytest

from tasqueue import Fail, Job, JobCtx, Retry, Server, Snooze, Status

from .conftest import Make
from .helpers import engine_of, until, working


def asks(what: str) -> None:
    raise {"retry": Retry(0), "fail": Fail("enough"), "snooze": Snooze(0.01), "value": ValueError("bad")}.get(what) or (
        Awkward(1, 2)
    )


class Awkward(Exception):
    """Cannot be unpickled: its class takes other arguments than its `args`."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"awkward {one} {two}")


def counting(fail: Any = ValueError) -> tuple[list[str], Any]:
    """A handler that always raises, and the statuses that its runs saw."""
    runs: list[str] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(f"{ctx.meta.status}:{ctx.meta.retried}")
        raise fail(f"run {len(runs)}") if isinstance(fail, type) else fail

    return runs, handler


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_max_retries_gives_one_more_run(srv: Server, retries: int) -> None:
    runs, handler = counting()
    srv.register_task("t", handler, max_retries=retries, backoff=0)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert runs == [f"processing:{i}" for i in range(retries + 1)]
    assert (meta.status, meta.retried, meta.max_retries) == (Status.FAILED, retries, retries)
    assert meta.prev_err == f"ValueError: run {retries + 1}"
    assert [error.message for error in meta.errors] == [f"run {i + 1}" for i in range(retries + 1)]
    assert "ValueError" in meta.errors[0].traceback


@pytest.mark.parametrize(("of_job", "of_task", "runs_made"), [(0, 3, 1), (2, 0, 3), (None, 1, 2)])
async def test_the_jobs_own_max_retries_wins(srv: Server, of_job: int | None, of_task: int, runs_made: int) -> None:
    runs, handler = counting()
    srv.register_task("t", handler, max_retries=of_task, backoff=0)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t", max_retries=of_job)), 10)).meta
    assert len(runs) == runs_made
    assert meta.max_retries == runs_made - 1


async def test_success_after_errors_clears_prev_err(srv: Server) -> None:
    runs = 0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            assert ctx.meta.prev_err == ("" if runs == 1 else "ValueError: 1")
            raise ValueError(str(runs))

    srv.register_task("t", handler, max_retries=5, backoff=0)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert (meta.status, meta.prev_err, meta.retried, len(meta.errors)) == (Status.SUCCESSFUL, "", 2, 2)


async def test_only_the_last_five_errors_are_kept(srv: Server) -> None:
    _runs, handler = counting()
    srv.register_task("t", handler, max_retries=6, backoff=0)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert [error.message for error in meta.errors] == [f"run {i}" for i in range(3, 8)]


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [([0.01, 300], [0.01, 300]), (lambda k: 0.01 if k == 1 else 100.0 * k, [0.01, 200]), (250, [250])],
    ids=["sequence", "function", "number"],
)
async def test_backoff(srv: Server, backoff: Any, delays: list[float]) -> None:
    runs, handler = counting()
    srv.register_task("t", handler, max_retries=5, backoff=backoff)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: len(runs) == len(delays))
        row = await until(lambda: retrying(srv, id))
        now = await (await engine_of(srv)).now()
    assert delays[-1] - 10 < (row.due - now) / 1000 <= delays[-1]


async def retrying(srv: Server, id: str) -> Any:
    row = (await (await engine_of(srv)).get([id]))[0]
    meta = (await srv.get_job(id)).meta
    return row if meta.status is Status.RETRYING and row is not None and row.due is not None else None


async def test_the_default_backoff_is_within_a_second(srv: Server) -> None:
    _runs, handler = counting()
    srv.register_task("t", handler, max_retries=1)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert meta.errors[0].at <= meta.errors[1].at
    assert (meta.errors[1].at - meta.errors[0].at).total_seconds() < 5


@pytest.mark.parametrize(
    "broken",
    [lambda k: 1 / 0, lambda k: "soon", lambda k: float("nan"), lambda k: 1e300],
    ids=["raises", "text", "nan", "ages"],
)
async def test_a_backoff_function_that_is_no_good_loses_nothing(srv: Server, broken: Any) -> None:
    runs, handler = counting()
    srv.register_task("t", handler, max_retries=1, backoff=broken)
    srv.register_task("good", lambda payload, ctx: None)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: runs)
        await srv.wait(await srv.enqueue(Job("good")), 10)
        await until(lambda: len(runs) == 2 or retrying(srv, id))
        assert (await srv.get_job(id)).meta.retried == 1


async def test_retry_with_a_delay_and_with_none_left(srv: Server) -> None:
    runs, handler = counting(Retry(0))
    srv.register_task("t", handler, max_retries=2, backoff=300)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert len(runs) == 3
    assert (meta.status, meta.retried) == (Status.FAILED, 2)
    asked = "the handler asked for a retry"
    assert [error.message for error in meta.errors] == [asked, asked, f"{asked}, and none was left"]


async def test_fail_leaves_no_retry(srv: Server) -> None:
    runs, handler = counting(Fail("enough"))
    srv.register_task("t", handler, max_retries=5, backoff=0)
    async with working(srv):
        meta = (await srv.wait(await srv.enqueue(Job("t")), 10)).meta
    assert len(runs) == 1
    assert (meta.status, meta.prev_err) == (Status.FAILED, "Fail: enough")


async def test_snooze_spends_nothing_and_the_status_stays(srv: Server) -> None:
    statuses: list[Status] = []
    runs = 0

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            raise ValueError("then snooze as retrying")
        if runs != 7:
            raise Snooze(0.02)

    async def look(id: str) -> bool:
        meta = (await srv.get_job(id)).meta
        statuses.append(meta.status)
        return meta.status.final

    srv.register_task("t", handler, max_retries=1, backoff=0)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: look(id))
        meta = (await srv.get_job(id)).meta
    assert (runs, meta.status, meta.retried) == (7, Status.SUCCESSFUL, 1)
    seen = [s for i, s in enumerate(statuses) if s in (Status.QUEUED, Status.RETRYING) and s not in statuses[:i]]
    assert seen == [Status.QUEUED, Status.RETRYING]


async def test_what_process_handlers_ask_for(make: Make) -> None:
    srv = make(default_concurrency=1)
    task = srv.task(executor="process", max_retries=1, backoff=0)(asks)
    heard: list[BaseException] = []
    srv.task(executor="process", name="heard", failed_cb=lambda ctx, err: heard.append(err))(asks)
    async with working(srv):
        retried = (await srv.wait((await task.enqueue("retry")).id, 30)).meta
        failed = (await srv.wait((await task.enqueue("fail")).id, 30)).meta
        awkward = (await srv.wait((await task.enqueue("awkward")).id, 30)).meta
        await srv.wait(await srv.enqueue(task.job("value").replace(task="heard")), 30)
        await until(lambda: heard)
        snoozed = await task.enqueue("snooze")
        await until(lambda: worked_at(srv, snoozed.id))
        await srv.cancel(snoozed.id)
    assert (retried.retried, retried.deaths) == (1, 0)
    assert (failed.retried, failed.prev_err) == (0, "Fail: enough")
    assert (awkward.retried, awkward.deaths, awkward.prev_err) == (1, 0, "Awkward: awkward 1 2")
    assert "in asks" in awkward.errors[0].traceback
    assert isinstance(heard[0], ValueError)
    assert heard[0].args == ("bad",)


async def worked_at(srv: Server, id: str) -> bool:
    meta = (await srv.get_job(id)).meta
    return meta.status is Status.QUEUED and meta.started_at is not None
