"""Each half by itself, of each kind: what docs/engines/pairs.md asks of a broker and of results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests import services
from tests.engines.halves_world import KINDS, World, ids, put, taken

from tasqueue.interfaces import Conflict, Message

HOSTILE = [
    "a b",
    "{x}",
    "}:q:other",
    "*?[a-z]\\",
    "é漢🙂",
    "line\nbreak\r\n$3\r\nfoo",
    "nul\0nul",
    "'; DROP TABLE x; --",
    "0000000000000001+000id",
    "-1",
    "x" * 5_000,
]
SHORT = 0.05


@pytest.fixture(scope="module")
def server() -> Iterator[services.Server]:
    with services.server() as one:
        yield one


@pytest_asyncio.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, server: services.Server, tmp_path: Path) -> AsyncIterator[World]:
    one = World(request.param, server, tmp_path)
    yield one
    await one.close()


# -- broker -----------------------------------------------------------------------------------------------------------


async def test_higher_priority_first_then_in_the_order_of_enqueueing(world: World) -> None:
    broker = await world.broker()
    for id, priority in [("a", 0), ("b", -100), ("c", 101), ("d", 0), ("e", 101), ("f", 1)]:
        await put(broker, id, priority=priority)
    pending = await broker.get_pending("q", 10, None)
    assert ids(pending) == ["c", "e", "f", "a", "d", "b"]
    assert [message.priority for message in pending] == [101, 101, 1, 0, 0, -100]
    assert ids(await taken(broker, 2)) == ["c", "e"]
    rest = await taken(broker)
    assert ids(rest) == ["f", "a", "d", "b"]
    assert rest[0].body == b"body of f"
    assert await taken(broker) == []


async def test_a_lease_that_ends_gives_it_back_to_its_old_place(world: World) -> None:
    broker = await world.broker()
    await put(broker, "a", "b", "c")
    await put(broker, "high", priority=5)
    assert ids(await taken(broker, 3, lease=SHORT)) == ["high", "a", "b"]
    await put(broker, "d")
    assert ids(await taken(broker, 1)) == ["c"]
    await world.advance(SHORT)
    assert ids(await broker.get_pending("q", 10, None)) == ["high", "a", "b", "d"]
    assert ids(await taken(broker)) == ["high", "a", "b", "d"]


async def test_who_extends_keeps_it_and_may_do_so_for_a_shorter_time(world: World) -> None:
    broker = await world.broker()
    await put(broker, "a", "b")
    a, b = await taken(broker, lease=SHORT)
    await broker.extend([a], 60)
    await broker.extend([b], 2 * SHORT)
    await world.advance(SHORT)
    assert await taken(broker) == []
    await world.advance(SHORT)
    assert ids(await taken(broker)) == ["b"]
    await broker.extend([a], SHORT)
    await world.advance(SHORT)
    assert ids(await taken(broker)) == ["a"]


async def test_released_at_once_to_the_old_place_with_a_delay_behind_the_others(world: World) -> None:
    broker = await world.broker()
    await put(broker, "a", "b", "c", "d")
    a, b, c = await taken(broker, 3)
    await broker.release([a])
    await broker.release([c], 1e-7)
    await broker.release([b], SHORT)
    assert ids(await broker.get_pending("q", 10, None)) == ["a", "d", "c"]
    await world.advance(SHORT)
    assert ids(await taken(broker)) == ["a", "d", "c", "b"]


async def test_due_messages_come_in_the_order_of_their_dates_behind_those_that_wait(world: World) -> None:
    broker = await world.broker()
    now = await world.now(broker)
    await broker.enqueue("q", [Message(id, b"", due_at=now + due) for id, due in [("b", 90), ("a", 60), ("c", 90)]])
    await put(broker, "late", due_at=now + 10_000)
    await put(broker, "past", due_at=now - 5)
    await put(broker, "x")
    assert ids(await broker.get_pending("q", 10, None)) == ["past", "x"]
    await world.advance(0.1)
    await put(broker, "y")
    assert ids(await taken(broker)) == ["past", "x", "a", "b", "c", "y"]


async def test_what_is_acknowledged_is_gone_and_its_id_new(world: World) -> None:
    broker = await world.broker()
    await put(broker, "a", "b", "c")
    first = await taken(broker, 2, lease=SHORT)
    await broker.ack(first)
    await world.advance(SHORT)
    assert ids(await taken(broker)) == ["c"]
    await put(broker, "a")
    assert ids(await taken(broker)) == ["a"]


async def test_a_handle_of_an_earlier_delivery_is_no_error(world: World) -> None:
    broker = await world.broker()
    await put(broker, "a", "b")
    old = await taken(broker, lease=SHORT)
    await world.advance(SHORT)
    new = await taken(broker, 1)
    await broker.extend(old, 60)
    await broker.release(old, 60)
    await broker.release(old)
    await broker.ack(new)
    await broker.ack(old)
    await broker.ack(old)
    await broker.extend(old, 60)
    assert "a" not in ids(await taken(broker))


async def test_pending_is_paged_and_an_unknown_id_means_from_the_head(world: World) -> None:
    broker = await world.broker()
    await put(broker, "a", "b", "c", "d", "e")
    await put(broker, "z", priority=1)
    assert ids(await broker.get_pending("q", 2, None)) == ["z", "a"]
    assert ids(await broker.get_pending("q", 3, "a")) == ["b", "c", "d"]
    assert ids(await broker.get_pending("q", 3, "e")) == []
    assert ids(await broker.get_pending("q", 2, "unknown")) == ["z", "a"]
    await taken(broker, 1)
    assert ids(await broker.get_pending("q", 2, "z")) == ["a", "b"]
    assert await broker.get_pending("no such queue", 2, None) == []


async def test_hostile_ids_queues_and_bodies(world: World) -> None:
    broker = await world.broker()
    bodies = {id: bytes(range(256)) * i for i, id in enumerate(HOSTILE)}
    for queue in HOSTILE:
        await broker.enqueue(queue, [Message(id, body) for id, body in bodies.items()])
    for queue in HOSTILE:
        deliveries = await taken(broker, queue=queue)
        assert {one.id: one.body for one in deliveries} == bodies
        await broker.extend(deliveries, 60)
        await broker.release(deliveries[:3])
        assert ids(await broker.get_pending(queue, 10, HOSTILE[0])) == HOSTILE[1:3]
        await broker.ack(deliveries)
        assert await broker.get_pending(queue, 10, None) == []


async def test_namespaces_are_apart(world: World) -> None:
    one, other = await world.broker("one"), await world.broker("other")
    await put(one, "a")
    assert await taken(other) == []
    assert ids(await taken(one)) == ["a"]
    one, other = await world.results("one"), await world.results("other")
    await one.set("k", b"v", expect=None, ttl=None)
    assert list(await other.get(["k"])) == [None]


async def test_a_thousand_at_once(world: World) -> None:
    broker = await world.broker()
    names = [f"{i:04}" for i in range(3_000)]
    await put(broker, *names)
    deliveries = await taken(broker, 3_000, lease=SHORT)
    assert ids(deliveries) == names
    await broker.extend(deliveries, 60)
    await broker.release(deliveries[:2_500])
    assert ids(await broker.get_pending("q", 3_000, None)) == names[:2_500]
    await broker.ack(deliveries)
    assert await broker.get_pending("q", 10, None) == []


# -- a broker that several can use ------------------------------------------------------------------------------------


@pytest.fixture
def shared(world: World) -> World:
    if world.kind == "memory":
        pytest.skip("for one event loop of one process")
    return world


async def test_a_twin_accepts_the_deliveries_of_the_first(shared: World) -> None:
    broker = await shared.broker()
    await put(broker, "a", "b", "c")
    a, b, c = await taken(broker, lease=SHORT)

    async def in_a_thread() -> None:
        twin = broker.twin()
        await twin.extend([a], 60)
        await twin.ack([b])
        await twin.release([c])
        await twin.close()

    await asyncio.to_thread(asyncio.run, in_a_thread())
    await shared.advance(SHORT)
    assert ids(await taken(broker)) == ["c"]


async def test_each_message_goes_to_one_of_many(shared: World) -> None:
    brokers = [await shared.broker() for _ in range(4)]
    await put(brokers[0], *(f"{i}" for i in range(400)))
    found = await asyncio.gather(*(taken(brokers[i % 4], 7) for i in range(80)))
    got = [id for batch in found for id in ids(batch)]
    assert sorted(got, key=int) == [f"{i}" for i in range(400)]


async def test_the_same_message_twice_is_one(shared: World) -> None:
    """A call whose answer was lost is repeated."""
    broker = await shared.broker()
    for _ in range(2):
        await put(broker, "a", "b")
    assert ids(await taken(broker)) == ["a", "b"]
    await put(broker, "b")
    assert await taken(broker) == []


async def test_who_sleeps_is_woken(shared: World) -> None:
    broker, other = await shared.broker(), await shared.broker()
    assert await taken(broker) == []

    async def woken_by(act: asyncio.Future[None]) -> None:
        async with asyncio.timeout(5):
            await act

    sleep = asyncio.ensure_future(broker.wait(["p", "q"], 30))
    await asyncio.wait([sleep], timeout=0.05)
    assert not sleep.done()
    await put(other, "a")
    await woken_by(sleep)
    (a,) = await taken(broker)
    sleep = asyncio.ensure_future(broker.wait(["q"], 30))
    await asyncio.wait([sleep], timeout=0.05)
    await other.release([a])
    await woken_by(sleep)
    assert ids(await taken(broker)) == ["a"]
    await broker.wait(["q"], 0.05)  # at the latest when that is over


async def test_who_sleeps_is_woken_when_one_is_due_and_when_a_lease_ends(shared: World) -> None:
    broker, other = await shared.broker(), await shared.broker()
    await put(other, "due", due_at=await shared.now(broker) + 200)
    assert await taken(broker) == []
    sleep = asyncio.ensure_future(broker.wait(["q"], 30))
    await shared.advance(0.2)
    async with asyncio.timeout(3):
        await sleep
    assert ids(await taken(other, lease=0.2)) == ["due"]
    sleep = asyncio.ensure_future(broker.wait(["q"], 30))
    await asyncio.wait([sleep], timeout=0.05)
    await shared.advance(0.2)
    async with asyncio.timeout(3):
        await sleep
    assert ids(await taken(broker)) == ["due"]


# -- results ----------------------------------------------------------------------------------------------------------


async def test_set_is_a_compare_and_set(world: World) -> None:
    results = await world.results()
    first = await results.set("k", b"1", expect=None, ttl=None)
    with pytest.raises(Conflict, match="'k'"):
        await results.set("k", b"2", expect=None, ttl=None)
    second = await results.set("k", b"2", expect=first, ttl=None)
    with pytest.raises(Conflict):
        await results.set("k", b"3", expect=first, ttl=None)
    assert list(await results.get(["k", "other", "k"])) == [(b"2", second), None, (b"2", second)]
    assert list(await results.get([])) == []
    await results.delete(["k", "other"])
    with pytest.raises(Conflict):
        await results.set("k", b"3", expect=second, ttl=None)
    third = await results.set("k", b"1", expect=None, ttl=None)
    assert third not in (first, second)
    assert list(await results.get(["k"])) == [(b"1", third)]


async def test_what_has_expired_is_not_there(world: World) -> None:
    results = await world.results()
    old = await results.set("k", b"1", expect=None, ttl=SHORT)
    await results.set("keeps", b"1", expect=None, ttl=None)
    prolonged = await results.set("prolonged", b"1", expect=None, ttl=SHORT)
    await results.set("prolonged", b"2", expect=prolonged, ttl=None)
    await world.advance(SHORT)
    assert [item and item[0] for item in await results.get(["k", "keeps", "prolonged"])] == [None, b"1", b"2"]
    with pytest.raises(Conflict):
        await results.set("k", b"2", expect=old, ttl=None)
    await results.set("k", b"2", expect=None, ttl=None)


async def test_an_index_is_newest_first_and_of_one_time_the_last_entered(world: World) -> None:
    results = await world.results()
    await results.index_add("i", ["a", "b"], 10)
    await results.index_add("i", ["z"], 10)
    await results.index_add("i", ["m", "k"], 10)
    await results.index_add("i", ["new"], 11.5)
    await results.index_add("i", ["old"], -1_700_000_000_000)
    assert list(await results.index_page("i", 10, None)) == ["new", "k", "m", "z", "b", "a", "old"]
    assert list(await results.index_page("i", 2, "m")) == ["z", "b"]
    assert list(await results.index_page("i", 2, "unknown")) == ["new", "k"]
    assert list(await results.index_page("i", 2, "old")) == []
    await results.index_add("i", ["old", "old", "z"], 12)
    assert list(await results.index_page("i", 3, None)) == ["z", "old", "new"]
    await results.index_remove("i", ["old", "unknown", "k"])
    assert list(await results.index_page("i", 10, None)) == ["z", "new", "m", "b", "a"]
    assert list(await results.index_page("other", 10, None)) == []


async def test_hostile_keys_indexes_and_values(world: World) -> None:
    results = await world.results()
    values = {key: bytes(range(256)) * i for i, key in enumerate(HOSTILE)}
    await asyncio.gather(*(results.set(key, value, expect=None, ttl=60) for key, value in values.items()))
    found = await results.get(HOSTILE)
    assert {key: item[0] for key, item in zip(HOSTILE, found, strict=True)} == values
    for index in HOSTILE:
        await results.index_add(index, HOSTILE, 5)
    for index in HOSTILE:
        assert list(await results.index_page(index, 100, None)) == HOSTILE[::-1]
        await results.index_remove(index, HOSTILE[1:])
        assert list(await results.index_page(index, 100, HOSTILE[0])) == []
    await results.delete(HOSTILE[1:])
    assert [item and item[0] for item in await results.get(HOSTILE)] == [b"", *[None] * (len(HOSTILE) - 1)]


async def test_of_many_writers_at_once_none_is_lost(world: World) -> None:
    """Two clients, 200 increments of one counter."""
    clients = [await world.results() for _ in range(2)]
    await clients[0].set("n", b"0", expect=None, ttl=None)
    conflicts = 0

    async def add_one(results: object) -> None:
        nonlocal conflicts
        while True:
            ((value, revision),) = await results.get(["n"])  # type: ignore[attr-defined]
            await asyncio.sleep(0)
            try:
                await results.set("n", b"%d" % (int(value) + 1), expect=revision, ttl=None)  # type: ignore[attr-defined]
            except Conflict:
                conflicts += 1
            else:
                return

    async def adder(results: object) -> None:
        for _ in range(25):
            await add_one(results)

    await asyncio.gather(*(adder(clients[i % 2]) for i in range(8)))
    assert (await clients[1].get(["n"]))[0][0] == b"200"
    assert conflicts > 0
    winners = await asyncio.gather(
        *(clients[i % 2].set("once", b"%d" % i, expect=None, ttl=None) for i in range(50)), return_exceptions=True
    )
    assert [type(one) for one in winners].count(Conflict) == 49
