"""Servers that are killed and started again (F7), frozen or black-holed (F8), or forget their scripts (F11), under
worker processes that go on: what is accepted is done, once, and nobody who lives loses a job.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
from tests import services
from tests.proxy import Proxy

from tasqueue import EngineUnavailable, Server

from .fleet import Fleet, Process, job
from .history import Verdict, judge
from .stores import Where, on_servers_of_its_own

pytestmark = [pytest.mark.fault, pytest.mark.slow]

HEALED = 5.0
"""Seconds after which all works again."""


async def healed(fleet: Fleet, srv: Server, id: str) -> float:
    """Seconds until a new job is accepted and its handler entered, and whoever produced before is heard again."""
    began = time.monotonic()
    accepted, _ = fleet.produced()
    while True:
        try:
            await srv.enqueue(job("work", id))
            break
        except EngineUnavailable:
            await asyncio.sleep(0.02)
    await fleet.until(lambda: fleet.history().of(id), "it does not start")
    await fleet.until(lambda: len(fleet.produced()[0]) > len(accepted), "nothing more is accepted from others")
    return time.monotonic() - began


async def all_done(fleet: Fleet, srv: Server, ids: Collection[str], processes: Collection[Process]) -> Verdict:
    """Each once, by workers that live and never lost their lease."""
    await fleet.all_successful(srv, ids)
    verdict = judge(fleet.history(), ids, fleet.kills, fleet.produced()[1])
    verdict.check()
    assert verdict.extra == []
    for id in ids:
        assert (await srv.get_job(id)).meta.deaths == 0
    for process in processes:
        assert process.code is None
        assert "going on under a new name" not in process.log
        assert "lease ended" not in process.log
    return verdict


@on_servers_of_its_own
@pytest.mark.timeout(120)
async def test_a_server_killed_in_mid_drain_and_started_again(fleet: Fleet) -> None:
    """At once, after a second, and after more than a lease and a call's timeout. Jobs run through all of it."""
    lease = 3.0
    fleet.settings.update(lease=lease, timeout=2.0)
    srv = fleet.server()
    workers = [fleet.supervised(2, default_concurrency=10), fleet.worker(default_concurrency=10)]
    producer = fleet.producer("stream", 200)
    ids: list[str] = []
    took: list[float] = []
    for k, away in enumerate((0.0, 1.0, lease + 0.5)):
        done = fleet.history().done()
        await fleet.until(lambda done=done: fleet.history().done() > done + 300, "nothing is done")
        lasting = {f"long{k}-{i}": away + 0.5 if i % 2 else 0.7 for i in range(6)}  # half of them end meanwhile
        ids += await srv.enqueue_many([job("thread", id, s=seconds) for id, seconds in lasting.items()])
        await fleet.until(lambda ids=lasting: all(map(fleet.history().of, ids)), "they do not start")
        for server in fleet.store.servers:
            await asyncio.to_thread(server.kill)
        await asyncio.sleep(away)
        for server in fleet.store.servers:
            await asyncio.to_thread(server.start)
        took.append(await healed(fleet, srv, f"after{k}"))
        ids.append(f"after{k}")
    await fleet.kill(producer.pid)
    verdict = await all_done(fleet, srv, {*ids, *fleet.produced()[0]}, workers)
    print(f"F7: {verdict}; working again after {', '.join(f'{one:.2f}' for one in took)} s")
    assert verdict.accepted > 1_000
    assert max(took) < HEALED


@contextmanager
def proxies(fleet: Fleet) -> Iterator[list[Proxy]]:
    """Within it, every Server of the fleet that is made speaks through one."""
    with ExitStack() as stack:
        found: list[Proxy] = []
        for server in fleet.store.servers:
            proxy = stack.enter_context(Proxy(server.port))
            for role in ("broker", "results"):
                fleet.settings[role] = fleet.settings[role].replace(f":{server.port}", f":{proxy.port}")
            found.append(proxy)
        yield found


