"""The façade: options, the table of calls, start and stop at any time, hooks. What a call does is tested elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.client.support import working

import tasqueue
from tasqueue import DEFAULT_QUEUE, InvalidJob, Job, JobCtx, PayloadTooLarge, QueueConflict, Server, Status
from tasqueue.client.inspector import Inspector
from tasqueue.client.producer import Producer
from tasqueue.events import Ended

SERVER = Path(inspect.getfile(Server))


def test_the_facade_stays_a_facade() -> None:
    assert len(SERVER.read_text("utf-8").splitlines()) < 350


def test_the_public_names() -> None:
    assert len(set(tasqueue.__all__)) == len(tasqueue.__all__)
    for name in tasqueue.__all__:
        assert getattr(tasqueue, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Tusk'"):
        tasqueue.Tusk  # noqa: B018


def test_importing_and_enqueueing_load_no_worker_code() -> None:
    code = """
import sys, tasqueue
def loaded(*names): return sorted(m for m in sys.modules if m.split(".")[0] in names or m.startswith(names))
heavy = ("sqlite3", "click", "rich", "uvloop", "multiprocessing", "concurrent.futures.process", "tasqueue.runtime")
print(loaded(*heavy, "tasqueue.engines", "asyncio"))
from tasqueue import *
print(loaded(*heavy, "tasqueue.engines"))
srv = Server("memory://")
srv.sync.enqueue(Job("t"))
print(loaded(*heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"] * 3


# -- options ----------------------------------------------------------------------------------------------------------


async def test_the_defaults() -> None:
    async with Server("memory://") as srv:
        options = (await srv.parts()).options
    assert options.default_concurrency == min(32, (os.cpu_count() or 1) + 4)
    assert (options.lease, options.grace, options.timeout, options.default_timeout) == (10.0, 30.0, 5.0, None)
    assert (options.max_deaths, options.park_for, options.max_payload) == (3, 86_400.0, 1 << 20)
    assert (options.result_ttl_ms, options.failed_ttl_ms) == (86_400_000, 7 * 86_400_000)
    assert options.namespace == "tasqueue"


async def test_spans_may_be_timedeltas_and_ttls_none_or_zero() -> None:
    srv = Server(
        "memory://",
        lease=timedelta(seconds=2),
        grace=0,
        default_timeout=timedelta(minutes=1),
        result_ttl=None,
        failed_ttl=0,
        namespace="a:b.c-d_1",
    )
    async with srv:
        options = (await srv.parts()).options
    assert (options.lease, options.grace, options.default_timeout) == (2.0, 0.0, 60.0)
    assert (options.result_ttl_ms, options.failed_ttl_ms) == (None, 0)


@pytest.mark.parametrize(
    "option",
    [
        {"default_concurrency": 0},
        {"lease": 0},
        {"grace": -1},
        {"timeout": 0},
        {"timeout": "5"},
        {"default_timeout": 0},
        {"max_deaths": 0},
        {"park_for": -1},
        {"result_ttl": -1},
        {"failed_ttl": "1"},
        {"max_payload": 0},
        {"max_payload": 1 << 24},
        {"max_payload": True},
        {"namespace": ""},
        {"namespace": "a b"},
        {"namespace": "{a}"},
        {"namespace": None},
    ],
)
def test_an_option_that_cannot_be_used_is_named_with_its_value(option: dict[str, Any]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(InvalidJob) as caught:
        Server("memory://", **option)
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


async def test_max_payload_bounds_what_is_enqueued_and_saved() -> None:
    async with Server("memory://", max_payload=10) as srv:

        @srv.task
        async def long(n: int) -> str:
            return "x" * n

        with pytest.raises(PayloadTooLarge, match="max_payload = 10"):
            await srv.enqueue(Job("t", b"x" * 11))
        async with working(srv):
            handle = await long.enqueue(20)
            meta = (await srv.wait(handle.id, 5)).meta
        assert meta.status is Status.FAILED
        assert "PayloadTooLarge" in meta.prev_err


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, fn in vars(Server).items() if inspect.iscoroutinefunction(fn)])
def test_the_facade_has_the_signatures_of_what_is_behind_it(name: str) -> None:
    behind = getattr(Producer, name, None) or getattr(Inspector, name, None)
    if behind is None or name.startswith("_"):
        assert name in {"__aenter__", "__aexit__", "close", "parts", "start", "work", "stop"}
    else:
        assert inspect.signature(getattr(Server, name)) == inspect.signature(behind)


async def test_register_task_and_get_tasks() -> None:
    async with Server("memory://") as srv:
        srv.register_task("b", lambda p, c: None, queue="q", concurrency=5)
        srv.register_task("a", lambda p, c: None, queue="q")
        assert srv.get_tasks() == srv.sync.get_tasks() == ["a", "b"]
        with pytest.raises(QueueConflict):
            srv.register_task("c", lambda p, c: None, queue="q", concurrency=6)
        assert srv.get_tasks() == ["a", "b"]


# -- start and stop ---------------------------------------------------------------------------------------------------


async def test_start_and_stop_and_start_again() -> None:
    async with Server("memory://", grace=1) as srv:

        @srv.task
        async def add(a: int, b: int) -> int:
            return a + b

        for i in range(3):
            async with working(srv):
                assert await (await add.enqueue(i, 1)).result(timeout=5) == i + 1
        await srv.stop()


async def test_stop_while_starting() -> None:
    srv = Server("memory://")
    entered = asyncio.Event()
    go_on = asyncio.Event()
    engine = (await srv.parts()).engine
    await srv.close()
    open_it = engine.open

    async def slow() -> None:
        entered.set()
        await go_on.wait()
        await open_it()

    engine.open = slow  # type: ignore[method-assign]
    started = asyncio.create_task(srv.start())
    await entered.wait()
    stopped = asyncio.create_task(srv.stop())
    await asyncio.sleep(0)
    assert not stopped.done()
    go_on.set()
    await asyncio.wait_for(asyncio.gather(started, stopped), 5)
    assert await srv.inspector.workers() == []
    await srv.close()


async def test_two_starts_at_once_are_refused() -> None:
    async with Server("memory://", grace=1) as srv, working(srv):
        with pytest.raises(RuntimeError, match=r"running already.*srv\.stop"):
            await srv.start()


async def test_cancelling_start_gives_everything_back_at_once() -> None:
    async with Server("memory://", grace=30) as srv:
        entered = asyncio.Event()

        @srv.task
        async def hang() -> None:
            entered.set()
            await asyncio.Event().wait()

        handle = await hang.enqueue()
        task = asyncio.create_task(srv.start())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert [m.meta.id for m in await srv.get_pending()] == [handle.id]
        await asyncio.wait_for(srv.stop(), 1)


async def test_closing_stops_the_worker() -> None:
    entered = asyncio.Event()

    @asynccontextmanager
    async def lifespan(_: Server) -> AsyncIterator[None]:
        entered.set()
        yield

    srv = Server("memory://", grace=1, lifespan=lifespan)
    task = asyncio.create_task(srv.start())
    await entered.wait()
    await srv.close()
    await asyncio.wait_for(task, 1)


async def test_a_task_registered_while_running_is_served_at_once() -> None:
    async with Server("memory://", grace=1) as srv, working(srv):
        srv.register_task("first", lambda payload, ctx: None)
        await srv.wait(await srv.enqueue(Job("first")), 5)

        @srv.task(queue="new", schedule="@yearly")
        async def late() -> str:
            return "served"

        assert await (await late.enqueue()).result(timeout=5) == "served"


async def test_lifespan_is_given_the_server_and_its_value_is_the_state() -> None:
    log: list[Any] = []

    @asynccontextmanager
    async def lifespan(srv: Server) -> AsyncIterator[str]:
        log.append(srv)
        yield "state"
        log.append("left")

    async with Server("memory://", grace=1, lifespan=lifespan) as srv:

        def handler(payload: bytes, ctx: JobCtx) -> None:
            log.append(ctx.state)

        srv.register_task("t", handler)
        id = await srv.enqueue(Job("t"))
        async with working(srv):
            await srv.wait(id, 5)
    assert log == [srv, "state", "left"]


# -- hooks ------------------------------------------------------------------------------------------------------------


async def test_around_wraps_every_run_and_on_hears_of_its_end() -> None:
    async with Server("memory://", grace=1) as srv:
        log: list[str] = []
        ended: list[Ended] = []
        srv.on(Ended, ended.append)

        @srv.around
        async def outer(ctx: JobCtx, call_next: Callable[..., Any]) -> None:
            log.append(f"before {ctx.job.task}")
            await call_next(ctx)
            log.append("after")

        @srv.task
        async def work() -> int:
            log.append("work")
            return 1

        async with working(srv):
            assert await (await work.enqueue()).result(timeout=5) == 1
        assert log == ["before work", "work", "after"]
        assert [(event.task, event.status) for event in ended] == [("work", Status.SUCCESSFUL)]


SCRIPT = """
import sys
from tasqueue import Server
srv = Server(sys.argv[1], grace=5)

@srv.task
async def hello(name: str) -> str:
    print("hello", name, flush=True)
    return name

if __name__ == "__main__":
    hello.sync.enqueue("world")
    srv.sync.close()
    srv.run()
    print("drained", flush=True)
"""


def test_run_drains_on_sigterm(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), f"sqlite:///{tmp_path}/q.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "hello world\n"
        child.send_signal(signal.SIGTERM)
        assert child.stdout.readline() == "drained\n"
        assert child.wait(10) == 0


def test_a_job_without_a_task_goes_to_the_default_queue() -> None:
    srv = Server("memory://")
    id = srv.sync.enqueue(Job("nobody-knows"))
    assert srv.sync.get_job(id).meta.queue == DEFAULT_QUEUE
    srv.sync.close()
