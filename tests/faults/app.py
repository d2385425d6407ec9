"""The application of the fault tests' child processes: `python -m tests.faults.app` works, as `srv.run()`, without a
supervisor; `tasqueue worker tests.faults.app:srv` works under one; `… produce N` enqueues.

`$FAULTS_DIR` is the test's folder: the handlers' history, and the files by which the test tells them something.
`$FAULTS_SETTINGS`, a JSON object: what the Server is given, the store's URLs among it. Payloads are JSON objects: `s`,
how many seconds a job takes; `save`, what it saves.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasqueue import Chain, EngineUnavailable, Group, Job, JobCtx, Server
from tasqueue.core import codec

from .history import Follower, History, Writer

FOLDER = Path(os.environ["FAULTS_DIR"])
SETTINGS: dict[str, Any] = json.loads(os.environ.get("FAULTS_SETTINGS", "{}"))
HISTORY = FOLDER / "history"
if "version" in SETTINGS:
    codec.VERSION = SETTINGS.pop("version")  # a worker of a newer release
extra_tasks: list[str] = SETTINGS.pop("tasks", [])

srv = Server(**SETTINGS)
lines = Writer(HISTORY)
followed = Follower(HISTORY)  # of the event loop


@contextmanager
def told(ctx: JobCtx) -> Iterator[dict[str, Any]]:
    """The lines around a handler; its payload."""
    id, task = ctx.meta.id, ctx.job.task
    lines.write("S", id, task)
    try:
        payload = ctx.job.payload
        yield json.loads(payload) if payload.startswith(b"{") else {}
    except BaseException:
        lines.write("X", id, task)
        raise
    lines.write("E", id, task)


def save(ctx: JobCtx, options: dict[str, Any]) -> None:
    if "save" in options:
        ctx.save(str(options["save"]).encode())


async def work(payload: bytes, ctx: JobCtx) -> None:
    """Takes a while."""
    with told(ctx) as options:
        await asyncio.sleep(options.get("s", 0))
        save(ctx, options)


def thread(payload: bytes, ctx: JobCtx) -> None:
    """The same in a thread, deaf to interruptions."""
    with told(ctx) as options:
        time.sleep(options.get("s", 0))
        save(ctx, options)


async def block(payload: bytes, ctx: JobCtx) -> None:
    """Blocks the event loop."""
    with told(ctx) as options:
        time.sleep(options["s"])  # noqa: ASYNC251


async def gil(payload: bytes, ctx: JobCtx) -> None:
    """Holds the GIL: no other thread of the process runs."""
    with told(ctx) as options:
        ctypes.PyDLL(None).usleep(int(options["s"] * 1e6))


async def first_waits(payload: bytes, ctx: JobCtx) -> None:
    """Its first run waits for the file `go` (with `block`, blocking the loop) and saves b"first"; another saves
    b"second", with `again` after waiting for `go-again`.
    """
    with told(ctx) as options:
        first = len(History.read(HISTORY).of(ctx.meta.id)) == 1
        while first and not (FOLDER / "go").exists():
            if options.get("block"):
                time.sleep(0.002)  # noqa: ASYNC251
            else:
                await asyncio.sleep(0.02)
        while not first and options.get("again") and not (FOLDER / "go-again").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        ctx.save(b"first" if first else b"second")


def first_waits_in_thread(payload: bytes, ctx: JobCtx) -> None:
    """The same in a thread."""
    with told(ctx):
        first = len(History.read(HISTORY).of(ctx.meta.id)) == 1
        while first and not (FOLDER / "go").exists():
            time.sleep(0.01)
        ctx.save(b"first" if first else b"second")


async def poison(payload: bytes, ctx: JobCtx) -> None:
    """Kills its process; the first two times only when all its neighbours run beside it."""
    with told(ctx) as options:
        while ctx.meta.deaths < 2:
            beside = [run for run in followed.read().open(os.getpid()) if run.task == "neighbour"]
            if len(beside) >= options["neighbours"]:
                break
            await asyncio.sleep(0.02)
        if options["how"] == "exit":
            os._exit(7)
        if options["how"] == "killed":  # as the kernel does when memory is out
            os.kill(os.getpid(), signal.SIGKILL)
        ctypes.string_at(0)


async def neighbour(payload: bytes, ctx: JobCtx) -> None:
    """Slow as long as there is a poison job that has not had its last run."""
    with told(ctx):
        while len(followed.read().all("poison")) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def flaky(payload: bytes, ctx: JobCtx) -> None:
    """Fails the first time."""
    with told(ctx):
        if ctx.meta.retried == 0:
            raise ValueError("the first time")


async def step(payload: bytes, ctx: JobCtx) -> None:
    """A step of a chain: saves the step before's number plus one, and fails when that is not its own."""
    with told(ctx) as options:
        await asyncio.sleep(options.get("s", 0))
        before = int(ctx.prev(int) or 0)
        assert before == options["n"], (before, options)
        ctx.save((before + 1).to_bytes(1, "big"))


