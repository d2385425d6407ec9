"""Hostile bytes and names: an engine keeps whatever it is given, byte for byte, and never takes it for syntax."""

from __future__ import annotations

import pytest

from tasqueue.core.record import Link, Schedule, Tick
from tasqueue.core.status import State, Status
from tasqueue.interfaces import Filter

from .harness import Harness, end, ids, park, record, retry

pytestmark = pytest.mark.asyncio

NAMES = {
    "quotes": "a'b\"c`d",
    "sql": "'); DROP TABLE job; --",
    "like": "100%_*?[a-z]",
    "braces": "{hash}tag{}",
    "separators": "a:b.c/d\\e|f>g~h",
    "control": "\x01\x1b[31m\x7f\r\n\t\x00z",
    "bidi": "\u202eabc\u2066\u200b\ufeff",
    "beyond": "\U0001f600\U0010fffd",
    "decomposed": "e\u0301",
    "long": "x" * 200,
    "number": "1e999",
    "null": "null",
    "space": " ",
}
hostile = pytest.mark.parametrize("name", NAMES.values(), ids=list(NAMES))

BYTES = {
    "empty": b"",
    "zero": b"\x00",
    "all": bytes(range(256)),
    "not utf-8": b"\xff\xfe\xc3\x28",
    "msgpack": b"\xdd\xff\xff\xff\xff",
    "text": b"NULL",
}


@hostile
async def test_ids(h: Harness, name: str) -> None:
    await h.put(name, "plain")
    assert ids([await h.row(name)]) == [name]
    assert await h.ready() == [name, "plain"]
    await h.run(name, result=b"saved")
    assert await h.engine.ended(State.SUCCESSFUL, 10, None) == [name]
    assert await h.engine.ended(State.SUCCESSFUL, 10, name) == []
    await h.engine.cancel(["plain"], None)
    assert await h.engine.delete([name]) == [True]
    assert await h.states(name, "plain") == [None, State.CANCELLED]


@hostile
async def test_queues_and_tasks(h: Harness, name: str) -> None:
    await h.put(record("a", name, task=name), "plain")
    assert await h.ready(name) == ["a"]
    assert await h.ready() == ["plain"]
    assert ids(await h.engine.jobs(Filter(queue=name, task=name), 10, None)) == ["a"]
    assert (await h.engine.counts()).queues[name][State.READY] == 1
    await h.engine.pause(name, name, name)
    assert [(row.queue, row.reason, row.by) for row in await h.engine.paused()] == [(name, name, name)]
    assert await h.ready(name) == []
    await h.engine.resume(name)
    worker = await h.worker()
    await worker.settle(park(await worker.take("a", name), f"task:{name}", name))
    assert (await h.row("a")).parked == name
    await h.worker("knows", tasks={name: name})
    assert await h.engine.tasks() == {name: name}
    assert await h.ready(name) == ["a"]


@hostile
async def test_workers_and_causes(h: Harness, name: str) -> None:
    await h.put("a", "b")
    worker = await h.worker(name)
    await worker.claim(1)
    assert [row.id for row in await h.engine.workers()] == [name]
    assert await h.engine.reclaim(name, name) == [name]
    lease = (await (await h.worker("next")).claim(1))[0]
    assert (lease.died_with, lease.death_cause) == (name, name)


@hostile
async def test_links(h: Harness, name: str) -> None:
    c, g = f"c:{name}", f"g:{name}"
    await h.put(
        record(f"{name}~c0", link=c, pos=0),
        record(f"{name}~c1", link=c, pos=1, held=True),
        record(f"{name}~g0", link=g, pos=0),
        links=[Link(c, 2), Link(g, 1, (record(f"{name}~s0", "callbacks"),))],
    )
    worker = await h.worker()
    assert await worker.settle(*(end(lease, result=b"saved") for lease in await worker.claim())) == [True, True]
    assert (await h.link(c)).pos == 1
    assert (await h.link(g)).status is Status.SUCCESSFUL
    assert await h.ready() == [f"{name}~c1"]
    assert await h.ready("callbacks") == [f"{name}~s0"]
    assert await h.engine.results(g, 0, 1) == [b"saved"]


@hostile
async def test_schedules(h: Harness, name: str) -> None:
    entry = Schedule(name, name, name, name, 0, b"\xff", anchor=0, next_at=1)
    assert await h.engine.put_schedule(entry) is True
    assert await h.engine.put_schedule(entry) is False
    assert await h.engine.schedules() == [entry]
    assert await h.engine.fire([Tick(name, 1, 1, 2, record(f"{name}@1"))]) == [True]
    assert await h.ready() == [f"{name}@1"]
    assert await h.engine.delete_schedule(name) is True


@pytest.mark.parametrize("data", BYTES.values(), ids=list(BYTES))
async def test_bytes_come_back_as_they_were(h: Harness, data: bytes) -> None:
    await h.put(record("a", spec=data, prev=data))
    worker = await h.worker()
    lease = await worker.take("a")
    assert (lease.spec, lease.prev) == (data, data)
    await worker.beat(info=data, progress=[("a", lease.claim, data)])
    assert [row.info for row in await h.engine.workers()] == [data or b"info"]
    assert (await h.row("a")).progress == data
    await worker.settle(retry(lease, tail=data))
    lease = await worker.take("a")
    assert lease.tail == data
    await worker.settle(end(lease, State.FAILED, data, tail=data))
    row = await h.row("a")
    assert (row.spec, row.tail, row.prev, row.result) == (data, data, data, data)
    await h.reopen("a", data)
    assert (await h.row("a")).tail == data


async def test_names_that_differ_little_are_different(h: Harness) -> None:
    names = ["a", "A", "a ", "á", "a\u0301", "ａ", "a%", "a\x00", "a\x00b", "a~", "a."]
    await h.put(*names)
    assert await h.ready() == names
    for name in names:
        await h.put(record(f"in {name}", name))
    for name in names:
        assert await h.ready(name) == [f"in {name}"]


async def test_many_queues(h: Harness) -> None:
    names = [f"queue-{i}" for i in range(500)]
    await h.put(*(record(name, name) for name in names))
    worker = await h.worker()
    leases = await worker.claim(1, *names)
    assert sorted(ids(leases)) == sorted(names)
    await worker.settle(*(end(lease, ttl=0) for lease in leases))
    assert not any(n for states in (await h.engine.counts()).queues.values() for n in states.values())
