"""Not run: read by pyright (tests/typing/test_typing.py). Each `assert_type` must hold, and nothing may be an error."""

from collections.abc import Coroutine
from typing import Any, assert_type

from tasqueue import Chain, Group, Handle, Job, JobCtx, JobMessage, Server, Status, Task
from tasqueue.client.bridge import SyncHandle
from tasqueue.client.typed import BoundTask, SyncTask

srv = Server("memory://")


@srv.task
async def add(a: int, b: int = 1) -> int:
    return a + b


@srv.task(max_retries=3, timeout=30, queue="images", executor="thread", schedule=None)
def thumbnail(ctx: JobCtx, path: str, size: int) -> str:
    ctx.save(b"")
    return path * size


@srv.task
def plain(path: str) -> list[str]:
    return [path]


@srv.task(name="other")
async def with_context(ctx: JobCtx, n: int) -> None:
    await ctx.progress(n, n)
    assert_type(ctx.prev(int), int | None)
    async for result in ctx.results(str):
        assert_type(result, str | None)


@srv.task
async def maybe(ctx: JobCtx | None, n: int) -> dict[str, int]:
    return {"n": n}


async def use() -> None:
    pending = add(5, 4)
    _ = assert_type(pending, Coroutine[Any, Any, int])
    assert_type(await pending, int)
    assert_type(await add(5, b=4), int)
    assert_type(thumbnail("a.png", 64), str)
    assert_type(plain("a"), list[str])
    assert_type(await with_context(1), None)
    assert_type(await maybe(1), dict[str, int])

    assert_type(add.job(5, 4), Job[int])
    assert_type(thumbnail.job("a.png", size=64), Job[str])

    handle = await add.enqueue(5)
    assert_type(handle, Handle[int])
    assert_type(await handle.result(timeout=5), int)
    assert_type(await handle.status(), Status)
    assert_type(await handle.message(), JobMessage)
    assert_type(await handle.cancel(), bool)
    assert_type(await (await thumbnail.enqueue("a", 1)).result(), str)

    assert_type(await add.options(delay=10, queue="slow", id="once").enqueue(5, 4), Handle[int])
    assert_type(thumbnail.options(priority=3).job("a", 1), Job[str])
    assert_type(await srv.enqueue(add.options(on_success=plain.job("a")).job(1)), str)
    assert_type(await srv.enqueue_chain(Chain([add.job(1, 2), thumbnail.job("a.png", 64)])), str)
    assert_type(await srv.enqueue_group(Group([add.job(1), plain.job("a")], on_success=[add.job(1)])), str)

    assert_type(await srv.handle("id", int).result(), int)
    assert_type(await srv.handle("id", bytes).result(), bytes)
    assert_type(await srv.handle("id").result(), bytes)


def block() -> None:
    assert_type(add.sync.enqueue(5, 4), SyncHandle[int])
    assert_type(add.sync.enqueue(5, b=4).result(timeout=1), int)
    assert_type(thumbnail.options(queue="q").sync.enqueue("a", 1).result(), str)
    assert_type(srv.sync.enqueue(add.job(1)), str)
    assert_type(srv.sync.get_result("id"), bytes)
    assert_type(srv.sync.get_job("id"), JobMessage)
    assert_type(srv.sync.wait("id", timeout=3), JobMessage)
    assert_type(srv.sync.cancel("id"), bool)
    assert_type(srv.sync.handle("id").result(), bytes)
    assert_type(srv.sync.handle("id", list[int]).result(), list[int])
    assert_type(srv.sync.get_pending(limit=3), list[JobMessage])
    srv.sync.pause("queue", reason="rest")


def generic(task: Task[[int, int], int, Any], bound: BoundTask[[int], int], sync: SyncTask[[int], int]) -> None:
    assert_type(task.job(1, 2), Job[int])
    assert_type(bound.job(1), Job[int])
    assert_type(sync.enqueue(1), SyncHandle[int])
