"""A job's last allowed run in a process of its own: the worker here keeps the lease, a real child runs the handler."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.runtime.fleet import Fleet, until

from tasqueue import Job, JobFailed, Server, Status
from tasqueue.clock import SYSTEM
from tasqueue.runtime import isolated
from tasqueue.runtime.isolated import Isolator
from tasqueue.runtime.worker import Worker

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs socket pairs that are inherited")

APP = """
import asyncio, ctypes, os, sys
from contextlib import asynccontextmanager
from pathlib import Path
from tasqueue import Fail, Server, Snooze

HERE = Path(__file__).parent
LONE = sys.argv[0].endswith("isolated_child.py")

if LONE and (HERE / "broken").exists():
    (HERE / "tried").touch()
    raise ImportError("half a deployment")

def told(word):
    return (HERE / word).exists()

@asynccontextmanager
async def lifespan(srv):
    yield "from the lifespan"
    if LONE:
        (HERE / "left").touch()

# A job may die once, so every run is its last allowed one.
srv = Server(os.environ["ISOLATED_URL"], max_deaths=1, grace=2.0, lifespan=lifespan)

@srv.task
async def add(a: int, b: int) -> int:
    return a + b

async def where(payload, ctx):
    ctx.save(f"{os.getpid()} {ctx.state} {payload.decode()} {ctx.meta.retried}".encode())

def raises(payload, ctx):
    ctx.save(b"so far")
    raise ValueError("no such file")

async def last(payload, ctx):
    raise Fail("never again")

async def snoozes(payload, ctx):
    if not told("snoozed"):
        (HERE / "snoozed").touch()
        raise Snooze(0.01)

def dies(payload, ctx):
    if payload == b"exit":
        os._exit(7)
    os.kill(os.getpid(), int(payload))

async def says(payload, ctx):
    (HERE / "pid").write_text(str(os.getpid()))
    await ctx.progress(3, 10, "on the way")
    while not told("go"):
        if ctx.draining:
            (HERE / "saw-draining").touch()
        await asyncio.sleep(0.01)

async def cleans_up(payload, ctx):
    (HERE / "pid").write_text(str(os.getpid()))
    try:
        await asyncio.sleep(60)
    finally:
        (HERE / "cleaned").write_text(ctx.interrupted)

def hog(payload, ctx):
    (HERE / "pid").write_text(str(os.getpid()))
    ctypes.PyDLL(None).usleep(60_000_000)

async def chatty(payload, ctx):
    (HERE / "pid").write_text(str(os.getpid()))
    while True:
        await ctx.progress(1, 2)
        await asyncio.sleep(0)

def heard(ctx, error):
    (HERE / "heard").write_text(f"{type(error).__name__}: {error}")

for handler in (where, raises, last, snoozes, dies, says, cleans_up, hog, chatty):
    srv.register_task(handler.__name__, handler, max_retries=2, backoff=0.01, failed_cb=heard)
"""

WORKER = """
import asyncio
from fleetapp import srv
from tasqueue.clock import SYSTEM
from tasqueue.runtime.isolated import Isolator
from tasqueue.runtime.worker import Worker

async def main():
    await Worker(await srv.parts(), isolator=Isolator("fleetapp:srv", SYSTEM)).run()

