"""Connections to a NATS server that are cut half way, replies that are lost, and no server at all (F9, F10)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from uuid import uuid4

import pytest
from tests import services
from tests.proxy import Proxy

from tasqueue import Job, Server
from tasqueue.clock import SYSTEM
from tasqueue.core.record import Lease, Record
from tasqueue.core.status import State
from tasqueue.engines import connect
from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import Engine
from tasqueue.testing.conformance.harness import LONG, Worker, end

pytestmark = pytest.mark.fault

DAY = 86_400_000


@pytest.fixture(scope="module")
def server() -> Iterator[services.NatsServer]:
    with services.nats() as one:
        yield one


@contextlib.asynccontextmanager
async def opened(proxy: Proxy) -> AsyncIterator[tuple[Engine, Worker]]:
    """An engine behind the proxy, in a namespace of its own, and a worker on it."""
    url = f"nats://127.0.0.1:{proxy.port}"
    engine = connect(url, namespace=f"test-{uuid4().hex}", timeout=5.0, ports=SYSTEM)
    await engine.open()
    try:
        await engine.register("w", LONG, b"", {}, 1)
        yield engine, Worker("w", engine)
    finally:
        await engine.close()


async def settled(engine: Engine, leases: list[Lease]) -> None:
    steps = [end(lease, result=b"saved", ttl=DAY) for lease in leases]
    assert await engine.settle("w", steps) == [True] * len(steps)


@pytest.mark.parametrize("what", ["enqueue", "claim", "settle"])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_connection_cut_at_every_8th_byte(server: services.NatsServer, what: str, way: str) -> None:
    """The engine repeats by itself what was lost: one job for each id, one claim for each number, one finish for each
    attempt. Each call is cut at every byte of its first 500 bytes in that direction that eight divides; a call is
    several requests here, and begins again with a new connection.
    """
    with Proxy(server.port) as proxy:
        async with opened(proxy) as (engine, worker):
            n = 0

            async def step(cut: int | None) -> None:
                nonlocal n
                n += 1
                records = [Record(f"{n}-{i}", "q", "t", b"spec") for i in range(2)]
                leases: list[Lease] = []

                async def claim() -> None:
                    leases.extend(await worker.claim(5))

                calls: dict[str, Callable[[], Awaitable[object]]] = {
                    "enqueue": lambda: engine.submit(records),
                    "claim": claim,
                    "settle": lambda: settled(engine, leases),
                }
                for name, call in calls.items():
                    if name == what and cut is not None:
                        proxy.cut_after(**{way: cut})
                    await call()
                assert [lease.id for lease in leases] == [record.id for record in records]

            await step(None)
            for cut in range(1, 500, 8):
                await step(cut)
            assert proxy.cuts > 30
            counts = await engine.counts()
            assert (counts.ended[State.SUCCESSFUL], counts.queues) == (2 * n, {})
            assert await worker.claim() == []
            assert [row.held for row in await engine.workers()] == [0]


async def test_a_reply_that_is_swallowed_strands_nothing(server: services.NatsServer) -> None:
    """Whichever it is of the replies to a call; the worker lives, so no lease ends."""
    with Proxy(server.port) as proxy:
        async with opened(proxy) as (engine, worker):
            await worker.claim()
            for n in range(10):
                ids = [f"{n}-{i}" for i in range(3)]
                proxy.swallow_reply()
                await engine.submit([Record(id, "q", "t", b"spec") for id in ids])
                proxy.swallow_reply()
                leases = await worker.claim(5)
                assert [lease.id for lease in leases] == ids
                proxy.swallow_reply()
                await settled(engine, leases)
            assert proxy.cuts == 30
            assert (await engine.counts()).ended[State.SUCCESSFUL] == 30


async def test_no_server_at_enqueue() -> None:
    timeout = 0.5
    loop = asyncio.get_running_loop()
    for url in (f"nats://127.0.0.1:{services.free_port()}", "nats://no-such-host.invalid"):
        srv = Server(url, timeout=timeout)
        began = loop.time()
        with pytest.raises(EngineUnavailable) as refusal:
            await srv.enqueue(Job("t", b"", id="once", queue="q"))
        assert loop.time() - began < timeout + 0.5
        assert refusal.value.ids == ("once",)
        await srv.close()