@on_servers_of_its_own
@pytest.mark.timeout(120)
async def test_a_server_silent_for_three_leases(fleet: Fleet) -> None:
    """Once frozen, so that it does later what it was asked meanwhile, once with everything lost on the way."""
    lease = fleet.settings["lease"] = 1.5
    with proxies(fleet) as ways:
        srv = fleet.server()
        hasty = fleet.server(timeout=1.0)
        workers = [fleet.supervised(2, default_concurrency=10), fleet.worker(default_concurrency=10)]
        producer = fleet.producer("stream", 200)
        ids: list[str] = []
        took: list[float] = []
        timeouts: list[float] = []
        for k, silences in enumerate(([s.frozen for s in fleet.store.servers], [way.silent for way in ways])):
            ids += await srv.enqueue_many([job("thread", f"long{k}-{i}", s=3 * lease + 0.5) for i in range(6)])
            await hasty.get_job(ids[0])
            done = fleet.history().done()
            await fleet.until(
                lambda k=k, done=done: fleet.history().done() > done + 200 and fleet.history().of(f"long{k}-5"),
                "nothing is done",
            )
            with ExitStack() as stack:
                for silence in silences:
                    stack.enter_context(silence())
                over = time.monotonic() + 3 * lease
                for call in (lambda k=k: hasty.enqueue(job("work", f"lost{k}")), lambda: hasty.get_job("long0-0")):
                    began = time.monotonic()
                    with pytest.raises(EngineUnavailable, match=r"no answer within (1|0\.9) s"):
                        await call()
                    timeouts.append(time.monotonic() - began)
                await asyncio.sleep(over - time.monotonic())
            took.append(await healed(fleet, srv, f"after{k}"))
            ids.append(f"after{k}")
            ids.append(await srv.enqueue(job("work", f"lost{k}")))
        await fleet.kill(producer.pid)
        verdict = await all_done(fleet, srv, {*ids, *fleet.produced()[0]}, workers)
        print(
            f"F8: {verdict}; working again after {', '.join(f'{one:.2f}' for one in took)} s,"
            f" EngineUnavailable after {max(timeouts):.2f} s at the most, timeout 1 s"
        )
        assert verdict.accepted > 500
        assert max(took) < HEALED
        assert min(timeouts) >= 0.85
        assert max(timeouts) < 1.5
        await fleet.close()


@asynccontextmanager
async def forgetting(fleet: Fleet) -> AsyncIterator[None]:
    """Within it, the server forgets its scripts ten times a second."""

    async def forget() -> None:
        while True:
            for server in fleet.store.servers:
                assert isinstance(server, services.Server)
                assert await asyncio.to_thread(server.ask, "SCRIPT", "FLUSH") == b"+OK\r\n"
            await asyncio.sleep(0.1)

    task = asyncio.create_task(forget())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled(), task.exception()


@pytest.mark.parametrize("fleet", [Where("redis", own=True)], ids=["redis"], indirect=True)
async def test_scripts_are_forgotten_every_100_ms(fleet: Fleet) -> None:
    srv = fleet.server()
    workers = [fleet.supervised(2, default_concurrency=5), fleet.worker(default_concurrency=5)]
    async with forgetting(fleet):
        began = time.monotonic()
        producer = fleet.producer("stream", 100)
        await fleet.until(lambda: fleet.history().done() > 2_000, "it does not go on")
        took = time.monotonic() - began
        await fleet.kill(producer.pid)
        verdict = await all_done(fleet, srv, fleet.produced()[0], workers)
    (server,) = fleet.store.servers
    assert isinstance(server, services.Server)
    said = re.search(rb"errorstat_NOSCRIPT:count=(\d+)", server.ask("INFO", "errorstats"))
    forgotten = int(said[1]) if said else 0
    print(f"F11: {verdict}, {took:.1f} s for 2,000 jobs; a script was unknown {forgotten} times")
    assert forgotten > 10
