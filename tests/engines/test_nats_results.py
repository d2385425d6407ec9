"""The results on a real NATS server: what the tests of all halves ask, and what is particular to these."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio
from tests import services
from tests.engines.halves_world import until
from tests.engines.test_pairs_halves import (  # noqa: F401  # collected here, on the `world` below
    test_an_index_is_newest_first_and_of_one_time_the_last_entered,
    test_hostile_keys_indexes_and_values,
    test_of_many_writers_at_once_none_is_lost,
    test_set_is_a_compare_and_set,
    test_what_has_expired_is_not_there,
)
from tests.proxy import Proxy

from tasqueue import DEFAULT_QUEUE, Chain, Job, JobCtx, Server, Status
from tasqueue.clock import SYSTEM
from tasqueue.engines import nats
from tasqueue.engines.nats.connection import Connection
from tasqueue.errors import EngineUnavailable
from tasqueue.interfaces import Conflict, Message


class World:
    """One fresh namespace on a server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.namespace = f"test.{uuid4().hex}"
        self._open: list[nats.NatsResults] = []

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    async def results(self, *, port: int = 0, timeout: float = 5.0, **options: str) -> nats.NatsResults:
        """Another object on the same store; through another port if one is named."""
        url = f"nats://127.0.0.1:{port}" if port else self.url
        one = nats.results(urlsplit(url), options, **common(url, self.namespace, timeout))
        await one.open()
        self._open.append(one)
        return one

    async def advance(self, seconds: float) -> None:
        """The server expires by whole seconds."""
        await asyncio.sleep(int(seconds) + 1.2)

    async def close(self) -> None:
        for one in self._open:
            await one.close()


def common(url: str, namespace: str = "three", timeout: float = 5.0) -> Any:
    """What every half is made with."""
    return {"shown": url, "namespace": namespace, "timeout": timeout, "ports": SYSTEM}


def connection(results: nats.NatsResults) -> Connection:
    return results._connection


async def kept(results: nats.NatsResults, kind: str) -> int:
    """Subjects in use: `k` values, `i` members, `c`, `f` and `h` what leads to them."""
    return len((await results._names([f"{results._root}.{kind}.>"]))[0])


@pytest.fixture(scope="module")
def server() -> Iterator[services.NatsServer]:
    with services.nats() as one:
        yield one


@pytest_asyncio.fixture
async def world(server: services.NatsServer) -> AsyncIterator[World]:
    one = World(server.port)
    yield one
    await one.close()


@pytest.fixture
def proxy(server: services.NatsServer) -> Iterator[Proxy]:
    with Proxy(server.port) as one:
        yield one


# -- values -----------------------------------------------------------------------------------------------------------


async def test_a_ttl_is_rounded_up_to_whole_seconds_and_never_cut(world: World) -> None:
    results = await world.results()

    async def gone(key: str) -> bool:
        return (await results.get([key]))[0] is None

    begin = SYSTEM.mono()
    await results.set("short", b"", expect=None, ttl=0.001)
    await results.set("long", b"", expect=None, ttl=1.5)
    await results.set("for ever", b"", expect=None, ttl=1e12)
    await until(lambda: gone("short"))
    assert SYSTEM.mono() - begin >= 1.0
    assert not await gone("long")
    await until(lambda: gone("long"))
    assert SYSTEM.mono() - begin >= 2.0
    assert not await gone("for ever")


async def test_many_at_once_in_one_flight(world: World) -> None:
    results = await world.results()
    keys = [f"key {i}" for i in range(1_200)]
    revisions = await asyncio.gather(*(results.set(key, key.encode(), expect=None, ttl=None) for key in keys))
    client = (await connection(results).session()).client
    before = client.stats["out_msgs"]
    found = await results.get(["absent", *keys])
    assert client.stats["out_msgs"] - before == 3
    assert found == [None, *((key.encode(), revision) for key, revision in zip(keys, revisions, strict=True))]
    await results.delete(keys[1:])
    assert await kept(results, "k") == 1


async def test_more_than_one_answer_holds(world: World) -> None:
    """The server ends an answer when it has grown too large; the rest is asked for."""
    results = await world.results()
    value = bytes(900_000)
    keys = [f"{i}" for i in range(100)]
    for key in keys:
        await results.set(key, value, expect=None, ttl=None)
    assert [item and len(item[0]) for item in await results.get(keys)] == [len(value)] * len(keys)


