"""Words for the tests of the Redis engine: engines on a server, and what its keyspace and its counters say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import redis
from tests import services

from tasqueue.clock import SYSTEM
from tasqueue.core.record import Lease, Record
from tasqueue.core.status import State
from tasqueue.engines import connect
from tasqueue.engines.redis import RedisEngine
from tasqueue.testing.conformance.harness import LONG, Worker, end

DAY = 86_400_000


def engine_on(url: str, namespace: str = "tasqueue", timeout: float = 2.0) -> RedisEngine:
    engine = connect(url, namespace=namespace, timeout=timeout, ports=SYSTEM)
    assert isinstance(engine, RedisEngine)
    return engine


@contextlib.asynccontextmanager
async def opened(url: str, namespace: str = "", timeout: float = 2.0) -> AsyncIterator[RedisEngine]:
    """An open engine, in a namespace of its own unless one is named."""
    engine = engine_on(url, namespace or f"test-{uuid4().hex}", timeout)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


async def worker_on(engine: RedisEngine, name: str = "w", lease: int = LONG) -> Worker:
    await engine.register(name, lease, b"", {}, 1)
    return Worker(name, engine)


def jobs(n: int, prefix: str = "") -> list[Record]:
    return [Record(f"{prefix}{i:05}", "q", "t", b"spec") for i in range(n)]


async def run_all(worker: Worker, batch: int = 50, ttl: int | None = DAY) -> list[str]:
    """Claim and end until there is nothing more; the ids, in order."""
    done: list[str] = []
    while leases := await worker.claim(batch):
        assert all(await worker.settle(*(end(lease, result=b"saved", ttl=ttl) for lease in leases)))
        done += [lease.id for lease in leases]
    return done


async def states(engine: RedisEngine, ids: Sequence[str]) -> set[State | None]:
    return {None if row is None else row.state for row in await engine.get(ids)}


def ended(leases: Sequence[Lease]) -> list[object]:
    return [end(lease, result=b"saved", ttl=DAY) for lease in leases]


def admin(server: services.Server) -> redis.Redis:
    """A plain client, for the test itself."""
    return redis.Redis(port=server.port, protocol=2, socket_timeout=5)


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was called so far, those inside scripts included."""
    return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in client.info("commandstats").items()}


async def until(condition: object, seconds: float = 10.0) -> None:
    """Until a condition (a function, of which an awaitable may come) holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        got = condition()  # type: ignore[operator]
        if asyncio.iscoroutine(got):
            got = await got
        if got:
            return
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.01)