async def member(payload: bytes, ctx: JobCtx) -> None:
    """A member of a group."""
    with told(ctx) as options:
        await asyncio.sleep(options.get("s", 0))
        ctx.save(b"m")


async def callback(payload: bytes, ctx: JobCtx) -> None:
    """A group's callback: saves how many results there are."""
    with told(ctx):
        ctx.save(str(len([one async for one in ctx.results(bytes)])).encode())


async def after(payload: bytes, ctx: JobCtx) -> None:
    """A follow-up."""
    with told(ctx):
        pass


async def tick(ctx: JobCtx) -> None:
    """A schedule's job."""
    with told(ctx):
        pass


async def plain(payload: bytes, ctx: JobCtx) -> None:
    """A task that only some workers know."""
    with told(ctx):
        pass


def heard(ctx: JobCtx) -> None:
    """A success_cb, so that the point of the callbacks is reached."""


for handler in (work, thread, block, gil, first_waits, first_waits_in_thread, poison, neighbour, step, member, after):
    srv.register_task(handler.__name__, handler)
srv.register_task("callback", callback)
srv.register_task("flaky", flaky, max_retries=3, backoff=0.05)
srv.register_task("heard", work, success_cb=heard)
srv.register_task("impatient", thread, timeout=0.5, max_retries=1, backoff=0.05)
for name in extra_tasks:
    if name == "every-second":
        srv.task(name=name, schedule="@every 1s")(tick)
    else:
        srv.register_task(name, plain)


def job(task: str, id: str | None = None, **options: Any) -> Job[Any]:
    """A job of this application, by what its payload says."""
    return Job(task, json.dumps(options).encode(), id=id)


async def insist(call: Callable[[], Awaitable[object]]) -> None:
    """Enqueue, once more whenever it is not known whether that was done."""
    while True:
        try:
            await call()
            return
        except EngineUnavailable as error:
            if not error.ids:
                raise


async def produce(what: str, n: int) -> None:
    """Enqueue, saying in the file `accepted` what was tried (`?`) and what is stored (`!`)."""
    accepted = os.open(FOLDER / "accepted", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def say(mark: str, ids: list[str]) -> None:
        os.write(accepted, "".join(f"{mark} {id}\n" for id in ids).encode())

    async with srv:
        if what == "same":  # the same ids as everybody else, in an order of its own, one by one and in batches
            ids = [f"same-{i}" for i in range(n)]
            random.shuffle(ids)
            while ids:
                some, ids = ids[:50], ids[50:]
                if random.random() < 0.5:
                    await srv.enqueue_many([job("work", id) for id in some])
                else:
                    await asyncio.gather(*(srv.enqueue(job("work", id)) for id in some))
                say("!", some)
        elif what == "stream":  # until killed, in steps that a queue of n can hold
            i = 0
            while True:
                if i - followed.read().done() < n:
                    some = [f"s{os.getpid()}-{i + k}" for k in range(20)]
                    i += 20
                    say("?", some)
                    await insist(lambda some=some: srv.enqueue_many([job("work", id, s=0.005) for id in some]))
                    say("!", some)
                else:
                    await asyncio.sleep(0.01)
        else:  # a little of everything, under fixed ids; what is not known to be stored is enqueued again
            calls: list[tuple[list[str], Callable[[], Awaitable[object]]]] = [
                (["one"], lambda: srv.enqueue(job("work", "one"))),
                (
                    [f"many-{i}" for i in range(n)],
                    lambda: srv.enqueue_many([job("work", f"many-{i}") for i in range(n)]),
                ),
                (
                    [f"c~c{i}" for i in range(3)],
                    lambda: srv.enqueue_chain(Chain([job("step", n=i) for i in range(3)], id="c")),
                ),
                (
                    [*(f"g~g{i}" for i in range(3)), "g~s0"],
                    lambda: srv.enqueue_group(Group([job("member")] * 3, id="g", on_success=job("callback"))),
                ),
            ]
            for ids, call in calls:
                say("?", ids)
                await insist(call)
                say("!", ids)


if __name__ == "__main__":
    if sys.argv[1:2] == ["produce"]:
        asyncio.run(produce(sys.argv[2], int(sys.argv[3])))
    else:
        from tests.faults import app  # not as __main__, so that nothing here exists twice

        app.srv.run()