async def test_a_value_that_no_message_holds(world: World) -> None:
    results, other = await world.results(), await world.results()
    large, larger = bytes(range(256)) * 8_000, bytes(range(256)) * 20_000
    first, small = await asyncio.gather(
        results.set("large", large, expect=None, ttl=None), results.set("small", b"1", expect=None, ttl=None)
    )
    assert await other.get(["large", "small"]) == [(large, first), (b"1", small)]
    assert await kept(results, "b") == 2
    with pytest.raises(Conflict):
        await results.set("large", larger, expect=None, ttl=None)
    assert await kept(results, "b") == 2
    ((_, revision),) = await other.get(["large"])
    second = await other.set("large", larger, expect=revision, ttl=3_600)
    assert await results.get(["large"]) == [(larger, second)]
    assert await kept(results, "b") == 5
    third = await other.set("large", b"small now", expect=second, ttl=None)
    assert await results.get(["large"]) == [(b"small now", third)]
    assert await kept(results, "b") == 0
    await results.set("large", large, expect=third, ttl=None)
    await results.delete(["large", "small"])
    assert await results.get(["large", "small"]) == [None, None]
    assert await kept(results, "b") == 0


async def test_who_reads_a_large_value_while_it_is_replaced_reads_one_of_them(world: World) -> None:
    results, other = await world.results(), await world.results()
    values = [bytes([n]) * (n * 600_000) for n in range(1, 5)]
    revision = await results.set("k", values[3], expect=None, ttl=None)

    async def write() -> None:
        nonlocal revision
        for turn in range(20):
            revision = await results.set("k", values[turn % 4], expect=revision, ttl=None)

    writer = asyncio.ensure_future(write())
    seen = 0
    while not writer.done():
        ((value, _),) = await other.get(["k"])
        assert value in values
        seen += 1
    await writer
    assert seen > 1


async def test_a_write_whose_answer_was_lost_answers_as_the_first_would_have(world: World, proxy: Proxy) -> None:
    results, other = await world.results(port=proxy.port), await world.results()
    proxy.swallow_reply()
    first = await results.set("k", b"1", expect=None, ttl=None)
    assert proxy.cuts == 1
    assert await other.get(["k"]) == [(b"1", first)]
    proxy.swallow_reply()
    second = await results.set("k", b"2", expect=first, ttl=None)
    assert proxy.cuts == 2
    assert await other.get(["k"]) == [(b"2", second)]
    with pytest.raises(Conflict):  # the same bytes, but not the same write
        await results.set("k", b"2", expect=first, ttl=None)


async def test_a_cancelled_write_is_done_or_not_and_in_nobodys_way(world: World) -> None:
    results = await world.results()
    writes = [asyncio.ensure_future(results.set(f"{i}", b"", expect=None, ttl=None)) for i in range(10)]
    await asyncio.sleep(0)
    writes[3].cancel()
    done = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(one) for one in done].count(asyncio.CancelledError) == 1
    await results.set("a", b"", expect=None, ttl=None)


async def test_no_server_is_an_engine_that_is_unavailable_within_its_time(world: World, proxy: Proxy) -> None:
    results = await world.results(port=proxy.port, timeout=0.5)
    with proxy.silent():
        for call in (
            results.get(["k"]),
            results.get([f"{i}" for i in range(10)]),
            results.set("k", b"", expect=None, ttl=None),
            results.index_add("i", ["a"], 1),
            results.index_page("i", 1, None),
        ):
            began = SYSTEM.mono()
            with pytest.raises(EngineUnavailable):
                await call
            assert SYSTEM.mono() - began < 1.0
    await results.set("k", b"", expect=None, ttl=None)


async def test_a_full_stream_refuses_and_throws_nothing_away(world: World) -> None:
    results = await world.results()
    await results.set("old", bytes(10_000), expect=None, ttl=None)
    stream = results._stream
    config = (await connection(results).api(f"STREAM.INFO.{stream}"))["config"]
    await connection(results).api(f"STREAM.UPDATE.{stream}", config | {"max_bytes": 15_000})
    with pytest.raises(EngineUnavailable, match="full"):
        await results.set("new", bytes(10_000), expect=None, ttl=None)
    assert [item is None for item in await results.get(["old", "new"])] == [False, True]
    await results.delete(["old"])
    await results.set("new", bytes(10_000), expect=None, ttl=None)


