"""Servers that die, freeze, forget their scripts, run out of memory, become replicas, or lose their connections half
way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from tests import services
from tests.engines.redis_world import DAY, admin, engine_on, jobs, opened, run_all, states, until, worker_on
from tests.proxy import Proxy

from tasqueue import Job, Server
from tasqueue.core.record import Record
from tasqueue.core.status import State
from tasqueue.engines.redis import RedisEngine
from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import WorkerGone
from tasqueue.testing.conformance.harness import LONG, Worker, end

pytestmark = pytest.mark.fault

HEALED = 5.0
"""Seconds after which an engine works again."""


@pytest.fixture(params=services.kinds())
def server(request: pytest.FixtureRequest) -> Iterator[services.Server]:
    with services.server(request.param) as one:
        yield one


@contextlib.asynccontextmanager
async def meanwhile(act: Callable[[], Awaitable[None]], every: float) -> AsyncIterator[None]:
    """Within it, do this again and again."""

    async def keep_on() -> None:
        while True:
            await act()
            await asyncio.sleep(every)

    task = asyncio.create_task(keep_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled(), task.exception()


async def stubborn(call: Callable[[], Awaitable[object]], seconds: float = 20.0) -> object:
    """What a producer or the runtime does: the same call again while the engine is away."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await call()
        except EngineUnavailable:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.05)


async def drain(engine: RedisEngine, name: str, total: int, done: list[str], pace: float = 0.0) -> None:
    """A worker that goes on whatever happens, under a new incarnation when it lost the old one."""
    life = number = 0
    worker: Worker | None = None
    while len(done) < total:
        try:
            if worker is None:
                life, number = life + 1, 0
                worker = await worker_on(engine, f"{name}.{life}")
            leases = await worker.claim_again(number + 1, 20)
            number += 1
            accepted = await engine.settle(worker.name, [end(lease, ttl=DAY) for lease in leases])
            done += [lease.id for lease, ok in zip(leases, accepted, strict=True) if ok]
            if not leases:
                await asyncio.sleep(0.01)
            await asyncio.sleep(pace)
        except EngineUnavailable:
            await asyncio.sleep(0.05)
        except WorkerGone:
            worker = None


async def test_scripts_are_forgotten_every_100_ms(server: services.Server) -> None:
    client = admin(server)

    async def flush() -> None:
        await asyncio.to_thread(client.script_flush)

    async with opened(server.url) as engine, meanwhile(flush, 0.1):
        done: list[str] = []
        task = asyncio.create_task(drain(engine, "w", 2_000, done))
        for start in range(0, 2_000, 20):
            await engine.submit(jobs(2_000)[start : start + 20])
            await asyncio.sleep(0.01)
        await asyncio.wait_for(task, 20)
        assert sorted(done) == [one.id for one in jobs(2_000)]


async def test_a_full_memory_refuses_producers_and_lets_workers_finish(server: services.Server) -> None:
    client = admin(server)
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(300))
        leases = await worker.claim(100)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(EngineUnavailable, match="memory") as refusal:
            await engine.submit([Record("new", "q", "t", b"spec")])
        assert refusal.value.ids == ("new",)
        assert await engine.get(["new"]) == [None]
        assert await worker.settle(*(end(lease, ttl=DAY) for lease in leases)) == [True] * 100
        assert not (await worker.beat()).lost
        assert len(await run_all(worker)) == 200
        client.config_set("maxmemory", "0")
        await engine.submit([Record("new", "q", "t", b"spec")])
        assert await run_all(worker) == ["new"]


async def test_a_master_that_becomes_a_replica_and_comes_back(server: services.Server) -> None:
    client = admin(server)
    async with opened(server.url, timeout=0.4) as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(20))
        (first, *_) = await worker.claim(1)
        client.replicaof("127.0.0.1", services.free_port())
        for call in (engine.submit(jobs(1, "x")), worker.claim(1), worker.settle(end(first)), worker.beat()):
            with pytest.raises(EngineUnavailable):
                await call
        client.replicaof("NO", "ONE")
        assert await worker.settle(end(first)) == [True]
        assert len(await run_all(worker)) == 19


async def test_a_kill_and_restart_in_mid_drain_loses_nothing_that_is_on_the_disk() -> None:
    with services.server("valkey", "--appendonly", "yes", "--appendfsync", "always") as server:
        async with (
            opened(server.url, "kill", timeout=1.0) as engine,
            opened(server.url, "kill", timeout=1.0) as producer,
        ):
            accepted: list[str] = []
            done: list[str] = []
            total = 1_000
            healed: list[float] = []
            loop = asyncio.get_running_loop()

            async def produce() -> None:
                for one in jobs(total):
                    await stubborn(lambda one=one: producer.submit([one]))
                    accepted.append(one.id)

            async def kill() -> None:
                for at in (100, 400, 700):
                    await until(lambda at=at: len(done) >= at)
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                    began, before = loop.time(), len(done)
                    await until(lambda before=before: len(done) > before)
                    healed.append(loop.time() - began)

            await asyncio.wait_for(asyncio.gather(produce(), drain(engine, "w", total, done, 0.02), kill()), 50)
            assert sorted(done) == sorted(accepted)
            assert await states(engine, accepted) == {State.SUCCESSFUL}
            assert max(healed) < HEALED


