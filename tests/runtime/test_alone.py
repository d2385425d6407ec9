"""A job's last allowed run is made alone when there is no supervisor: nothing else runs in the process (G10)."""

from __future__ import annotations

import asyncio

import pytest

from tasqueue import Job, JobCtx, Server, Status
from tasqueue.events import Ended
from tasqueue.interfaces import Engine
from tasqueue.runtime.consumer import ALONE

from .conftest import Make
from .helpers import engine_of, until, working


class Spans:
    """Which jobs ran side by side."""

    def __init__(self, srv: Server, queue: str = "q", fail: bool = False, **options: object) -> None:
        self.beside: dict[str, set[str]] = {}
        self._now: set[str] = set()
        self.workers: dict[str, str] = {}

        async def handler(payload: bytes, ctx: JobCtx) -> None:
            me = ctx.meta.id
            self.workers[me] = ctx.meta.worker
            self.beside.setdefault(me, set()).update(self._now)
            for other in self._now:
                self.beside[other].add(me)
            self._now.add(me)
            await asyncio.sleep(0.02)
            self._now.discard(me)
            if fail and payload == b"fail":
                raise ValueError("ordinary")

        for name in (queue, "other"):
            srv.register_task(f"t-{name}", handler, queue=name, **options)  # type: ignore[arg-type]


async def die(engine: Engine, queue: str, worker: str, limit: int = 1) -> None:
    """A worker that claims from the head of a queue, and dies."""
    await engine.register(worker, 60_000, b"", {}, 1)
    await engine.claim(worker, 1, {queue: limit})
    assert await engine.reclaim(worker, f"{worker} was killed")


@pytest.mark.parametrize("deaths", [1, 2])
async def test_the_last_run_has_nothing_beside_it(make: Make, deaths: int) -> None:
    srv = make(default_concurrency=4, max_deaths=3)
    spans = Spans(srv)
    ids = await srv.enqueue_many([Job("t-q") for _ in range(12)])
    others = await srv.enqueue_many([Job("t-other") for _ in range(12)])
    engine = await engine_of(srv)
    for i in range(deaths):
        await die(engine, "q", f"w{i}")
    async with working(srv):
        for id in (*ids, *others):
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    assert (await srv.get_job(ids[0])).meta.deaths == deaths
    if deaths == 2:
        assert spans.beside[ids[0]] == set()
        assert spans.workers[ids[0]].endswith(ALONE)
    else:
        assert spans.beside[ids[0]]
    assert any(spans.beside[id] for id in ids[1:])
    assert not any(spans.workers[id].endswith(ALONE) for id in others)


async def test_innocent_neighbours_all_succeed(make: Make) -> None:
    srv = make(default_concurrency=4, max_deaths=3)
    spans = Spans(srv)
    ids = await srv.enqueue_many([Job("t-q") for _ in range(8)])
    engine = await engine_of(srv)
    for i in range(2):
        await die(engine, "q", f"w{i}", 5)
    async with working(srv):
        for id in ids:
            assert (await srv.wait(id, 20)).meta.status is Status.SUCCESSFUL
    assert [spans.beside[id] for id in ids[:5]] == [set()] * 5


async def test_one_that_died_alone_is_failed_with_the_cause(make: Make) -> None:
    srv = make(max_deaths=3)
    failed: list[str] = []
    ended: list[Ended] = []
    spans = Spans(srv, failed_cb=lambda ctx, err: failed.append(f"{ctx.meta.status} {err}"))
    srv.on(Ended, ended.append)
    poison, good = await srv.enqueue_many([Job("t-q", on_error=Job("t-other")), Job("t-q")])
    engine = await engine_of(srv)
    for worker in ("w1", "w2", f"w3{ALONE}"):
        await die(engine, "q", worker)
    async with working(srv):
        meta = (await srv.wait(poison, 10)).meta
        assert (await srv.wait(good, 10)).meta.status is Status.SUCCESSFUL
        await srv.wait(f"{poison}~e0", 10)
        await until(lambda: failed)
    assert (meta.status, meta.deaths, meta.errors[0].type) == (Status.FAILED, 3, "WorkerDied")
    assert "was killed" in meta.prev_err
    assert poison not in spans.beside
    assert failed[0].startswith("failed")
    assert (poison, Status.FAILED) in {(event.id, event.status) for event in ended}


async def test_three_deaths_of_which_none_was_alone_are_not_its_fault(make: Make) -> None:
    srv = make(max_deaths=3)
    spans = Spans(srv)
    id = await srv.enqueue(Job("t-q"))
    engine = await engine_of(srv)
    for worker in ("w1", "w2", "w3", "w4"):
        await die(engine, "q", worker)
    async with working(srv):
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    assert spans.workers[id].endswith(ALONE)


async def test_an_ordinary_error_alone_is_an_ordinary_error(make: Make) -> None:
    srv = make(max_deaths=3)
    Spans(srv, fail=True, max_retries=1, backoff=0)
    id = await srv.enqueue(Job("t-q", b"fail"))
    engine = await engine_of(srv)
    for worker in ("w1", "w2"):
        await die(engine, "q", worker)
    async with working(srv):
        meta = (await srv.wait(id, 10)).meta
    assert (meta.status, meta.retried, meta.deaths, len(meta.errors)) == (Status.FAILED, 1, 2, 2)


async def test_max_deaths_of_one_runs_every_job_alone(make: Make) -> None:
    srv = make(default_concurrency=4, max_deaths=1)
    spans = Spans(srv)
    ids = await srv.enqueue_many([Job("t-q") for _ in range(4)])
    async with working(srv):
        for id in ids:
            assert (await srv.wait(id, 20)).meta.status is Status.SUCCESSFUL
    assert not any(spans.beside.values())


async def test_stop_while_one_runs_alone(make: Make) -> None:
    srv = make(max_deaths=1, grace=10)
    spans = Spans(srv)
    ids = await srv.enqueue_many([Job("t-q") for _ in range(3)])
    async with working(srv):
        await until(lambda: spans.beside)
    assert (await srv.get_job(ids[0])).meta.status is Status.SUCCESSFUL
    assert await (await engine_of(srv)).workers() == []
    async with working(srv):
        for id in ids:
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_process_that_dies_counts_a_death_and_in_the_end_fails_its_job_only(make: Make) -> None:
    srv = make(default_concurrency=1, max_deaths=2)
    task = srv.task(executor="process", max_retries=5, backoff=0)(end_process)
    async with working(srv):
        meta = (await srv.wait((await task.enqueue()).id, 40)).meta
    assert (meta.status, meta.deaths, meta.retried, meta.errors[0].type) == (Status.FAILED, 2, 0, "WorkerDied")


def end_process() -> None:
    import os

    os._exit(7)