async def test_a_stream_that_somebody_deletes_is_created_anew(world: World) -> None:
    results = await world.results()

    async def emptied() -> None:
        await results.set("k", b"1", expect=None, ttl=None)
        await results.index_add("i", ["a"], 1)
        await connection(results).api(f"STREAM.DELETE.{results._stream}")

    await emptied()
    assert await results.get(["k"]) == [None]
    await emptied()
    assert await results.get([f"{i}" for i in range(10)]) == [None] * 10
    await emptied()
    assert await results.index_page("i", 10, None) == []
    await emptied()
    await results.index_add("i", ["b"], 1)
    assert await results.index_page("i", 10, None) == ["b"]
    await emptied()
    await results.set("k", b"2", expect=None, ttl=None)
    await results.delete(["k"])


async def test_a_twin_in_another_thread(world: World) -> None:
    results = await world.results()
    revision = await results.set("k", b"1", expect=None, ttl=None)

    async def elsewhere() -> int:
        twin = results.twin()
        try:
            return await twin.set("k", b"2", expect=revision, ttl=None)
        finally:
            await twin.close()

    second = await asyncio.to_thread(asyncio.run, elsewhere())
    assert await results.get(["k"]) == [(b"2", second)]


# -- indexes ----------------------------------------------------------------------------------------------------------


async def test_a_page_of_a_large_index_reads_little_of_it(world: World) -> None:
    results = await world.results()
    now = 1_700_000_000_000
    ids = [f"{i:06}" for i in range(20_000)]
    await asyncio.gather(
        *(results.index_add("large", ids[i : i + 50], now + i * 40) for i in range(0, len(ids), 50)),
    )
    client = (await connection(results).session()).client

    async def cost(call: Awaitable[Any]) -> tuple[int, int]:
        before = client.stats["in_msgs"], client.stats["in_bytes"]
        await call
        return client.stats["in_msgs"] - before[0], client.stats["in_bytes"] - before[1]

    assert await results.index_page("large", 100, None) == ids[:-101:-1]
    assert await results.index_page("large", 100, ids[10_000]) == ids[9_999:9_899:-1]
    for after in (None, ids[10_000]):
        messages, size = await cost(results.index_page("large", 100, after))
        assert messages < 300
        assert size < 100_000
    assert await results.index_page("large", 30_000, None) == ids[::-1]


@pytest.mark.parametrize("step", [0.0, 1e-9, 0.25, 1.0, 70.0, 3_600.0, 1e9, -1.0, -1e12])
async def test_the_order_is_that_of_the_numbers(world: World, step: float) -> None:
    results = await world.results()
    ids = [f"{i}" for i in range(40)]
    for i, id in enumerate(ids):
        await results.index_add("i", [id], (i - 20) * step)
    order = ids if step < 0 else ids[::-1]
    assert await results.index_page("i", 100, None) == order
    pages: list[str] = []
    while page := await results.index_page("i", 7, pages[-1] if pages else None):
        pages += page
    assert pages == order


async def test_what_is_removed_or_moved_leaves_nothing_behind(world: World) -> None:
    results = await world.results()
    ids = [f"{i}" for i in range(600)]
    for at in (1e12, 2e12):
        await results.index_add("i", ids[:300], at)
        await results.index_add("i", ids[300:], at + 1)
    assert [await kept(results, kind) for kind in "cfh"] == [2, 1, 1]
    for i in range(0, 600, 100):
        await results.index_remove("i", [*ids[i : i + 100], "unknown"])
    assert [await kept(results, kind) for kind in "cfh"] == [0, 0, 0]
    assert await results.index_page("i", 10, None) == []
    await results.index_add("i", ids, 1e12)  # at once, while it is still known that they were removed
    assert await results.index_page("i", 1_000, None) == ids[::-1]
    await results.index_add("i", ids, 1e12)  # a repetition moves nothing
    assert await results.index_page("i", 1_000, None) == ids[::-1]
    assert [await kept(results, kind) for kind in "cfh"] == [2, 1, 1]