async def test_a_server_frozen_for_three_leases_takes_no_job_from_a_living_worker(server: services.Server) -> None:
    lease = 1_200
    async with opened(server.url, "frozen", timeout=0.5) as engine, opened(server.url, "frozen", timeout=0.5) as reaper:
        worker = await worker_on(engine, lease=lease)
        await engine.submit(jobs(10))
        leases = await worker.claim(5)
        reclaimed: list[str] = []

        async def beat() -> None:
            with contextlib.suppress(EngineUnavailable):
                await worker.beat(lease)

        async def reap() -> None:
            with contextlib.suppress(EngineUnavailable):
                reclaimed.extend(await reaper.reclaim())

        async with meanwhile(beat, lease / 3000), meanwhile(reap, 0.3):
            await asyncio.sleep(0.4)  # so that there was a reclaim to count the gap from
            with server.frozen():
                with pytest.raises(EngineUnavailable):
                    await engine.submit(jobs(1, "x"))
                await asyncio.sleep(3 * lease / 1000)
            began = asyncio.get_running_loop().time()
            assert await stubborn(lambda: worker.settle(*map(end, leases))) == [True] * 5
            assert asyncio.get_running_loop().time() - began < HEALED
            await asyncio.sleep(lease / 1000)
            assert not (await worker.beat(lease)).lost
        assert reclaimed == []
        left = await run_all(worker)
        assert len(left) in (5, 6)  # the submit that got no answer may have been done
        assert max(row.deaths for row in await engine.get([one.id for one in jobs(10)]) if row) == 0


async def test_no_server_at_enqueue() -> None:
    timeout = 0.5
    for url in (f"redis://127.0.0.1:{services.free_port()}/0", "redis://no-such-host.invalid/0"):
        srv = Server(url, timeout=timeout)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(EngineUnavailable) as refusal:
            await srv.enqueue(Job("t", b"", id="once", queue="q"))
        assert loop.time() - began < timeout + 0.5
        assert refusal.value.ids == ("once",)


async def test_a_server_that_starts_late_is_waited_for() -> None:
    with services.servers(()) as (server,):
        engine = engine_on(server.url, timeout=10.0)
        task = asyncio.create_task(engine.submit(jobs(1)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        await task
        assert await engine.get(["00000"]) != [None]
        await engine.close()


# -- connections that are cut -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut_server() -> Iterator[services.Server]:
    with services.server() as one:
        yield one


async def _sizes(proxy: Proxy, call: Callable[[], Awaitable[object]]) -> int:
    before = proxy.sent
    await call()
    return proxy.sent - before


@pytest.mark.parametrize("what", ["enqueue", "claim", "settle"])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_connection_cut_at_every_8th_byte(cut_server: services.Server, what: str, way: str) -> None:
    """The engine repeats the call by itself; one job for each id, one claim for each number, one finish for each
    attempt.
    """
    with Proxy(cut_server.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0", timeout=5.0) as engine:
            worker = await worker_on(engine)
            n = 0

            async def step(cut: int | None) -> None:
                nonlocal n
                n += 1
                records = [Record(f"{n}-{i}", "q", "t", b"spec") for i in range(2)]
                calls: list[tuple[str, Callable[[], Awaitable[object]]]] = []
                leases: list[object] = []

                async def claim() -> None:
                    leases.extend(await worker.claim(5))

                async def settle() -> None:
                    assert await engine.settle("w", [end(lease, result=b"saved", ttl=DAY) for lease in leases]) == [
                        True,
                        True,
                    ]  # type: ignore[arg-type]

                calls = [("enqueue", lambda: engine.submit(records)), ("claim", claim), ("settle", settle)]
                for name, call in calls:
                    if name == what and cut is not None:
                        proxy.cut_after(**{way: cut})
                    await call()
                assert [lease.id for lease in leases] == [record.id for record in records]  # type: ignore[attr-defined]

            await step(None)
            size = 600 if way == "up" else 400
            for cut in range(1, size, 8):
                await step(cut)
            assert proxy.cuts > 20
            assert (await engine.counts()).ended[State.SUCCESSFUL] == 2 * n
            assert (await engine.counts()).queues == {}
            assert [row.held for row in await engine.workers()] == [0]


async def test_the_reply_of_a_claim_is_swallowed_and_the_worker_lives(cut_server: services.Server) -> None:
    with Proxy(cut_server.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0", timeout=5.0) as engine:
            worker = await worker_on(engine)
            await worker.claim()
            await engine.submit(jobs(10))
            proxy.swallow_reply()
            assert len(await worker.claim(4)) == 4
            assert proxy.cuts == 1
            assert [row.held for row in await engine.workers()] == [4]


@pytest.mark.parametrize("verb", ["cancel", "reopen", "delete", "retire", "prune"])
async def test_what_would_answer_differently_the_second_time_is_not_repeated(
    cut_server: services.Server, verb: str
) -> None:
    with Proxy(cut_server.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0", timeout=1.0) as engine:
            worker = await worker_on(engine)
            await engine.submit(jobs(2))
            (lease,) = await worker.claim(1)
            await worker.settle(end(lease, State.FAILED))
            row = (await engine.get([lease.id]))[0]
            assert row is not None
            again = {
                "cancel": lambda: engine.cancel(["00001"], None),
                "reopen": lambda: engine.reopen(lease.id, row.ended_at or 0, b""),
                "delete": lambda: engine.delete([lease.id]),
                "retire": lambda: engine.retire("w"),
                "prune": engine.prune,
            }[verb]
            proxy.swallow_reply()
            with pytest.raises(EngineUnavailable, match="done or not"):
                await again()
            proxy.cut()
            await asyncio.sleep(0.02)
            await again()  # a stale connection is no reason to give up


async def test_beats_and_leases_outlive_a_cut(cut_server: services.Server) -> None:
    with Proxy(cut_server.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0", timeout=2.0) as engine:
            worker = await worker_on(engine)
            await worker.claim()
            for _ in range(5):
                proxy.cut()
                assert not (await worker.beat(LONG)).lost
                await engine.submit(jobs(1))
            assert len(await run_all(worker)) == 1
