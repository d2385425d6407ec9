"""The NATS broker by itself, on a real server: order, leases, what goes back, what is due, and outages."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from tests import services
from tests.engines.nats_world import broker, ids, messages, nats, opened

from tasqueue.engines.nats import lanes
from tasqueue.engines.nats.broker import LOOK, NatsBroker
from tasqueue.engines.nats.errors import ApiError, ServerUnusable
from tasqueue.errors import EngineUnavailable, PayloadTooLarge
from tasqueue.interfaces import Delivery, Message

__all__ = ["nats"]  # the fixture

HOSTILE = ["*", ">", "a.b", "a b", "$JS.API.>", "..", "ü", "\ud800", "=2E", ".", "a\r\nPUB x", "x" * 200, "ü" * 100, ""]


async def _woken_and_taken(one: NatsBroker, queue: str, lease: float = 10.0, patience: float = 5.0) -> list[Delivery]:
    """The next deliveries, as a worker gets them: by waiting when there are none."""
    async with asyncio.timeout(patience):
        while not (found := await one.consume(queue, 10, lease)):
            await one.wait([queue], patience)
    return list(found)


# -- order ------------------------------------------------------------------------------------------------------------


async def test_higher_priorities_first_then_in_order(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a", "b"))
        await one.enqueue("q", messages("low", priority=-100))
        await one.enqueue("q", messages("high", priority=101))
        await one.enqueue("q", messages("c"))
        assert ids(await one.get_pending("q", 10, None)) == ["high", "a", "b", "c", "low"]
        assert ids(await one.consume("q", 2, 10)) == ["high", "a"]
        assert ids(await one.consume("q", 10, 10)) == ["b", "c", "low"]
        assert await one.consume("q", 10, 10) == []


async def test_a_priority_that_another_process_has_just_begun_to_use(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one, opened(nats.url, one._namespace) as other:
        await one.enqueue("q", messages("a", "b"))
        assert ids(await one.consume("q", 1, 10)) == ["a"]
        for priority in range(1, 30):
            await other.enqueue("q", messages(f"p{priority}", priority=priority))
            (got,) = await one.consume("q", 1, 10)
            assert got.id == f"p{priority}"
            await one.ack([got])


async def test_any_name_and_any_body(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        for name in HOSTILE:
            await one.enqueue(name, [Message(name, bytes(range(256)) + name.encode(errors="surrogatepass"))])
        for name in HOSTILE:
            (got,) = await one.consume(name, 10, 10)
            assert (got.id, got.body) == (name, bytes(range(256)) + name.encode(errors="surrogatepass"))
            await one.ack([got])


async def test_bytes_that_somebody_else_has_put_there(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a"))
        junk = [
            b"",
            b"x",
            b"\xff" * 20,
            b"\1",
            b"\1\0\0\0\0\0\0\0\2\xff\xfe",
            b"\1\0\0\0\0\0\0\xff\xff",
            b"\1" + b"\xff" * 6,
        ]
        for data in junk:
            await one._connection.request(f"{one._subjects}.q.q.0", data)
        got = await one.consume("q", 10, 10)
        assert sorted(delivery.body for delivery in got) == sorted([b"body of a", *junk])
        assert len(set(ids(got))) == len(junk) + 1


# -- leases and what goes back ----------------------------------------------------------------------------------------


async def test_a_lease_that_ends_brings_them_back_to_their_places(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a", "b", "c"))
        assert ids(await one.consume("q", 3, 0.5)) == ["a", "b", "c"]
        assert ids(await _woken_and_taken(one, "q", 0.5)) == ["a", "b", "c"]


async def test_extending_keeps_a_delivery_and_from_another_thread_too(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a", "b", "c"))
        kept, dropped, longer = await one.consume("q", 3, 0.5)
        await one.extend([longer], 30)
        twin = one.twin()
        began = time.monotonic()

        def beat() -> None:
            async def go() -> None:
                for _ in range(12):
                    await twin.extend([kept], 0.5)
                    await asyncio.sleep(0.1)
                await twin.close()

            asyncio.run(go())

        thread = threading.Thread(target=beat)
        thread.start()
        (got,) = await _woken_and_taken(one, "q", 0.5)
        assert got.id == dropped.id
        await one.ack([got])
        assert 0.4 < time.monotonic() - began < 1.1
        await asyncio.to_thread(thread.join)
        (got,) = await _woken_and_taken(one, "q", 0.5)
        assert got.id == kept.id
        assert time.monotonic() - began > 1.4


async def test_an_extension_to_another_span_than_the_lease(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a", "b"))
        (a, _b) = await one.consume("q", 2, 30)
        await one.extend([a], 0.3)
        began = time.monotonic()
        assert ids(await _woken_and_taken(one, "q", 30)) == ["a"]
        assert 0.25 < time.monotonic() - began < 1.0


async def test_a_fleet_with_a_longer_lease_does_not_lengthen_ours(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one, opened(nats.url, one._namespace) as slow:
        await one.enqueue("q", messages("a", "b"))
        assert ids(await slow.consume("q", 1, 60)) == ["a"]
        assert ids(await one.consume("q", 1, 0.3)) == ["b"]
        began = time.monotonic()
        assert ids(await _woken_and_taken(one, "q", 0.3)) == ["b"]
        assert time.monotonic() - began < 1.5


async def test_released_at_once_to_the_old_place_whoever_does_it_first(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one, opened(nats.url, one._namespace) as other:
        await one.enqueue("q", messages(*"abcdefgh"))
        first, second = await one.consume("q", 3, 10), await other.consume("q", 3, 10)
        await other.release(second)
        await one.release(list(reversed(first)))
        assert ids(await one.get_pending("q", 10, None)) == list("abcdefgh")
        taken = [(await one.consume("q", 1, 10))[0].id for _ in range(8)]
        assert taken == list("abcdefgh")


async def test_many_that_went_back_keep_their_order(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        names = [f"{i:03}" for i in range(2 * LOOK)]
        await one.enqueue("q", messages(*names))
        taken = await one.consume("q", len(names), 10)
        await one.release(taken[LOOK:])
        await one.release(taken[:LOOK])
        assert ids(await one.consume("q", len(names), 10)) == names


async def test_released_with_a_delay_behind_the_others(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a", "b", "c"))
        (a, b) = await one.consume("q", 2, 10)
        await one.release([a], 1e-7)
        await one.release([b], 0.5)
        began = time.monotonic()
        got = await one.consume("q", 10, 10)
        assert [(delivery.id, delivery.body) for delivery in got] == [("c", b"body of c"), ("a", b"body of a")]
        (got_b,) = await _woken_and_taken(one, "q")
        assert (got_b.id, got_b.body) == ("b", b"body of b")
        assert 0.5 <= time.monotonic() - began + 0.002 < 1.5
        assert await one.consume("q", 10, 10) == []


async def test_handles_of_earlier_deliveries_are_no_error(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a"))
        (a,) = await one.consume("q", 1, 10)
        await one.ack([a])
        await one.extend([a], 10)
        await one.extend([a], 1)
        await one.release([a])
        await one.ack([a])
        assert await one.consume("q", 10, 10) == []
        await one._connection.api(f"CONSUMER.DELETE.{one._stream}.q_0")
        await one.release([a])


async def test_what_was_acknowledged_before_closing_stays_acknowledged(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages(*map(str, range(500))))
        await one.ack(await one.consume("q", 500, 10))
    async with opened(nats.url, one._namespace) as other:
        assert await other.get_pending("q", 10, None) == []


async def test_a_claim_that_is_cancelled_gives_back_at_once(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages(*map(str, range(300))))
        await one.ack(await one.consume("q", 1, 60))
        for _ in range(20):
            task = asyncio.create_task(one.consume("q", 200, 60))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        found: list[str] = []
        async with asyncio.timeout(10):
            while len(found) < 299:
                found += ids(await one.consume("q", 300, 60))
        assert sorted(map(int, found)) == list(range(1, 300))


# -- due messages -----------------------------------------------------------------------------------------------------


async def test_due_ones_come_at_their_time_and_behind_those_that_wait(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        due = int(1000 * (await one.now() + 0.8))
        await one.enqueue("q", [Message("later", b"", 0, due + 3_600_000), Message("soon", b"", 0, due)])
        await one.enqueue("q", [Message("past", b"", 0, 1), Message("now", b"")])
        assert ids(await one.get_pending("q", 10, None)) == ["past", "now"]
        while ids(await one.get_pending("q", 10, None)) != ["past", "now", "soon"]:
            assert 1000 * await one.now() < due + 3000
            await asyncio.sleep(0.02)
        assert 1000 * await one.now() >= due - 1  # the clock is known to a part of a millisecond
        assert ids(await one.consume("q", 10, 10)) == ["past", "now", "soon"]


@pytest.mark.parametrize("waiting", [0, 3, 300])
async def test_those_due_in_a_moment_come_in_the_order_of_their_dates(nats: services.NatsServer, waiting: int) -> None:
    async with opened(nats.url) as one:
        now = 1000 * await one.now()
        await one.enqueue("q", [Message(f"{i}", b"x", 0, int(now + 900 - i * 20)) for i in range(5)])
        assert await one.get_pending("q", 10, None) == []
        assert await one.consume("q", 2, 10) == []
        await one.enqueue("q", messages(*(f"w{i}" for i in range(waiting))))
        await asyncio.sleep((now + 910) / 1000 - await one.now())
        found: list[str] = []
        while got := await one.consume("q", 2, 10):
            found += ids(got)
        assert found == [*(f"w{i}" for i in range(waiting)), "4", "3", "2", "1", "0"]


async def test_one_that_is_due_wakes_even_at_a_priority_that_is_new(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one, opened(nats.url, one._namespace) as other:
        assert await one.consume("q", 10, 10) == []
        due = await one.now() + 0.4
        await other.enqueue("q", [Message("soon", b"", 7, int(1000 * due))])
        assert ids(await _woken_and_taken(one, "q")) == ["soon"]
        assert -0.002 < await one.now() - due < 0.5


async def test_the_same_id_due_twice_comes_once(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        due = int(1000 * (await one.now() + 1.3))
        for _ in range(2):
            await one.enqueue("q", [Message("a", b"", 0, due)])
        assert ids(await _woken_and_taken(one, "q")) == ["a"]
        assert await one.get_pending("q", 10, None) == [Message("a", b"")]


# -- waiting and looking ----------------------------------------------------------------------------------------------


async def test_waiting_is_ended_by_what_comes(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one, opened(nats.url, one._namespace) as other:
        for queue in ("q", "r"):
            assert await one.consume(queue, 1, 10) == []
        for number, queue in enumerate("qrqr"):
            waiting = asyncio.create_task(one.wait(["q", "r"], 30))
            await other.enqueue(queue, messages(str(number), priority=number // 2))
            await asyncio.wait_for(waiting, 2)
            (got,) = await one.consume(queue, 1, 10)
            await one.release([got])
            waiting = asyncio.create_task(one.wait(["q", "r"], 30))
            await asyncio.wait_for(waiting, 2)
            (got,) = await one.consume(queue, 1, 10)
            await one.ack([got])
            assert await one.consume(queue, 1, 10) == []


async def test_waiting_for_what_nobody_takes_does_not_spin(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        assert await one.consume("q", 1, 10) == []
        await one.enqueue("q", messages("a"))
        await asyncio.wait_for(one.wait(["q"], 30), 2)
        sent = one._connection.living.client.stats["out_msgs"]  # type: ignore[union-attr]
        began = time.monotonic()
        await one.wait(["q"], 0.3)
        assert time.monotonic() - began > 0.29
        assert one._connection.living.client.stats["out_msgs"] == sent  # type: ignore[union-attr]


async def test_an_idle_wait_asks_the_server_once(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a"))
        await one.ack(await one.consume("q", 1, 10))
        assert await one.consume("q", 1, 10) == []
        sent = one._connection.living.client.stats["out_msgs"]  # type: ignore[union-attr]
        for _ in range(5):
            await one.wait(["q"], 0.1)
        assert one._connection.living.client.stats["out_msgs"] - sent <= 1  # type: ignore[union-attr]


async def test_a_watch_that_has_run_out_is_begun_anew(
    nats: services.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WATCH", 0.2)
    async with opened(nats.url) as one:
        await one.enqueue("q", messages("a"))
        await one.ack(await one.consume("q", 1, 10))
        assert await one.consume("q", 1, 10) == []
        waiting = asyncio.create_task(one.wait(["q"], 30))
        await asyncio.sleep(0.4)
        await one.enqueue("q", messages("b"))
        await asyncio.wait_for(waiting, 2)


async def test_pending_by_pages(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        for priority in (0, 1):
            await one.enqueue("q", messages(*(f"{priority}.{i:04}" for i in range(1100)), priority=priority))
        expected = [f"{priority}.{i:04}" for priority in (1, 0) for i in range(1100)]
        found: list[str] = []
        while page := await one.get_pending("q", 300, found[-1] if found else None):
            found += ids(page)
        assert found == expected
        assert ids(await one.get_pending("q", 2, "0.0500")) == ["0.0501", "0.0502"]
        assert ids(await one.get_pending("q", 2, "unknown")) == expected[:2]


# -- outages, and what others do to the server ------------------------------------------------------------------------


async def test_a_server_that_is_killed_and_comes_back() -> None:
    with services.nats() as server:
        async with opened(server.url, timeout=1.0) as one:
            await one.enqueue("q", messages("a", "b"))
            due = int(1000 * (await one.now() + 6.0))
            await one.enqueue("q", [Message("due", b"", 0, due), Message("long due", b"", 0, due + 500)])
            (a,) = await one.consume("q", 1, 30)
            await asyncio.to_thread(server.kill)
            for call in (one.enqueue("q", messages("c")), one.consume("q", 1, 30), one.get_pending("q", 1, None)):
                began = time.monotonic()
                with pytest.raises(EngineUnavailable):
                    await call
                assert time.monotonic() - began < 1.5
            waited = time.monotonic()
            with pytest.raises(EngineUnavailable):
                await one.wait(["q"], 5)
            assert time.monotonic() - waited < 1.5
            await asyncio.to_thread(server.start)
            assert ids(await one.consume("q", 10, 30)) == ["b"]
            await one.ack([a])  # its handle is as good as before
            found: list[str] = []
            async with asyncio.timeout(10):
                while len(found) < 2:
                    found += ids(await _woken_and_taken(one, "q", 30))
            assert found == ["due", "long due"]
            assert ids(await one.get_pending("q", 10, None)) == ["b", "due", "long due"]


async def test_a_call_waits_for_a_server_that_is_soon_back() -> None:
    with services.nats() as server:
        async with opened(server.url, timeout=10) as one:
            await one.enqueue("q", messages("a"))
            await asyncio.to_thread(server.kill)
            storing = asyncio.create_task(one.enqueue("q", messages("b")))
            taking = asyncio.create_task(one.consume("q", 1, 30))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
            await storing
            assert ids(await taking) == ["a"]
            assert ids(await one.get_pending("q", 10, None)) == ["a", "b"]


async def test_a_server_that_is_frozen_costs_each_call_its_timeout_and_no_more() -> None:
    with services.nats() as server:
        async with opened(server.url, timeout=0.5) as one:
            await one.enqueue("q", messages("a"))
            with server.frozen():
                for _ in range(3):
                    began = time.monotonic()
                    with pytest.raises(EngineUnavailable, match="no answer within"):
                        await one.consume("q", 1, 10)
                    assert time.monotonic() - began < 0.9
            async with asyncio.timeout(5):
                while True:
                    try:
                        found = await one.consume("q", 1, 10)
                        break
                    except EngineUnavailable:
                        continue
            assert ids(found) in ([], ["a"])  # a pull of the freeze may have taken it: then it comes with its lease


@pytest.mark.parametrize("what", ["stream", "consumer"])
async def test_somebody_deletes_the_stream_or_the_consumer(nats: services.NatsServer, what: str) -> None:
    async with opened(nats.url) as one, opened(nats.url, one._namespace) as other:
        await one.enqueue("q", messages("a", priority=5))
        assert ids(await other.consume("q", 1, 10)) == ["a"]
        assert await other.consume("q", 1, 10) == []
        waiting = asyncio.create_task(other.wait(["q"], 30))
        await asyncio.sleep(0.05)
        if what == "stream":
            await one._connection.api(f"STREAM.DELETE.{one._stream}")
        else:
            await one._connection.api(f"CONSUMER.DELETE.{one._stream}.q_5")
        await asyncio.wait_for(waiting, 5)
        await one.enqueue("q", messages("b", priority=5))
        assert "b" in ids(await _woken_and_taken(other, "q"))


async def test_too_large_a_message_is_refused_before_anything_is_sent(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await one.enqueue("q", [Message("a", b"x"), Message("b", bytes(1 << 20))])
        assert await one.get_pending("q", 10, None) == []
        await one.enqueue("q", [Message(str(i), bytes(1_000_000)) for i in range(20)])
        found: list[str] = []
        while got := await one.consume("q", 20, 10):
            found += ids(got)
        assert found == [str(i) for i in range(20)]


async def test_two_brokers_create_the_stream_at_once(nats: services.NatsServer) -> None:
    brokers = [broker(nats.url, "at once") for _ in range(8)]
    await asyncio.gather(*(one.open() for one in brokers))
    await asyncio.gather(*(one.enqueue("q", messages(str(i))) for i, one in enumerate(brokers)))
    got = await asyncio.gather(*(one.consume("q", 10, 10) for one in brokers))
    assert sorted(id for part in got for id in ids(part)) == sorted(map(str, range(8)))
    await asyncio.gather(*(one.close() for one in brokers))


async def test_its_clock_is_the_servers(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        assert abs(await one.now() - time.time()) < 0.05
        sent = one._connection.living.client.stats["out_msgs"]  # type: ignore[union-attr]
        for _ in range(100):
            await one.now()
        assert one._connection.living.client.stats["out_msgs"] == sent  # type: ignore[union-attr]


async def test_what_it_promises(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        found = await one.durability()
        rows = {finding.name: finding for finding in found.findings}
        assert found.level == "os-crash"
        assert "sync_interval: always" in found.promise
        assert rows["sync_interval"].level == "warn"
        assert rows["authentication"].value == "none"
        assert rows[f"{one._stream} storage"].value == "file"
        info = await one._connection.api(f"STREAM.INFO.{one._stream}")
        await one._connection.api(f"STREAM.UPDATE.{one._stream}", info["config"] | {"max_msgs": 1000})
        rows = {finding.name: finding for finding in (await one.durability()).findings}
        assert rows[f"{one._stream} limits"].level == "error"


async def test_consumers_have_no_limit_of_pending_acknowledgements(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one.enqueue("q", messages(*(str(i) for i in range(3000))))
        taken = 0
        while got := await one.consume("q", 500, 30):
            taken += len(got)
        assert taken == 3000


async def test_a_stream_that_is_somebody_elses(nats: services.NatsServer) -> None:
    async with opened(nats.url) as one:
        await one._connection.api("STREAM.CREATE.foreign_Q", {"name": "foreign_Q", "subjects": ["foreign.q.>"]})
        with pytest.raises(ApiError):
            await one._connection.api("CONSUMER.INFO.foreign_Q.none")
        other = broker(nats.url, "foreign")
        with pytest.raises(ServerUnusable, match="another namespace"):
            await other.open()
        await other.close()