async def test_many_add_move_and_remove_at_the_same_time(world: World) -> None:
    """Each has ids of its own beside those that all move and remove; nobody loses one of his, nothing dead remains."""
    clients = [await world.results() for _ in range(4)]
    shared = [f"shared {i}" for i in range(20)]

    async def work(me: int) -> None:
        for turn in range(15):
            mine = [f"{me} {turn} {i}" for i in range(5)]
            await clients[me].index_add("i", [*mine, *shared], 1e12 + turn * 300 + me)
            await clients[me].index_remove("i", [mine[0], *shared[me::4]])

    await asyncio.gather(*map(work, range(4)))
    page = await clients[0].index_page("i", 10_000, None)
    assert len(page) == len(set(page))
    assert {id for id in page if not id.startswith("shared")} == {
        f"{me} {turn} {i}" for me in range(4) for turn in range(15) for i in range(1, 5)
    }
    await clients[0].index_remove("i", page)
    assert await clients[1].index_page("i", 10, None) == []


@pytest.mark.parametrize("down", [False, True])
async def test_an_interruption_anywhere_neither_loses_nor_doubles_a_member(
    world: World, proxy: Proxy, down: bool
) -> None:
    results = await world.results(port=proxy.port)
    ids = [f"{i}" for i in range(30)]
    at = 1.7e12
    for cut in range(5, 4_000, 211):
        at += 100
        if down:
            proxy.cut_after(down=cut)
        else:
            proxy.cut_after(up=cut)
        await results.index_add("i", ids, at)
        assert await results.index_page("i", 100, None) == ids[::-1]
    assert proxy.cuts > 5
    proxy.cut_after()
    assert [await kept(results, kind) for kind in "cfh"] == [1, 1, 1]


# -- three servers ----------------------------------------------------------------------------------------------------


async def test_what_is_read_is_asked_of_the_leader_unless_there_is_one_copy(world: World) -> None:
    results = await world.results()
    await results.set("k", b"1", expect=None, ttl=None)
    asked: list[str] = []
    requests = connection(results).requests

    async def noted(calls: Any, **options: Any) -> Any:
        asked.extend(call.subject for call in calls)
        return await requests(calls, **options)

    connection(results).requests = noted  # type: ignore[method-assign]
    await results.get(["k"])
    results._direct = False
    assert (await results.get(["k", *"abcd"]))[0] == (await results.get(["k"]))[0]
    assert [subject.split(".")[2:4] for subject in asked] == [["DIRECT", "GET"], *[["STREAM", "MSG"]] * 6]


