"""Life: opened and closed as often as one likes, honest about itself, and its clock only goes on."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tasqueue.errors import Unsupported
from tasqueue.interfaces import Engine

from .harness import SHORT, Harness, end, group, ids, needs, record

pytestmark = pytest.mark.asyncio


async def test_opening_twice_and_closing_twice(h: Harness) -> None:
    engine = h.unopened()
    await engine.open()
    await engine.open()
    await engine.submit([record("a")])
    await engine.close()
    await engine.close()
    assert await h.ready() == ["a"]


async def test_closing_one_that_was_never_opened(h: Harness) -> None:
    await h.unopened().close()
    await h.put("a")


async def test_one_that_was_closed_may_be_opened_again(h: Harness) -> None:
    engine = await h.another()
    await engine.submit([record("a")])
    await engine.close()
    await engine.open()
    await engine.submit([record("b")])
    assert ids([row for row in await engine.get(["a", "b"]) if row]) == ["a", "b"]
    assert await h.ready() == ["a", "b"]


async def test_closing_one_leaves_the_others_alone(h: Harness) -> None:
    await h.put("a")
    worker = await h.worker()
    lease = await worker.take("a")
    other = await h.another()
    await other.close()
    assert await worker.settle(end(lease)) == [True]


async def test_a_worker_outlives_the_engine_object(h: Harness) -> None:
    engine = await h.another()
    await h.put("a")
    await (await h.worker("w", engine)).take("a")
    await engine.close()
    assert [row.id for row in await h.engine.workers()] == ["w"]
    assert await h.ready() == []


async def test_closing_wakes_who_sleeps_in_it(h: Harness) -> None:
    engine = await h.another()
    await h.put(record("a", "elsewhere"))
    await (await h.worker("w", engine)).claim()
    tasks = [asyncio.create_task(engine.wait(["q"], None)), asyncio.create_task(engine.watch([("job", "a")], None))]
    await asyncio.sleep(0.02)
    await engine.close()
    done, pending = await asyncio.wait(tasks, timeout=10)
    assert not pending
    await asyncio.gather(*done, return_exceptions=True)


async def test_its_clock_goes_on(h: Harness) -> None:
    before = await h.engine.now()
    await h.clock.advance(SHORT)
    assert SHORT <= await h.engine.now() - before < SHORT + 5_000


async def test_all_engines_on_a_store_have_the_same_clock(h: Harness) -> None:
    other = await h.another()
    assert abs(await other.now() - await h.engine.now()) < 1_000


async def test_it_shows_no_password(h: Harness) -> None:
    assert h.engine.url
    assert "secret" not in h.engine.url


async def test_its_capabilities_are_declared(h: Harness) -> None:
    capabilities = h.engine.capabilities
    flags = msgspec.structs.asdict(capabilities)
    assert flags.pop("max_link") > 0
    assert set(map(type, flags.values())) == {bool}
    assert h.engine.capabilities == (await h.another()).capabilities


async def test_what_it_promises(h: Harness) -> None:
    durability = await h.engine.durability()
    assert durability.level in ("process", "os-crash", "power-loss")
    assert durability.promise
    assert (durability.level == "process") is not h.engine.capabilities.durable
    for finding in durability.findings:
        assert finding.name
        assert finding.value


async def test_the_largest_link_that_it_declares_can_be_stored(h: Harness) -> None:
    n = h.engine.capabilities.max_link
    members, link = group("x", n)
    await h.put(*members, links=[link])
    assert (await h.link("g:x")).n == n
    assert (await h.engine.results("g:x", n - 1, 10)) == [None]


async def test_without_twins_asking_for_one_says_so(h: Harness) -> None:
    if h.engine.capabilities.thread_beat:
        assert isinstance(h.engine.twin(), Engine)
        return
    with pytest.raises(Unsupported):
        h.engine.twin()


@needs("durable")
async def test_what_was_stored_is_there_when_all_engines_were_closed(h: Harness) -> None:
    await h.put("a", "b")
    await h.run("a", result=b"saved")
    await h.engine.close()
    await h.engine.open()
    assert (await h.row("a")).result == b"saved"
    assert await h.ready() == ["b"]
