"""Jobs that nobody here can run: parked with the reason, unparked by who can, failed when nobody comes; hostile bytes
(G11)."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tasqueue import Job, Server, Status
from tasqueue.core import codec
from tasqueue.core.record import Record
from tasqueue.core.status import State
from tasqueue.runtime.consumer import Consumer

from .conftest import Make
from .helpers import engine_of, until, working

QUEUE = "tasqueue:tasks"


async def parked(srv: Server, id: str) -> str:
    return (await srv.get_job(id)).meta.parked


def good_task(srv: Server) -> None:
    srv.register_task("good", lambda payload, ctx: None)


async def test_unknown_task_is_parked_and_run_by_who_knows_it(make: Make) -> None:
    """A rolling deploy: the old worker lives on beside the new one, and may take the job again before it does."""
    old, new = make(), make()
    good_task(old)
    async with working(old):
        ids = await old.enqueue_many([Job("unknown") for _ in range(8)])
        good = await old.enqueue(Job("good"))
        assert (await old.wait(good, 10)).meta.status is Status.SUCCESSFUL
        for id in ids:
            assert "'unknown'" in await until(lambda id=id: parked(old, id))
            meta = (await old.get_job(id)).meta
            assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
        new.register_task("unknown", lambda payload, ctx: ctx.save(b"known"))
        good_task(new)
        async with working(new):
            for id in ids:
                assert (await old.wait(id, 30)).meta.status is Status.SUCCESSFUL


async def test_an_announced_task_is_offered_again(make: Make) -> None:
    """The one that knows the task announced it before the one that does not took the job."""
    old, new = make(default_concurrency=1), make(default_concurrency=1)
    good_task(old)
    new.register_task("unknown", lambda payload, ctx: None)
    async with working(new):
        await new.wait(await new.enqueue(Job("unknown")), 10)
    async with working(old):
        id = await old.enqueue(Job("unknown"))
        await until(lambda: parked(old, id))
    await until(lambda: ready(new, id))


async def ready(srv: Server, id: str) -> bool:
    engine = await engine_of(srv)
    await engine.promote()
    row = (await engine.get([id]))[0]
    return row is not None and row.state is State.READY


async def test_a_task_registered_while_running_unparks(srv: Server) -> None:
    good_task(srv)
    async with working(srv):
        id = await srv.enqueue(Job("later"))
        await until(lambda: parked(srv, id))
        srv.register_task("later", lambda payload, ctx: None)
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_failed_with_the_reason_after_park_for(make: Make) -> None:
    srv = make(park_for=0.3)
    good_task(srv)
    async with working(srv):
        id = await srv.enqueue(Job("unknown", on_error=Job("good")))
        meta = (await srv.wait(id, 10)).meta
        await srv.wait(f"{id}~e0", 10)
        assert (meta.status, meta.errors[0].type) == (Status.FAILED, "UnknownTask")
        assert "'unknown'" in meta.prev_err
        srv.register_task("unknown", lambda payload, ctx: None)
        assert await srv.retry(id)
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


def newer() -> bytes:
    return msgspec.msgpack.encode([codec.VERSION + 1, {"quite": "another"}, "shape"])


async def test_for_how_long_is_told_by_the_engines_clock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """G12: a worker whose clock is ahead by more than `park_for` fails nothing."""
    monkeypatch.setattr(Consumer, "_now", lambda self: int((self.crew.ports.now() + 2000) * 1000))
    srv = make(park_for=1000, default_concurrency=1)
    good_task(srv)
    async with working(srv):
        id = await srv.enqueue(Job("unknown"))
        await until(lambda: parked(srv, id))
        await (await engine_of(srv)).register("elsewhere", 60_000, b"", {"unknown": QUEUE}, 1)  # offers it again
        await srv.wait(await srv.enqueue(Job("good")), 10)  # claimed after it
        await until(lambda: parked(srv, id))
        assert (await srv.get_job(id)).meta.status is Status.QUEUED


async def test_a_newer_record_is_parked_and_in_the_end_failed(make: Make) -> None:
    srv = make(park_for=0.5)
    good_task(srv)
    engine = await engine_of(srv)
    await engine.submit([Record("new", QUEUE, "good", newer())])
    async with working(srv):
        assert "newer version" in await until(lambda: parked(srv, "new"))
        assert (await srv.wait("new", 10)).meta.errors[0].type == "NewerVersion"
    row = (await engine.get(["new"]))[0]
    assert row is not None
    assert row.spec == newer()


async def test_a_newer_record_is_unparked_by_who_can_read_it(srv: Server) -> None:
    good_task(srv)
    engine = await engine_of(srv)
    await engine.submit([Record("new", QUEUE, "good", newer())])
    async with working(srv):
        await until(lambda: parked(srv, "new"))
    await engine.register("newer", 60_000, b"", {}, codec.VERSION + 1)
    row = (await engine.get(["new"]))[0]
    assert row is not None
    assert row.state is State.READY


@pytest.mark.parametrize("junk", [b"", b"\xc1", b"\x93\x01", b"not msgpack", b"\x91\x01", b"\xdd\xff\xff\xff\xff"])
async def test_undecodable_bytes_are_failed_and_the_others_done(srv: Server, junk: bytes) -> None:
    good_task(srv)
    engine = await engine_of(srv)
    ids = await srv.enqueue_many([Job("good", id=f"g{i}") for i in range(3)])
    await engine.submit([Record("bad", QUEUE, "good", junk)])
    ids += await srv.enqueue_many([Job("good", id=f"h{i}") for i in range(3)])
    async with working(srv):
        for id in ids:
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
        meta = (await srv.wait("bad", 10)).meta
        assert (meta.status, meta.errors[0].type) == (Status.FAILED, "Undecodable")
        row = (await engine.get(["bad"]))[0]
        assert row is not None
        assert row.spec == junk
        first = row.ended_at
        assert await srv.retry("bad")
        assert await srv.wait("bad", 10)
        row = (await engine.get(["bad"]))[0]
        assert row is not None
        assert row.state is State.FAILED
        assert first is not None
        assert row.ended_at is not None
        assert row.ended_at >= first


async def test_undecodable_follow_ups_fail_their_job_and_nothing_else(srv: Server) -> None:
    async def good(payload: bytes, ctx: object) -> None:
        await asyncio.sleep(0)

    srv.register_task("good", good)
    engine = await engine_of(srv)
    for id, on_success, on_error in (("s", b"\x91\xa1x", b"\x90"), ("e", b"\x90", b"\x91\xa1x")):
        spec = codec.Spec(
            codec.VERSION,
            "good" if id == "s" else "bad",
            b"",
            on_success=msgspec.Raw(on_success),
            on_error=msgspec.Raw(on_error),
        )
        await engine.submit([Record(id, QUEUE, spec.task, msgspec.msgpack.encode(spec))])

    async def bad(payload: bytes, ctx: object) -> None:
        raise ValueError("no")

    srv.register_task("bad", bad)
    async with working(srv):
        for id in ("s", "e"):
            meta = (await srv.wait(id, 10)).meta
            assert (meta.status, meta.errors[-1].type) == (Status.FAILED, "Undecodable")
        assert (await srv.wait(await srv.enqueue(Job("good")), 10)).meta.status is Status.SUCCESSFUL


async def test_a_tail_that_cannot_be_read_is_kept(srv: Server) -> None:
    good_task(srv)
    engine = await engine_of(srv)
    id = await srv.enqueue(Job("good"))
    await srv.cancel(id)
    row = (await engine.get([id]))[0]
    assert row is not None
    assert row.ended_at is not None
    assert await engine.reopen(id, row.ended_at, b"\xc1 junk")
    async with working(srv):
        meta = (await srv.wait(id, 10)).meta
    assert (meta.status, meta.errors[0].type) == (Status.FAILED, "Undecodable")
    row = (await engine.get([id]))[0]
    assert row is not None
    assert codec.decode_tail(row.tail).kept == b"\xc1 junk"
