"""Tasks: direct calls, jobs, options, handlers, processes."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.client.support import working

from tasqueue import (
    DEFAULT_QUEUE,
    Handle,
    InvalidJob,
    InvalidSchedule,
    Job,
    JobCtx,
    PayloadTooLarge,
    Server,
    Status,
    Task,
    TasqueueError,
    pack,
)
from tasqueue.client.context import local
from tasqueue.client.typed import call_in_process

module_server = Server("memory://")


@module_server.task(executor="process")
def square(n: int) -> int | None:
    """Its docstring."""
    return n * n if n else None


def cube(n: int) -> int:
    return n**3


cube_task = module_server.task(name="cubed", executor="process")(cube)


def test_a_task_looks_like_its_function() -> None:
    assert isinstance(square, Task)
    assert (square.name, square.__name__, square.__doc__) == ("square", "square", "Its docstring.")
    assert repr(square) == "Task('square')"
    assert square.function(3) == 9
    assert square(3) == 9
    assert cube_task.name == "cubed"


async def test_a_direct_call_runs_here_with_a_context_of_its_own(srv: Server) -> None:
    seen: list[JobCtx] = []

    @srv.task
    async def add(ctx: JobCtx, a: int, b: int = 2) -> int:
        await ctx.progress(1, 2)
        seen.append(ctx)
        return a + b

    @srv.task(queue="q")
    def sync_one(a: int, ctx: JobCtx, b: int = 2) -> int:
        seen.append(ctx)
        with pytest.raises(TasqueueError, match="what it returns"):
            ctx.save(b"")
        return a * b

    assert await add(1) == 3
    assert await add(1, b=5) == 6
    assert sync_one(3) == 6  # type: ignore[call-arg]
    assert seen[0] is not seen[1]
    assert seen[0].meta.progress == (1, 2, "")
    assert (seen[2].meta.queue, seen[2].job.task) == ("q", "sync_one")
    assert await srv.get_pending() == []


async def test_a_job_is_inert_and_an_enqueued_one_is_stored(srv: Server) -> None:
    @srv.task(queue="q")
    async def add(a: int, b: int) -> int:
        return a + b

    job = add.job(5, b=4)
    assert job == Job("add", pack(5, b=4))
    assert await srv.get_pending("q") == []
    handle = await add.enqueue(5, 4)
    assert isinstance(handle, Handle)
    (stored,) = await srv.get_pending("q")
    assert (stored.meta.id, stored.job.payload) == (handle.id, pack(5, 4))
    with pytest.raises(InvalidJob, match=r"'add', argument 'a': '5'"):
        await add.enqueue("5", 4)  # type: ignore[arg-type]
    assert len(await srv.get_pending("q")) == 1


async def test_options(srv: Server) -> None:
    @srv.task
    async def add(a: int, b: int) -> int:
        return a + b

    bound = add.options(
        queue="slow",
        id="once",
        priority=3,
        max_retries=2,
        timeout=timedelta(seconds=5),
        headers={"k": "v"},
        on_success=add.job(1, 1),
        on_error=[add.job(2, 2)],
    )
    assert bound.job(5, 4) == Job(
        "add",
        pack(5, 4),
        queue="slow",
        id="once",
        priority=3,
        max_retries=2,
        timeout=5,
        headers={"k": "v"},
        on_success=add.job(1, 1),
        on_error=add.job(2, 2),
    )
    assert (await bound.enqueue(5, 4)).id == "once"
    assert (await srv.get_job("once")).meta.queue == "slow"
    eta = datetime(2100, 1, 1, tzinfo=UTC)
    assert add.options(eta=eta).job(1, 2).eta == eta


async def test_delay_counts_from_each_call(srv: Server) -> None:
    @srv.task
    async def add(a: int, b: int) -> int:
        return a + b

    before = datetime.now(UTC)
    for bound in (add.options(delay=10), add.options(delay=timedelta(seconds=10))):
        eta = bound.job(1, 2).eta
        assert eta is not None
        assert timedelta(seconds=9.9) < eta - before < timedelta(seconds=20)
    soon, later = add.options(delay=0), add.options(delay=10)
    assert soon.job(1, 2).eta < later.job(1, 2).eta  # type: ignore[operator]
    handle = await later.enqueue(1, 2)
    assert await srv.get_pending() == []
    assert (await handle.message()).meta.due_at is not None


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 1, "eta": datetime(2100, 1, 1, tzinfo=UTC)},
        {"delay": 1, "schedule": "@hourly"},
        {"delay": -1},
        {"priority": 1000},
        {"id": "a~b"},
        {"eta": datetime(2100, 1, 1)},  # noqa: DTZ001
        {"headers": {"k": 1}},
    ],
)
def test_options_that_cannot_be_used_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        square.options(**options)


async def test_what_cannot_be_a_task(srv: Server) -> None:
    def needs(a: int) -> None: ...
    def taken() -> None: ...

    srv.task(taken)
    with pytest.raises(InvalidJob, match="'taken' is registered already"):
        srv.task(taken)
    with pytest.raises(InvalidJob, match="decorates a function"):
        srv.task(square)
    with pytest.raises(InvalidJob, match="decorates a function"):
        srv.task(5)  # type: ignore[call-overload]
    with pytest.raises(InvalidJob, match=r"'needs' has the schedule '@hourly'.*requires some"):
        srv.task(schedule="@hourly")(needs)
    with pytest.raises(InvalidSchedule, match="'every day'"):
        srv.task(name="x", schedule="every day")(taken)
    with pytest.raises(InvalidJob, match="cannot be imported by a child process"):
        srv.task(executor="process")(needs)
    with pytest.raises(InvalidJob, match="runs on the loop"):
        srv.task(name="y", executor="thread")(asyncio.sleep)
    assert srv.get_tasks() == ["taken"]


def wants_ctx(ctx: JobCtx) -> None: ...


def test_a_process_has_no_context() -> None:
    with pytest.raises(InvalidJob, match=r"'wants_ctx' has executor='process' and takes a JobCtx \(ctx\)"):
        module_server.task(executor="process")(wants_ctx)
    assert "wants_ctx" not in module_server.get_tasks()


@pytest.mark.parametrize("executor", ["loop", "thread"])
async def test_the_handler_keeps_what_the_function_returns(srv: Server, executor: Any) -> None:
    @srv.task(executor=executor)
    def double(ctx: JobCtx, n: int) -> int | None:
        return n * 2 if n else None

    definition = double.definition
    assert (definition.executor, definition.typed) == (executor, True)
    for n, saved in ((4, pack(8)[2:3]), (0, None)):
        ctx = local("double", DEFAULT_QUEUE, b"", 0, 100)
        result = definition.handler(pack(n), ctx)
        if executor == "loop":
            result = await result
        assert result is None
        assert ctx.saved == saved


async def test_a_result_that_is_too_large_or_has_no_encoding_is_an_error(srv: Server) -> None:
    @srv.task
    async def make(kind: str) -> Any:
        return b"x" * 200 if kind == "large" else object()

    for kind, error in (("large", PayloadTooLarge), ("odd", InvalidJob)):
        ctx = local("make", DEFAULT_QUEUE, b"", 0, 100)
        with pytest.raises(error):
            await make.definition.handler(pack(kind), ctx)
        assert ctx.saved is None


def test_call_in_process() -> None:
    assert call_in_process(__name__, "square", pack(3)) == b"\x09"
    assert call_in_process(__name__, "square", pack(0)) is None
    assert call_in_process(__name__, "cube", pack(2)) == b"\x08"
    with pytest.raises(InvalidJob, match="'square', argument 'n'"):
        call_in_process(__name__, "square", pack("3"))


def test_call_in_process_imports_the_module_itself() -> None:
    code = (
        f"from tasqueue.client.typed import call_in_process as call; print(call('{__name__}', 'square', {pack(5)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(b"\x19")


async def test_end_to_end(srv: Server) -> None:
    @srv.task
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @srv.task
    def shout(ctx: JobCtx, text: str) -> str:
        return text.upper() + str(ctx.prev(int) or "")

    async with working(srv):
        assert await (await add.enqueue(5, b=4)).result(timeout=5) == 9
        assert await (await shout.enqueue("a")).result(timeout=5) == "A"
        handle = await add.options(on_success=shout.job("after")).enqueue(1)
        message = await srv.wait(handle.id, 5)
        (follow,) = message.meta.on_success_ids
        assert follow == f"{handle.id}~s0"
        assert await srv.handle(follow, str).result(timeout=5) == "AFTER2"
        assert (await srv.wait(follow, 5)).meta.status is Status.SUCCESSFUL


def test_a_function_without_a_name_is_asked_for_one(srv: Server) -> None:
    for fn in (lambda: 1, functools.partial(int, "1")):
        with pytest.raises(InvalidJob, match=r"has no name; give the task one, as in @srv.task\(name='resize'\)"):
            srv.task(fn)
    assert srv.task(name="one")(lambda: 1)() == 1
    assert srv.get_tasks() == ["one"]
