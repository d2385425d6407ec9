"""Handles: a job seen from outside."""

from __future__ import annotations

import msgspec
import pytest
from tests.client.support import working

from tasqueue import Fail, Handle, InvalidJob, Job, JobCancelled, JobCtx, JobFailed, NotFound, Server, Status


class Point(msgspec.Struct):
    x: int


async def test_a_result_has_the_type_that_the_task_returns(srv: Server) -> None:
    @srv.task
    async def make(x: int) -> Point | None:
        return Point(x) if x else None

    async with working(srv):
        handle = await make.enqueue(3)
        assert await handle.result(timeout=5) == Point(3)
        assert await handle.result(timeout=0) == Point(3)
        assert await handle.status() is Status.SUCCESSFUL
        assert (await handle.message()).job.task == "make"
        assert await (await make.enqueue(0)).result(timeout=5) is None
        assert await srv.handle(handle.id, Point).result() == Point(3)
        assert await srv.handle(handle.id, dict[str, int]).result() == {"x": 3}
        assert await srv.handle(handle.id).result() == b"\x81\xa1x\x03"
        with pytest.raises(InvalidJob, match="is not <class 'int'>"):
            await srv.handle(handle.id, int).result()
    assert repr(handle) == f"Handle({handle.id!r})"


async def test_a_failed_job_raises_what_happened_as_text(srv: Server) -> None:
    @srv.task
    async def fail(how: str) -> None:
        if how == "for good":
            raise Fail("no way")
        raise ValueError("bad value")

    async with working(srv):
        with pytest.raises(JobFailed, match="failed with ValueError: bad value") as caught:
            await (await fail.enqueue("once")).result(timeout=5)
        assert (caught.value.type, caught.value.message) == ("ValueError", "bad value")
        assert 'raise ValueError("bad value")' in caught.value.traceback
        with pytest.raises(JobFailed, match="Fail: no way"):
            await (await fail.enqueue("for good")).result(timeout=5)


async def test_cancelled_unknown_and_late(srv: Server) -> None:
    @srv.task
    async def never() -> None: ...

    handle = await never.enqueue()
    assert await handle.status() is Status.QUEUED
    with pytest.raises(TimeoutError, match="has not ended within 0 s"):
        await handle.result(timeout=0)
    assert await handle.cancel() is True
    with pytest.raises(JobCancelled, match=r"srv\.retry"):
        await handle.result()
    assert await handle.cancel() is False
    for call in (srv.handle("nope").status, srv.handle("nope").message, srv.handle("nope").result):
        with pytest.raises(NotFound):
            await call()


async def test_a_byte_level_result(srv: Server) -> None:
    def save(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(payload * 2)

    srv.register_task("save", save)
    async with working(srv):
        id = await srv.enqueue(Job("save", b"ab"))
        handle = srv.handle(id)
        assert isinstance(handle, Handle)
        assert await handle.result(timeout=5) == b"abab"


async def test_a_type_that_cannot_be_read_is_refused_at_once(srv: Server) -> None:
    class A(msgspec.Struct):
        a: int

    class B(msgspec.Struct):
        b: int

    with pytest.raises(InvalidJob, match="a result cannot be read as"):
        srv.handle("id", A | B)
