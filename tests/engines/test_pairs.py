"""Pairs by URL: how they come about, what they do when a half is away or full, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests import services
from tests.engines.halves_world import half, ids, put, taken, until
from tests.engines.redis_world import admin
from tests.engines.test_redis_topologies import acl_lines
from tests.proxy import Proxy
from tests.runtime.helpers import working

from tasqueue import Chain, Group, Job, JobCtx, NotFound, Server
from tasqueue.clock import SYSTEM
from tasqueue.engines import connect_pair
from tasqueue.engines.memory import MemoryEngine
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults
from tasqueue.engines.redis import RedisBroker, RedisEngine, RedisResults
from tasqueue.engines.split import SplitEngine
from tasqueue.engines.sqlite import SqliteBroker, SqliteResults
from tasqueue.errors import EngineUnavailable, InvalidJob, TasqueueError, Unsupported
from tasqueue.interfaces import Conflict, Engine

TIMEOUT = 0.4


@pytest.fixture(scope="module")
def server() -> Iterator[services.Server]:
    with services.server() as one:
        yield one


def pair(broker: Any, results: Any, namespace: str = "tasqueue", timeout: float = 2.0) -> Engine:
    return connect_pair(broker, results, namespace=namespace, timeout=timeout, ports=SYSTEM)


@contextlib.asynccontextmanager
async def opened(half: Any) -> AsyncIterator[Any]:
    await half.open()
    try:
        yield half
    finally:
        await half.close()


# -- how they come about ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "results", "kinds", "url"),
    [
        ("redis://h/0", "sqlite:///x.db", (RedisBroker, SqliteResults), "redis://h/0 + sqlite:///x.db"),
        ("sqlite:///x.db", "valkeys://h", (SqliteBroker, RedisResults), "sqlite:///x.db + valkeys://h"),
        ("redis://h/0", "redis://h/1", (RedisBroker, RedisResults), "redis://h/0 + redis://h/1"),
        ("sqlite:///a.db", "sqlite:///b.db", (SqliteBroker, SqliteResults), "sqlite:///a.db + sqlite:///b.db"),
        ("memory://", "redis://u:pw@h", (MemoryBroker, RedisResults), "MemoryBroker + redis://u:***@h"),
        (MemoryBroker(), "sqlite:///x.db", (MemoryBroker, SqliteResults), "MemoryBroker + sqlite:///x.db"),
        ("redis://:pw@h", MemoryResults(), (RedisBroker, MemoryResults), "redis://:***@h + MemoryResults"),
    ],
)
def test_each_half_is_a_url_or_an_object(broker: Any, results: Any, kinds: tuple[type, type], url: str) -> None:
    engine = pair(broker, results)
    assert isinstance(engine, SplitEngine)
    assert (type(engine._store.broker), type(engine._store.results)) == kinds
    assert engine.url == url
    assert repr(Server(broker=broker, results=results)) == f"Server({url!r})"


def test_one_url_for_both_is_the_engine_of_that_url() -> None:
    assert isinstance(pair("memory://x", "memory://x"), MemoryEngine)
    redis = pair("redis://h", "redis://h")
    assert isinstance(redis, RedisEngine)
    assert redis.capabilities.atomic_finish


@pytest.mark.parametrize(
    ("broker", "results", "error", "said"),
    [
        ("redis://:pw@h/x", "sqlite:///x.db", InvalidJob, "database 'x'"),
        ("sqlite:///x.db", "redis://:pw@a,b", InvalidJob, "sentinel"),
        ("sqlite:///x.db?wait=1", "redis://:pw@h", Unsupported, "'wait'"),
        ("redis://:pw@h", "sqlite://x.db", InvalidJob, "three slashes"),
        ("redis://:pw@h", "mysql://h", Unsupported, "mysql"),
        ("redis://:pw@h?namespace=a", "sqlite:///x.db?namespace=b", InvalidJob, "namespace=a .*namespace=b"),
        ("redis://:pw@h?namespace=", "sqlite:///x.db", InvalidJob, "empty namespace"),
        (MemoryResults(), "redis://:pw@h", InvalidJob, "broker=.* no enqueue, consume, extend, ack, release, get_pen"),
        ("redis://:pw@h", MemoryBroker(), InvalidJob, "results=.* no get, set, delete"),
    ],
)
def test_what_cannot_be_is_refused_at_once(broker: Any, results: Any, error: type[TasqueueError], said: str) -> None:
    with pytest.raises(error, match=said) as refusal:
        pair(broker, results)
    assert "pw" not in str(refusal.value)


async def test_a_pair_has_one_namespace_whoever_names_it(server: services.Server, tmp_path: Path) -> None:
    redis, sqlite = server.url, f"sqlite:///{tmp_path}/r.db"
    one = pair(f"{redis}?namespace=spaces", sqlite)
    other = pair(redis, f"{sqlite}?namespace=spaces", "overridden")
    third = pair(redis, sqlite, "another")
    async with Server(one) as a, Server(other) as b, Server(third) as c:
        await a.enqueue(Job("t", id="x"))
        assert ids_of(await b.get_pending()) == ["x"]
        assert ids_of(await c.get_pending()) == []


def ids_of(messages: Any) -> list[str]:
    return [message.meta.id for message in messages]


async def test_halves_in_memory_are_shared_by_name() -> None:
    async with (
        Server(broker="memory://named", results="memory://named2") as one,
        Server(broker="memory://named", results="memory://named2") as other,
        Server(broker="memory://", results="memory://named2", namespace="apart") as third,
    ):
        await one.enqueue(Job("t", id="a"))
        assert (await other.get_job("a")).meta.status == "queued"
        assert ids_of(await other.get_pending()) == ["a"]
        with pytest.raises(NotFound):
            await third.get_job("a")


# -- what they do -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["redis+sqlite", "sqlite+redis", "memory+redis"])
async def test_a_worker_on_a_pair(kinds: str, server: services.Server, tmp_path: Path) -> None:
    urls = {"redis": server.url, "sqlite": f"sqlite:///{tmp_path}/x.db", "memory": "memory://"}
    broker, _, results = kinds.partition("+")
    srv = Server(broker=urls[broker], results=urls[results], namespace=f"work-{uuid4().hex}")
    seen: list[str] = []

    async def note(payload: bytes, ctx: JobCtx) -> None:
        seen.append(payload.decode())
        ctx.save(payload + b"!")

    async def often(payload: bytes, ctx: JobCtx) -> None:
        if ctx.meta.retried < 2:
            raise ValueError(payload)
        ctx.save(b"at last")

    srv.register_task("note", note)
    srv.register_task("often", often, max_retries=3, backoff=0.05)
    async with srv, working(srv):
        job = await srv.enqueue(Job("often", b"x"))
        chain = await srv.enqueue_chain(Chain([Job("note", b"1"), Job("note", b"2"), Job("note", b"3")]))
        group = await srv.enqueue_group(Group([Job("note", b"g")] * 5, on_success=Job("note", b"all")))
        assert (await srv.wait_chain(chain, 10)).status == "successful"
        assert (await srv.wait_group(group, 10)).status == "successful"
        assert (await srv.wait(job, 10)).meta.retried == 2
        assert await srv.get_result(job) == b"at last"
        assert (await srv.wait(f"{group}~s0", 10)).meta.status == "successful"
    assert [one for one in seen if one in "123"] == ["1", "2", "3"]
    assert seen.count("g") == 5


async def test_what_a_dead_process_held_is_offered_when_its_lease_ends(server: services.Server, tmp_path: Path) -> None:
    """A sleeping worker is woken for it, though nobody tells it of the end of a lease."""
    urls = server.url, f"sqlite:///{tmp_path}/x.db"
    dead, living = pair(*urls, "dies"), pair(*urls, "dies")
    async with opened(dead), opened(living):
        async with Server(pair(*urls, "dies")) as producer:
            await producer.enqueue(Job("t", id="a", queue="q"))
        for name, engine in (("dead", dead), ("living", living)):
            await engine.register(name, 300, b"", {}, 1)
        assert len((await dead.claim("dead", 1, {"q": 1})).leases) == 1
        number = 0

        async def claims() -> Any:
            nonlocal number
            number += 1
            await living.beat("living", 60_000, b"")
            found = (await living.claim("living", number, {"q": 1})).leases
            if not found:
                await living.wait(["q"], None)
            return found

        (lease,) = await until(claims, 5)
        assert (lease.id, lease.deaths, lease.died_with) == ("a", 1, "dead")
        assert number < 20, "it looked again and again instead of sleeping"


async def test_engine_broker_and_results_share_a_namespace(server: services.Server, tmp_path: Path) -> None:
    for url in (server.url, f"sqlite:///{tmp_path}/x.db"):
        namespace = f"all-{uuid4().hex}"
        async with (
            Server(url, namespace=namespace) as engine,
            opened(half("broker", url, namespace)) as broker,
            opened(half("results", url, namespace)) as results,
        ):
            await engine.enqueue(Job("t", id="a", queue="q"))
            await put(broker, "a", "b")
            await results.set("a", b"v", expect=None, ttl=None)
            await results.index_add("q", ["a"], 1)
            assert ids_of(await engine.get_pending("q")) == ["a"]
            assert ids(await taken(broker)) == ["a", "b"]
            assert (await results.get(["a"]))[0][0] == b"v"


async def test_a_drained_pair_leaves_nothing_but_what_it_knows(server: services.Server) -> None:
    client = admin(server)
    namespace = f"clean-{uuid4().hex}"
    async with (
        opened(half("broker", server.url, namespace)) as broker,
        opened(half("results", server.url, namespace)) as results,
    ):
        await put(broker, *(f"{i}" for i in range(50)), queue="q")
        await put(broker, "later", queue="q", due_at=await now_of(broker) + 20)
        await results.set("k", b"v", expect=None, ttl=0.02)
        await results.index_add("i", ["a", "b"], 1)
        await results.index_remove("i", ["a", "b"])
        assert all(key.startswith(f"{{{namespace}}}:".encode()) for key in client.keys(f"*{namespace}*"))
        async with asyncio.timeout(5):
            while (
                len(done := await taken(broker)) != 0
                or await broker.get_pending("q", 1, None)
                or client.exists(f"{{{namespace}}}:B:due:q")
            ):
                await broker.ack(done)
        await until(lambda: asyncio.to_thread(lambda: not client.exists(f"{{{namespace}}}:R:v:k")))
        left = {key.decode().removeprefix(f"{{{namespace}}}:") for key in client.keys(f"{{{namespace}}}:*")}
    assert left == {"B:seq", "R:seq"}


async def now_of(broker: Any) -> int:
    return int(1000 * await broker.now())


# -- a half that is away or full --------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", ["broker", "results"])
async def test_without_one_half_the_error_is_typed_in_time_and_shows_no_password(away: str, tmp_path: Path) -> None:
    gone, here = f"redis://me:s3cret@127.0.0.1:{services.free_port()}/0", f"sqlite:///{tmp_path}/x.db"
    srv = Server(broker=gone if away == "broker" else here, results=here if away == "broker" else gone, timeout=TIMEOUT)
    start = asyncio.get_running_loop().time()
    with pytest.raises(EngineUnavailable) as refusal:
        await srv.enqueue(Job("t", id="a"))
    assert asyncio.get_running_loop().time() - start < TIMEOUT + 0.5
    assert "s3cret" not in repr(refusal.value)
    assert "me:***@127.0.0.1" in str(refusal.value)
    assert "s3cret" not in repr(srv)
    await srv.close()


async def test_a_wrong_password_is_said_and_not_shown(tmp_path: Path) -> None:
    with services.server("valkey", "--requirepass", "right-one") as server:
        for url in (server.url, server.url.replace("redis://", "redis://:wr0ng@")):
            for role in ("broker", "results"):
                one = half(role, url)
                with pytest.raises(TasqueueError, match="password") as refusal:
                    await one.open()
                await one.close()
                assert "wr0ng" not in repr(refusal.value)
        async with opened(half("broker", server.url.replace("redis://", "redis://:right-one@"))) as broker:
            await put(broker, "a")
            assert "right-one" not in str((await broker.durability()).findings)


async def test_a_half_works_again_when_its_server_does(server: services.Server) -> None:
    with Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        namespace = f"away-{uuid4().hex}"
        async with (
            opened(half("broker", url, namespace, TIMEOUT)) as broker,
            opened(half("results", url, namespace, TIMEOUT)) as results,
        ):
            await put(broker, "a")
            revision = await results.set("k", b"1", expect=None, ttl=None)
            with proxy.silent():
                answers = await asyncio.gather(
                    put(broker, "b"),
                    taken(broker),
                    results.set("k", b"2", expect=revision, ttl=None),
                    results.set("k2", b"2", expect=None, ttl=None),
                    results.get(["k"]),
                    results.index_add("i", ["a"], 1),
                    return_exceptions=True,
                )
                assert [type(one) for one in answers] == [EngineUnavailable] * 6
            await put(broker, "b")
            assert ids(await taken(broker)) == ["a", "b"]
            await results.set("k", b"2", expect=revision, ttl=None)


async def test_a_write_whose_answer_was_lost_is_known_again(server: services.Server) -> None:
    with Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        namespace = f"lost-{uuid4().hex}"
        async with (
            opened(half("broker", url, namespace)) as broker,
            opened(half("results", url, namespace)) as results,
        ):
            proxy.swallow_reply()
            revision = await results.set("k", b"1", expect=None, ttl=None)
            proxy.swallow_reply()
            revision = await results.set("k", b"2", expect=revision, ttl=60)
            assert (await results.get(["k"]))[0] == (b"2", revision)
            proxy.swallow_reply()
            await put(broker, "a", "b")
            assert ids(await broker.get_pending("q", 10, None)) == ["a", "b"]
            assert proxy.cuts == 3


async def test_a_writer_that_was_cancelled_holds_up_nobody(server: services.Server) -> None:
    with Proxy(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with opened(half("results", url, f"cancel-{uuid4().hex}")) as results:
            with proxy.silent():
                tasks = [asyncio.ensure_future(results.set(f"{i}", b"", expect=None, ttl=None)) for i in range(3)]
                await asyncio.wait(tasks, timeout=0.05)
                tasks[1].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await tasks[1]
            await asyncio.gather(tasks[0], tasks[2])


async def test_when_memory_is_full_nothing_new_is_taken_and_what_runs_can_end(server: services.Server) -> None:
    client = admin(server)
    namespace = f"full-{uuid4().hex}"
    async with (
        opened(half("broker", server.url, namespace, TIMEOUT)) as broker,
        opened(half("results", server.url, namespace, TIMEOUT)) as results,
    ):
        await put(broker, "a", "b", "c", "d")
        a, b = await taken(broker, 2)
        revision = await results.set("k", b"1", expect=None, ttl=None)
        try:
            client.config_set("maxmemory", "1mb")
            with pytest.raises(EngineUnavailable, match="memory"):
                await put(broker, "e")
            with pytest.raises(EngineUnavailable, match="memory"):
                await results.set("new", b"1", expect=None, ttl=None)
            await broker.extend([a, b], 60)
            await broker.ack([a])
            await broker.release([b])
            assert ids(await taken(broker, 2)) == ["b", "c"]
            await results.set("k", b"2", expect=revision, ttl=None)
        finally:
            client.config_set("maxmemory", "0")
        assert ids(await taken(broker)) == ["d"]
        await results.set("new", b"1", expect=None, ttl=None)


async def test_no_worker_starts_where_a_half_may_be_thrown_away(server: services.Server, tmp_path: Path) -> None:
    client = admin(server)
    sqlite = f"sqlite:///{tmp_path}/x.db"
    try:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        for urls in ((server.url, sqlite), (sqlite, server.url)):
            srv = Server(broker=urls[0], results=urls[1])
            async with srv:
                await srv.enqueue(Job("t"))
                with pytest.raises(Unsupported, match=r"allkeys-lru.*noeviction"):
                    await srv.start()
    finally:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")


async def test_what_the_settings_of_the_halves_promise(server: services.Server, tmp_path: Path) -> None:
    engine = pair(server.url, f"sqlite:///{tmp_path}/x.db")
    async with opened(engine):
        found = await engine.durability()
        assert found.level == "os-crash"  # the server keeps no file
        names = {finding.name for finding in found.findings}
        assert {"broker: appendonly", "broker: maxmemory", "results: synchronous", "results: file"} <= names


async def test_writes_that_meet_share_a_round_trip(server: services.Server) -> None:
    client = admin(server)

    def scripts() -> int:
        stats = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))

    async with opened(half("results", server.url, f"meet-{uuid4().hex}")) as results:
        await results.set("first", b"", expect=None, ttl=None)
        before = scripts()
        outcomes = await asyncio.gather(
            *(results.set(f"{i % 250}", b"v", expect=None, ttl=None) for i in range(500)), return_exceptions=True
        )
        assert scripts() - before == 1
        assert [type(one) for one in outcomes] == [bytes] * 250 + [Conflict] * 250


async def test_too_few_replicas_are_told_by_both_halves(server: services.Server) -> None:
    namespace = f"wait-{uuid4().hex}"
    admin(server).script_flush()  # a call that has to send its script waits for the replicas once, too
    engine = pair(f"{server.url}?wait=1", f"{server.url.removesuffix('0')}1?wait=1", namespace, 2.0)
    assert isinstance(engine, SplitEngine)
    broker, results = engine._store.broker, engine._store.results
    async with opened(engine):
        calls = put(broker, "a"), results.set("k", b"v", expect=None, ttl=None)
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, EngineUnavailable)
            assert re.search(r"stored, but 0 of 1 replica.*\?wait=", str(answer))
        assert ids(await taken(broker)) == ["a"]


async def test_the_users_of_the_documentation_serve_the_halves_too() -> None:
    with services.server() as server:
        client = admin(server)
        client.execute_command("ACL", "SETUSER", "worker", *acl_lines()["worker"])
        url = server.url.replace("redis://", "redis://worker:password@")
        async with opened(half("broker", url)) as broker, opened(half("results", url)) as results:
            await broker.check()
            await put(broker, "a", "b", due_at=await now_of(broker) + 30)
            await broker.wait(["q"], 5)
            a, b = await until(lambda: taken(broker))
            await broker.extend([a], 60)
            await broker.release([a])
            await broker.ack([b])
            assert ids(await broker.get_pending("q", 10, None)) == ["a"]
            revision = await results.set("k", b"v", expect=None, ttl=None)
            await results.set("k", b"w", expect=revision, ttl=60)
            await results.index_add("i", ["x", "y"], 1)
            await results.index_remove("i", ["x"])
            assert list(await results.index_page("i", 5, None)) == ["y"]
            await results.delete(["k"])
            assert list(await results.get(["k"])) == [None]
