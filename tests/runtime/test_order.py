"""Who starts when: priorities, FIFO, places that are kept, queues with their own concurrency, due dates."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tasqueue import Job, JobCtx, QueueConflict, Retry, Server, Snooze, Status

from .conftest import Make
from .helpers import engine_of, soon, until, worker_of, working


class Order:
    """A task `t` on `queue` that logs its payloads; `gate` holds each run back while it is closed."""

    def __init__(self, srv: Server, queue: str = "q", concurrency: int = 1, **options: object) -> None:
        self.log: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = self.most = 0

        async def handler(payload: bytes, ctx: JobCtx) -> None:
            self.log.append(payload)
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(0)
                await self.gate.wait()
            finally:
                self.now -= 1
            if payload in (b"retry", b"snooze") and self.log.count(payload) == 1:
                raise Retry(0) if payload == b"retry" else Snooze(0)

        srv.register_task(f"t-{queue}", handler, queue=queue, concurrency=concurrency, max_retries=1, **options)  # type: ignore[arg-type]


async def all_end(srv: Server, ids: list[str]) -> None:
    for id in ids:
        assert (await srv.wait(id, 10)).meta.status.final


async def test_fifo_of_starts(srv: Server) -> None:
    order = Order(srv)
    payloads = [b"%d" % i for i in range(100)]
    ids = await srv.enqueue_many([Job("t-q", payload) for payload in payloads])
    async with working(srv):
        await all_end(srv, ids)
    assert order.log == payloads


async def test_higher_priority_first_then_fifo(srv: Server) -> None:
    order = Order(srv)
    ids = await srv.enqueue_many([Job("t-q", b"%d:%d" % (p, i), priority=p) for i in range(3) for p in (0, -5, 100)])
    async with working(srv):
        await all_end(srv, ids)
    assert order.log == [b"%d:%d" % (p, i) for p in (100, 0, -5) for i in range(3)]


@pytest.mark.parametrize("how", [b"retry", b"snooze"])
async def test_what_comes_back_later_goes_behind(srv: Server, how: bytes) -> None:
    order = Order(srv)
    ids = await srv.enqueue_many([Job("t-q", payload) for payload in (how, b"1", b"2")])
    async with working(srv):
        await all_end(srv, ids)
    assert order.log == [how, b"1", b"2", how]


async def test_what_is_given_back_keeps_its_place(make: Make) -> None:
    srv = make(grace=0.05)
    order = Order(srv)
    order.gate.clear()
    ids = await srv.enqueue_many([Job("t-q", b"%d" % i) for i in range(3)])
    async with working(srv):
        await until(lambda: order.log)
    assert [message.meta.id for message in await srv.get_pending("q")] == ids
    order.gate.set()
    async with working(srv):
        await all_end(srv, ids)
    assert order.log == [b"0", b"0", b"1", b"2"]


async def test_queues_keep_to_their_own_concurrency(srv: Server) -> None:
    one, three = Order(srv, "one", 1), Order(srv, "three", 3)
    ids = await srv.enqueue_many([Job(f"t-{q}", b"x") for _ in range(60) for q in ("one", "three")])
    async with working(srv):
        await all_end(srv, ids)
    assert (one.most, three.most) == (1, 3)


async def test_a_full_queue_holds_no_other_back(srv: Server) -> None:
    full, _free = Order(srv, "full", 1), Order(srv, "free", 1)
    full.gate.clear()
    async with working(srv):
        held = await srv.enqueue_many([Job("t-full") for _ in range(3)])
        await until(lambda: full.log)
        await all_end(srv, await srv.enqueue_many([Job("t-free") for _ in range(10)]))
        assert len(full.log) == 1
        full.gate.set()
        await all_end(srv, held)


async def test_a_task_registered_while_running_is_served_at_once(srv: Server) -> None:
    Order(srv, "first")
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t-first")), 10)
        await srv.enqueue(Job("t-later", queue="later", id="waits"))
        Order(srv, "later")
        assert (await srv.wait("waits", 5)).meta.status is Status.SUCCESSFUL
        engine = await engine_of(srv)
        assert (await until(lambda: tasks_if(engine, "t-later")))["t-later"] == "later"
        with pytest.raises(QueueConflict):
            srv.register_task("other", lambda payload, ctx: None, queue="later", concurrency=7)


async def tasks_if(engine, name: str):
    tasks = await engine.tasks()
    return tasks if name in tasks else None


async def test_registering_from_another_thread_while_running(srv: Server) -> None:
    def register() -> None:
        srv.register_task("t", lambda payload, ctx: None, queue="new")

    async with working(srv):
        await until((await engine_of(srv)).workers)
        await asyncio.to_thread(register)
        assert (await srv.wait(await srv.enqueue(Job("t")), 5)).meta.status is Status.SUCCESSFUL


async def test_a_worker_may_serve_only_some_queues(srv: Server) -> None:
    mine, other = Order(srv, "mine"), Order(srv, "other")
    async with worker_of(srv, queues=["mine"]):
        waits = await srv.enqueue(Job("t-other"))
        await all_end(srv, await srv.enqueue_many([Job("t-mine") for _ in range(5)]))
        assert (await srv.get_job(waits)).meta.status is Status.QUEUED
        assert list(await (await engine_of(srv)).tasks()) == ["t-mine"]
    assert len(mine.log) == 5
    assert other.log == []


async def test_concurrency_option_of_a_worker(srv: Server) -> None:
    order = Order(srv, concurrency=None)  # type: ignore[arg-type]
    async with worker_of(srv, concurrency=2):
        await all_end(srv, await srv.enqueue_many([Job("t-q") for _ in range(20)]))
    assert order.most == 2


async def test_not_early_and_all_together(srv: Server) -> None:
    starts: list[datetime] = []

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        starts.append(datetime.now(UTC))

    srv.register_task("t", handler)
    eta = datetime.now(UTC) + timedelta(seconds=0.4)
    async with working(srv):
        ids = await srv.enqueue_many([Job("t", eta=eta) for _ in range(200)])
        assert (await srv.get_job(ids[0])).meta.due_at is not None
        await all_end(srv, ids)
    assert min(starts) >= eta
    assert (max(starts) - eta).total_seconds() < 5
    assert len(starts) == 200


async def test_typed_delay(srv: Server) -> None:
    @srv.task
    async def when() -> datetime:
        return datetime.now(UTC)

    async with working(srv):
        before = datetime.now(UTC)
        started = await (await when.options(delay=0.2).enqueue()).result(10)
    assert (started - before).total_seconds() >= 0.2


async def test_a_sooner_due_date_wakes_a_sleeping_worker(srv: Server) -> None:
    order = Order(srv)
    async with working(srv):
        await srv.enqueue(Job("t-q", b"far", eta=datetime.now(UTC) + timedelta(hours=1)))
        id = await srv.enqueue(Job("t-q", b"near", eta=datetime.now(UTC) + timedelta(seconds=0.1)))
        await soon(srv.wait(id))
    assert order.log == [b"near"]