@contextlib.contextmanager
def cluster() -> Iterator[list[services.NatsServer]]:
    ports = [services.free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with contextlib.ExitStack() as stack:
        nodes: list[services.NatsServer] = []
        for i, port in enumerate(ports):
            peers = f'cluster {{ name: three, listen: "127.0.0.1:{port}", routes: [{routes}] }}'
            folder = stack.enter_context(services.folder())
            nodes.append(services.NatsServer(services.need("nats"), folder, f"server_name: n{i}", peers))
            stack.callback(nodes[-1].stop)
        for node in nodes:
            node.start()
        yield nodes


@pytest.mark.slow
@pytest.mark.fault
async def test_a_leader_is_killed_and_nothing_acknowledged_is_lost_nor_read_stale() -> None:
    with cluster() as nodes:
        hosts = [f"127.0.0.1:{node.port}" for node in nodes]
        urls = [f"nats://{','.join(hosts[i:] + hosts[:i])}" for i in range(3)]
        clients = [nats.results(urlsplit(url), {"replicas": "3"}, **common(url, timeout=15.0)) for url in urls]
        for client in clients:
            await client.open()
        assert not any(client._direct for client in clients)
        await clients[0].set("n", b"0", expect=None, ttl=None)
        counted, members = [0], list[str]()

        async def count(client: nats.NatsResults, until: asyncio.Event) -> None:
            while not until.is_set():
                before = counted[-1]
                ((value, revision),) = await client.get(["n"])  # type: ignore[misc]
                assert int(value) >= before
                with contextlib.suppress(Conflict):
                    await client.set("n", b"%d" % (int(value) + 1), expect=revision, ttl=None)
                    counted.append(max(counted[-1], int(value) + 1))
                await client.index_add("i", [f"{value} {id(client)}"], int(value))
                members.append(f"{value} {id(client)}")

        done = asyncio.Event()
        tasks = [asyncio.ensure_future(count(client, done)) for client in clients]

        async def reached(n: int) -> bool:
            for task in tasks:
                if task.done():
                    task.result()
            return counted[-1] >= n

        await until(lambda: reached(30))
        info = await connection(clients[0]).api(f"STREAM.INFO.{clients[0]._stream}")
        nodes[int(info["cluster"]["leader"][1:])].kill()

        now = counted[-1]
        await until(lambda: reached(now + 30), 30)
        done.set()
        await asyncio.gather(*tasks)
        assert int((await clients[0].get(["n"]))[0][0]) == counted[-1] == len(counted) - 1  # type: ignore[index]
        assert set(await clients[1].index_page("i", 10_000, None)) == set(members)
        for client in clients:
            await client.close()


# -- with the broker --------------------------------------------------------------------------------------------------


async def test_a_record_may_outgrow_a_message_while_its_job_runs(world: World) -> None:
    async with Server(world.url, namespace=world.namespace) as srv:

        async def double(payload: bytes, ctx: JobCtx) -> None:
            ctx.save(payload)

        srv.register_task("double", double)
        running = asyncio.ensure_future(srv.start())
        payload = bytes(range(256)) * 2_700
        id = await srv.enqueue(Job("double", payload))
        await srv.wait(id, timeout=10)
        assert await srv.get_result(id) == payload
        assert (await srv.get_job(id)).job.payload == payload
        await srv.stop()
        await running


async def test_a_message_that_is_too_large_is_kept_with_the_records_until_it_is_done(world: World) -> None:
    """A chain whose steps hand on as much as they may, through a broker that stores everything twice."""
    results = await world.results()
    broker = nats.NatsBroker(connection(results), world.namespace)
    twice = broker.enqueue

    async def enqueue(queue: str, messages: Sequence[Message]) -> None:
        await twice(queue, messages)
        await twice(queue, messages)

    async def empty() -> bool:
        """Neither a message nor a body that was put aside."""
        queue = f"{world.namespace}:{DEFAULT_QUEUE}"
        names = (await results._names([f"{results._root}.k.>"]))[0]
        return not await broker.get_pending(queue, 10, None) and not [name for name in names if "=3Ao=3A" in name]

    broker.enqueue = enqueue  # type: ignore[method-assign]
    async with Server(broker=broker, results=results, namespace=world.namespace, lease=1.0) as srv:
        runs: list[int] = []

        async def pass_on(payload: bytes, ctx: JobCtx) -> None:
            runs.append(len(payload))
            ctx.save(ctx.meta.prev_job_result or payload)

        srv.register_task("pass", pass_on)
        running = asyncio.ensure_future(srv.start())
        payload = bytes(range(256)) * 4_096
        chain = await srv.enqueue_chain(Chain([Job("pass", payload), Job("pass"), Job("pass", payload)]))
        message = await srv.wait_chain(chain, timeout=20)
        assert message.status is Status.SUCCESSFUL
        assert await srv.get_result(message.prev_jobs[-1]) == payload
        assert runs == [len(payload), 0, len(payload)]
        await until(empty)
        assert not [job.meta.id for job in await srv.inspector.jobs() if job.meta.id.startswith("undecodable")]
        await srv.stop()
        await running


async def test_the_permissions_in_the_docs_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tasqueue")
    text = (Path(__file__).parents[2] / "docs/engines/nats.md").read_text()
    rights = text.partition("\npermissions: ")[2].partition("```")[0]
    user = f"{{ user: app, password: secret, permissions: {rights} }}"
    with services.nats(f"authorization {{ users: [{user}] }}") as server:
        async with Server(f"nats://app:secret@127.0.0.1:{server.port}") as srv:

            async def step(payload: bytes, ctx: JobCtx) -> None:
                ctx.save(payload)

            srv.register_task("step", step)
            running = asyncio.ensure_future(srv.start())
            chain = await srv.enqueue_chain(Chain([Job("step", b"1", priority=5), Job("step", b"2")]))
            due = await srv.enqueue(Job("step", eta=datetime.now(UTC) + timedelta(seconds=1.5)))
            assert (await srv.wait_chain(chain, timeout=10)).status is Status.SUCCESSFUL
            assert (await srv.wait(due, timeout=10)).meta.status is Status.SUCCESSFUL
            assert due in await srv.get_success()
            assert await srv.get_pending() == []
            assert await srv.delete_job(due)
            await srv.stop()
            await running
    assert "violation" not in caplog.text.lower()
