"""The NATS backend: N1 to N8 of docs/original.md, on a server of the tests' own."""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests import services
from tests.runtime.helpers import soon, until, working

from tasqueue import Job, JobCtx, Server, Status

from .helpers import all_end, all_succeed, echo, fails, nothing


@pytest.fixture(scope="module")
def nats() -> Iterator[services.NatsServer]:
    with services.nats() as server:
        yield server


@pytest.fixture
async def new(nats: services.NatsServer) -> AsyncIterator[Callable[..., Server]]:
    """Servers in one namespace that nobody has used; closed afterwards."""
    namespace = uuid4().hex
    made: list[Server] = []

    def make(**options: Any) -> Server:
        made.append(Server(nats.url, namespace=namespace, **options))
        return made[-1]

    yield make
    for srv in made:
        await srv.close()


async def test_N1_any_id_can_be_stored_and_read(new: Callable[..., Server]) -> None:
    srv = new()
    srv.register_task("t:.*>", echo, queue="q:.*>")
    names = ["a:b", "a.b", "a*", ">", "$JS.API", "é", "a=b", "a/b"]
    async with working(srv):
        ids = await srv.enqueue_many([Job("t:.*>", name.encode(), id=name) for name in names])
        await all_succeed(srv, ids)
    assert [await srv.get_result(name) for name in names] == [name.encode() for name in names]


async def test_N2_successes_and_failures_are_listed(new: Callable[..., Server]) -> None:
    srv = new()
    srv.register_task("good", nothing)
    srv.register_task("bad", fails)
    async with working(srv):
        metas = await all_end(srv, [await srv.enqueue(Job(task, id=task)) for task in ("good", "bad")])
    assert [metas[task].status for task in ("good", "bad")] == [Status.SUCCESSFUL, Status.FAILED]
    assert (await srv.get_success(), await srv.get_failed()) == (["good"], ["bad"])


async def test_N3_what_a_server_needs_is_made(new: Callable[..., Server]) -> None:
    srv = new()
    id = await srv.enqueue(Job("t", b"payload"))  # nobody has prepared anything, and no worker has been there
    assert (await srv.get_job(id)).job.payload == b"payload"


async def test_N4_a_message_is_acknowledged_when_its_finish_is_stored(new: Callable[..., Server]) -> None:
    runs: Counter[str] = Counter()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] += 1
        if runs[ctx.meta.id] == 1:
            await asyncio.Event().wait()

    first, second = new(lease=1.0), new()
    for srv in (first, second):
        srv.register_task("t", handler)
    ids = await first.enqueue_many([Job("t") for _ in range(2)])
    task = asyncio.create_task(first.start())
    await until(lambda: len(runs) == 2)
    task.cancel()  # everything is given back at once
    await asyncio.gather(task, return_exceptions=True)
    async with working(second):
        await all_succeed(second, ids)
    assert set(runs.values()) == {2}


async def test_N5_what_waits_for_a_free_worker_keeps_its_lease(new: Callable[..., Server]) -> None:
    runs: list[str] = []
    srv, other = new(lease=1.0, default_concurrency=1), new(lease=1.0, default_concurrency=1)

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs.append(ctx.meta.id)
        await asyncio.sleep(1.6)  # the others wait for longer than a lease

    srv.register_task("t", handler)
    other.register_task("t", handler)
    ids = await srv.enqueue_many([Job("t") for _ in range(4)])
    async with working(srv, other):  # the latter would take what comes back
        await all_succeed(srv, ids)
    assert sorted(runs) == sorted(ids)


async def test_N6_workers_share_a_queue(new: Callable[..., Server]) -> None:
    by: list[str] = []
    both = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        by.append(ctx.meta.worker)
        if len(set(by)) == 2:
            both.set()
        await both.wait()

    servers = [new(default_concurrency=1) for _ in range(2)]
    for srv in servers:
        srv.register_task("t", handler)
    async with working(*servers):
        ids: list[str] = []
        while not both.is_set():
            ids.append(await servers[0].enqueue(Job("t")))
            await asyncio.sleep(0.01)
            assert len(ids) < 500, "one of them consumes nothing"
        await all_succeed(servers[0], ids)


@pytest.mark.parametrize("cancelled", [True, False])
async def test_N7_start_returns(new: Callable[..., Server], cancelled: bool) -> None:
    srv = new()
    started = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        started.set()
        if cancelled:
            await asyncio.Event().wait()

    srv.register_task("t", handler)
    await srv.enqueue(Job("t"))
    task = asyncio.create_task(srv.start())
    await soon(started.wait())
    if cancelled:
        task.cancel()
    else:
        await srv.stop()
    await soon(asyncio.wait([task]))
    assert task.cancelled() is cancelled


async def test_N8_dates_schedules_and_the_pending_list(new: Callable[..., Server]) -> None:
    srv = new()
    srv.register_task("t", nothing)
    due = datetime.now(UTC) + timedelta(seconds=0.5)
    later = await srv.enqueue(Job("t", eta=due))
    now = await srv.enqueue_many([Job("t", id=f"now{i}") for i in range(3)])
    assert [message.meta.id for message in await srv.get_pending()] == now
    schedule = await srv.enqueue(Job("t", schedule="@every 1s"))
    async with working(srv):
        meta = (await all_end(srv, [later]))[later]
        assert meta.started_at is not None
        assert meta.started_at >= due
        await until(lambda: ticked(srv, schedule))


async def ticked(srv: Server, schedule: str) -> bool:
    return any(id.startswith(f"{schedule}@") for id in await srv.get_success())