asyncio.run(main())
"""


@asynccontextmanager
async def working(server: Server) -> AsyncIterator[Worker]:
    worker = Worker(await server.parts(), isolator=Isolator("isolatedapp:srv", SYSTEM))
    task = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        worker.stop()
        await task


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    (tmp_path / "isolatedapp.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOLATED_URL", f"sqlite:///{tmp_path / 'jobs.db'}")
    namespace: dict[str, object] = {"__file__": str(tmp_path / "isolatedapp.py"), "__name__": "isolatedapp"}
    exec(compile(APP, "isolatedapp.py", "exec"), namespace)  # not imported: each test has a module of its own
    server = namespace["srv"]
    assert isinstance(server, Server)
    yield server
    await server.close()


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def running(folder: Path) -> int:
    """The process that the handler runs in."""
    return int(await until(lambda: read(folder / "pid"), "the handler's start"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_the_handler_did_there_is_settled_here(server: Server, tmp_path: Path) -> None:
    async with working(server):
        await server.enqueue_many([Job("where", b"hello", id="where"), Job("add", b"\x92\x92\x01\x02\x80", id="add")])
        message = await server.wait("where", 15)
        assert message.meta.status is Status.SUCCESSFUL
        pid, rest = (await server.get_result("where")).decode().split(" ", 1)
        assert rest == "from the lifespan hello 0"
        assert int(pid) != os.getpid()
        assert (await server.wait("add", 15)).meta.status is Status.SUCCESSFUL
        assert await server.handle("add", int).result() == 3
    await until(lambda: (tmp_path / "left").exists() and not alive(int(pid)), "a clean end of that process")


async def test_an_error_there_is_an_error_as_any(server: Server, tmp_path: Path) -> None:
    async with working(server):
        await server.enqueue_many([Job("raises", id="raises"), Job("last", id="last"), Job("snoozes", id="snoozes")])
        message = await server.wait("raises", 20)
        assert (message.meta.status, message.meta.retried) == (Status.FAILED, 2)
        assert [(error.type, error.message) for error in message.meta.errors] == [("ValueError", "no such file")] * 3
        assert "raise ValueError" in message.meta.errors[0].traceback
        assert await server.get_result("raises") == b"so far"
        message = await server.wait("last", 15)
        assert (message.meta.status, message.meta.retried) == (Status.FAILED, 0)
        assert await until(lambda: read(tmp_path / "heard"), "heard")
        message = await server.wait("snoozes", 15)
        assert (message.meta.status, message.meta.retried) == (Status.SUCCESSFUL, 0)


@pytest.mark.parametrize(
    ("payload", "cause"), [(b"exit", "exit code 7"), (b"11", "killed by SIGSEGV (signal 11)")], ids=["exit", "segv"]
)
async def test_a_death_there_fails_the_job_for_good(server: Server, tmp_path: Path, payload: bytes, cause: str) -> None:
    async with working(server):
        await server.enqueue_many([Job("dies", payload, id="dies"), Job("where", id="where")])
        message = await server.wait("dies", 15)
        assert (message.meta.status, message.meta.retried) == (Status.FAILED, 0)
        assert message.meta.prev_err == f"WorkerDied: {cause}, in a process that ran nothing else"
        with pytest.raises(JobFailed, match=r"exit code 7|SIGSEGV"):
            await server.handle("dies").result(1)
        assert (await server.wait("where", 15)).meta.status is Status.SUCCESSFUL
        assert (await until(lambda: read(tmp_path / "heard"), "heard")).startswith(
            "JobFailed: job 'dies' failed with WorkerDied"
        )


async def test_progress_and_the_drain_pass_through(server: Server, tmp_path: Path) -> None:
    async with working(server) as worker:
        await server.enqueue(Job("says", id="says"))
        await until(lambda: read(tmp_path / "pid"), "pid")
        async with asyncio.timeout(10):
            while (await server.get_job("says")).meta.progress != (3, 10, "on the way"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        worker.stop()
        await until((tmp_path / "saw-draining").exists, "ctx.draining there")
        (tmp_path / "go").touch()
        assert (await server.wait("says", 15)).meta.status is Status.SUCCESSFUL


async def test_a_cancelled_run_may_clean_up(server: Server, tmp_path: Path) -> None:
    async with working(server):
        await server.enqueue(Job("cleans_up", id="job"))
        pid = await running(tmp_path)
        assert await server.cancel("job")
        assert (await server.wait("job", 10)).meta.status is Status.CANCELLED
        assert await until(lambda: read(tmp_path / "cleaned"), "cleaned") == "cancel"
        assert not alive(pid)


@pytest.mark.parametrize("task", ["hog", "chatty"])
async def test_a_timeout_ends_the_process(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(isolated, "PATIENCE", 0.3)
    async with working(server):
        await server.enqueue(Job(task, id="job", timeout=0.3, max_retries=0))
        pid = await running(tmp_path)
        message = await server.wait("job", 10)
        assert (message.meta.status, message.meta.prev_err) == (Status.FAILED, "TimeoutError: timed out after 0.3 s")
        assert message.meta.deaths == 0
        assert not alive(pid)


async def test_a_drain_gives_back_what_runs_there(server: Server, tmp_path: Path) -> None:
    async with working(server):
        await server.enqueue(Job("hog", id="job"))
        pid = await running(tmp_path)
    meta = (await server.get_job("job")).meta
    assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
    assert [message.meta.id for message in await server.get_pending()] == ["job"]
    await until(lambda: not alive(pid), "the end of that process")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_process_does_not_outlive_its_worker(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, max_deaths=1)
    try:
        worker = fleet.start(script=WORKER)
        await fleet.server.enqueue(Job("deaf", id="job"))
        lone = await fleet.started("job")
        assert lone.pid != worker.pid
        worker.kill()
        await fleet.until(lambda: lone.pid not in fleet.processes(), "the end of the lone process", 3.0)
    finally:
        await fleet.close()


async def test_a_process_that_cannot_start_does_not_fail_the_job(server: Server, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    async with working(server):
        await server.enqueue(Job("where", id="job", max_retries=0))
        await until((tmp_path / "tried").exists, "the first try")
        (tmp_path / "broken").unlink()
        message = await server.wait("job", 20)
        assert (message.meta.status, message.meta.deaths, message.meta.errors) == (Status.SUCCESSFUL, 0, ())
