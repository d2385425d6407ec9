"""Sentinel, Cluster, replicas, ACL users and TLS, each with real servers of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme
from tests import services
from tests.engines.redis_world import admin, engine_on, jobs, opened, run_all, until, worker_on
from tests.proxy import Proxy

from tasqueue.core.record import Record, Schedule
from tasqueue.core.status import State
from tasqueue.engines.redis import ServerUnusable
from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import Filter
from tasqueue.testing.conformance.harness import LONG, end

pytestmark = pytest.mark.fault


@contextlib.contextmanager
def replicated() -> Iterator[tuple[services.Server, services.Server]]:
    """A master and a replica of it that has caught up."""
    with services.servers(("--repl-diskless-sync-delay", 0), ("--repl-diskless-sync-delay", 0)) as (master, replica):
        master.start()
        replica.start()
        admin(replica).replicaof("127.0.0.1", master.port)
        _until(lambda: admin(replica).info("replication").get("master_link_status") == "up")
        yield master, replica


def _until(condition: object, seconds: float = 20.0) -> None:
    asyncio.run(until(condition, seconds))


# -- Sentinel ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched() -> Iterator[tuple[services.Server, services.Server, services.Server]]:
    """The same, and a sentinel that calls the master `boss`."""
    with replicated() as (master, replica), services.folder() as path:
        settings = (
            f"sentinel monitor boss 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds boss 300",
            "sentinel failover-timeout boss 3000",
        )
        sentinel = services.Server(services.need("valkey"), path, *settings, sentinel=True)
        try:
            sentinel.start()
            _until(lambda: str(replica.port) in str(sentinel.ask("SENTINEL", "REPLICAS", "boss")))
            yield master, replica, sentinel
        finally:
            sentinel.stop()


def test_a_failover_is_followed() -> None:
    with watched() as (master, replica, sentinel):
        url = f"redis://127.0.0.1:{services.free_port()},127.0.0.1:{sentinel.port}/0?sentinel=boss"

        async def go() -> None:
            async with opened(url, "sentinel", timeout=2.0) as engine:
                worker = await worker_on(engine)
                await engine.submit(jobs(20))
                (first, *_) = await worker.claim(5)
                # Acknowledged writes may be lost in a failover; these were replicated.
                await until(lambda: admin(replica).exists("{sentinel}:r:00019") == 1)
                await until(lambda: admin(replica).hlen("{sentinel}:run:w") == 6)
                sleeper = asyncio.create_task(engine.wait(["other"], None))
                await asyncio.to_thread(master.kill)
                loop = asyncio.get_running_loop()
                began = loop.time()
                while True:
                    try:
                        assert await worker.settle(end(first)) == [True]
                        break
                    except EngineUnavailable:
                        assert loop.time() - began < 20
                assert admin(replica).info("replication")["role"] == "master"
                await asyncio.wait_for(sleeper, 10)
                await worker.claim(1, "other")
                sleeper = asyncio.create_task(engine.wait(["other"], None))
                await asyncio.sleep(0.3)
                await engine.submit([Record("new", "other", "t", b"")])
                await asyncio.wait_for(sleeper, 2)
                assert len(await run_all(worker)) == 15
                # The old master comes back as a replica; nobody is led astray.
                await asyncio.to_thread(master.start)
                await until(lambda: admin(master).info("replication")["role"] == "slave", 20)
                await engine.submit(jobs(1, "again"))
                assert await run_all(worker) == ["again00000"]

        asyncio.run(go())


def test_a_master_that_no_sentinel_knows() -> None:
    with watched() as (_, _, sentinel):

        async def go() -> None:
            engine = engine_on(f"redis://127.0.0.1:{sentinel.port}/0?sentinel=nobody", timeout=0.4)
            with pytest.raises(EngineUnavailable, match="nobody"):
                await engine.open()
            await engine.close()

        asyncio.run(go())


# -- Cluster ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[services.Server]]:
    """Three nodes, all slots covered."""
    settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", 2000)
    with services.servers(settings, settings, settings) as nodes:
        for node in nodes:
            # The bus listens on port + 10,000 unless told otherwise.
            node._settings = (*node._settings, "--cluster-port", services.free_port())
            node.start()
        bounds = [0, 5461, 10923, 16384]
        for i, node in enumerate(nodes):
            admin(node).execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
        bus = [int(str(node._settings[-1])) for node in nodes]
        for i in (1, 2):
            admin(nodes[0]).execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[i].port, bus[i])
        _until(lambda: all("cluster_state:ok" in str(node.ask("CLUSTER", "INFO")) for node in nodes))
        _until(lambda: all(len(_slots(node)) == 3 for node in nodes))
        yield nodes


def _slots(node: services.Server) -> list[object]:
    return list(redis.Redis(port=node.port, protocol=2).execute_command("CLUSTER", "SLOTS"))


@pytest.mark.parametrize("namespace", ["one", "two", "three", "four"])
async def test_every_namespace_finds_its_node(cluster: list[services.Server], namespace: str) -> None:
    url = f"redis://127.0.0.1:{cluster[0].port},127.0.0.1:{cluster[1].port}/?cluster=1"
    async with opened(url, namespace) as engine:
        worker = await worker_on(engine)
        await worker.claim()
        sleeper = asyncio.create_task(engine.wait(["q"], None))
        await asyncio.sleep(0.05)
        await engine.submit(jobs(50))
        await asyncio.wait_for(sleeper, 2)
        assert len(await run_all(worker)) == 50
        assert (await engine.counts()).ended[State.SUCCESSFUL] == 50
        holders = [node for node in cluster if admin(node).keys(f"{{{namespace}}}:*")]
        assert len(holders) == 1


async def test_a_slot_that_moves_is_followed(cluster: list[services.Server]) -> None:
    url = f"redis://127.0.0.1:{cluster[0].port}/?cluster=1"
    async with opened(url, "moves", timeout=5.0) as engine:
        worker = await worker_on(engine)
        await engine.submit(jobs(10))
        source = next(node for node in cluster if admin(node).keys("{moves}:*"))
        target = next(node for node in cluster if node is not source)
        slot = admin(source).execute_command("CLUSTER", "KEYSLOT", "{moves}:")
        target_id = admin(target).execute_command("CLUSTER", "MYID")
        source_id = admin(source).execute_command("CLUSTER", "MYID")
        admin(target).execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        admin(source).execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        for key in admin(source).keys("{moves}:*"):
            admin(source).execute_command("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
        for node in (target, source):
            admin(node).execute_command("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        assert len(await run_all(worker)) == 10
        assert admin(target).keys("{moves}:*")


# -- replicas that must have it ---------------------------------------------------------------------------------------


def test_wait_counts_replicas() -> None:
    with replicated() as (master, replica):

        async def go() -> None:
            async with opened(master.url + "?wait=1", "wait", timeout=1.0) as engine:
                worker = await worker_on(engine)
                await engine.submit(jobs(5))
                assert admin(replica).exists("{wait}:r:00004") == 1
                (first, *rest) = await worker.claim(5)
                assert await worker.settle(end(first)) == [True]
                with replica.frozen():
                    with pytest.raises(EngineUnavailable, match="replica") as refusal:
                        await engine.submit([Record("unsure", "q", "t", b"")])
                    assert refusal.value.ids == ("unsure",)
                    with pytest.raises(EngineUnavailable, match="replica"):
                        await worker.settle(*map(end, rest))
                    # Said again while the replica is still away, on whatever connection: not taken for confirmed.
                    with pytest.raises(EngineUnavailable, match="replica"):
                        await worker.settle(*map(end, rest))
                assert await worker.settle(*map(end, rest)) == [True] * 4
                await engine.submit([Record("unsure", "q", "t", b"")])
                assert await run_all(worker) == ["unsure"]
                durability = await engine.durability()
                assert "waits for 1 replica" in durability.promise

        asyncio.run(go())


# -- ACL --------------------------------------------------------------------------------------------------------------

_DOCS = Path(__file__).parents[2] / "docs" / "engines" / "redis.md"


def acl_lines() -> dict[str, list[str]]:
    """The users as the documentation shows them: `ACL SETUSER name …`."""
    users: dict[str, list[str]] = {}
    for line in _DOCS.read_text("utf-8").replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:2] == ["ACL", "SETUSER"]:
            users[words[2]] = words[3:]
    return users


@pytest.fixture(scope="module")
def guarded() -> Iterator[services.Server]:
    """A server with the users of the documentation, and none without a password."""
    with services.server() as server:
        client = admin(server)
        for name, rules in acl_lines().items():
            client.execute_command("ACL", "SETUSER", name, *rules)
        client.execute_command("CONFIG", "SET", "requirepass", "secret")
        yield server


def as_user(server: services.Server, name: str) -> str:
    return server.url.replace("redis://", f"redis://{name}:password@")


async def test_the_users_of_the_documentation(guarded: services.Server) -> None:
    assert set(acl_lines()) == {"producer", "worker", "viewer"}
    space = "tasqueue"
    async with (
        opened(as_user(guarded, "producer"), space) as producer,
        opened(as_user(guarded, "worker"), space) as working,
        opened(as_user(guarded, "viewer"), space) as viewer,
    ):
        await producer.submit(jobs(3))
        worker = await worker_on(working)
        await producer.cancel(["00002"], None)
        leases = await worker.claim(1)
        waiting = asyncio.create_task(producer.watch([("job", leases[0].id)], None))
        await asyncio.sleep(0.05)
        await worker.beat(LONG, progress=[(leases[0].id, 1, b"progress")])
        assert (await viewer.get([leases[0].id]))[0].progress == b"progress"  # type: ignore[union-attr]
        assert await worker.settle(end(leases[0])) == [True]
        await asyncio.wait_for(waiting, 2)
        await worker.claim(1)
        await worker.claim(1)
        sleeper = asyncio.create_task(working.wait(["q"], None))
        await asyncio.sleep(0.05)
        await producer.submit(jobs(1, "x"))
        await asyncio.wait_for(sleeper, 2)
        await producer.put_schedule(Schedule("s", "@hourly", "t", "q", 0, b"job", anchor=0, next_at=1))
        await working.promote()
        await working.reclaim()
        await working.prune()
        await working.durability()

        assert len(await viewer.jobs(Filter(), 10, None)) == 4
        await viewer.counts()
        await viewer.workers()
        await viewer.paused()
        await viewer.tasks()
        await viewer.schedules()
        await viewer.pending("q", 10, None)
        assert await viewer.ended(State.SUCCESSFUL, 10, None) == ["00000"]
        await viewer.durability()
        for forbidden in (
            lambda: viewer.submit(jobs(1, "y")),
            lambda: viewer.cancel(["x00000"], None),
            lambda: viewer.pause("q", "", ""),
            viewer.prune,
        ):
            with pytest.raises(ServerUnusable, match="may not"):
                await forbidden()
        assert await viewer.get(["y00000"]) == [None]

    for name in ("producer", "worker", "viewer"):
        async with opened(as_user(guarded, name), "another") as stranger:
            with pytest.raises(ServerUnusable, match="may not"):
                await stranger.counts()


async def test_without_a_password_it_says_that_one_is_wanted(guarded: services.Server) -> None:
    engine = engine_on(guarded.url)
    with pytest.raises(ServerUnusable, match="password"):
        await engine.open()
    await engine.close()


# -- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with services.server() as server, Proxy(server.port, tls=context) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs="
        async with opened(f"{url}{tmp_path}/ca.pem") as engine:
            worker = await worker_on(engine)
            await worker.claim()
            sleeper = asyncio.create_task(engine.wait(["q"], None))
            await asyncio.sleep(0.05)
            await engine.submit(jobs(5))
            await asyncio.wait_for(sleeper, 2)
            assert len(await run_all(worker)) == 5
        for wrong in (f"{url}{tmp_path}/stranger.pem", f"rediss://127.0.0.1:{proxy.port}/0"):
            engine = engine_on(wrong, timeout=1.0)
            with pytest.raises(ServerUnusable, match="certificate"):
                await engine.open()
            await engine.close()
