"""Real supervisors on real files: what the tests of the supervisor and of lone processes hold in their hands.

The evidence is what the handlers themselves write to a file, never the library's own records alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tasqueue import Server

APP = '''
import asyncio, ctypes, os, subprocess, time
from contextlib import asynccontextmanager
from pathlib import Path
from tasqueue import Server

HERE = Path(os.environ["FLEET"])
OPTIONS = __import__("json").loads(os.environ["FLEET_OPTIONS"])

def note(what, ctx):
    line = f"{what} {ctx.meta.id} {os.getpid()} {time.monotonic()}\\n"
    fd = os.open(HERE / "history", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, line.encode())
    os.close(fd)

def told(word):
    return (HERE / word).exists()

@asynccontextmanager
async def lifespan(srv):
    if told("one-waits"):
        try:
            (HERE / "waiting").touch(exist_ok=False)
        except FileExistsError:
            raise RuntimeError("no database today") from None
    elif told("fail-lifespan"):
        raise RuntimeError("no database today")
    while told("waiting") and not told("go-lifespan"):
        await asyncio.sleep(0.01)
    yield "state"

srv = Server(lifespan=lifespan, **OPTIONS)

async def hold(payload, ctx):
    """Runs until it is told to go on."""
    note("start", ctx)
    draining = False
    while not told(f"go-{ctx.meta.id}"):
        if ctx.draining and not draining:
            draining = True
            note("draining", ctx)
        await asyncio.sleep(0.01)
    ctx.save(str(os.getpid()).encode())
    note("end", ctx)

def hog(payload, ctx):
    """Holds the GIL for so many ms, the first time only."""
    note("start", ctx)
    if not told(f"hogged-{ctx.meta.id}"):
        (HERE / f"hogged-{ctx.meta.id}").touch()
        ctypes.PyDLL(None).usleep(int(payload) * 1000)
    note("end", ctx)

def deaf(payload, ctx):
    """A thread that does not listen."""
    note("start", ctx)
    while not told(f"go-{ctx.meta.id}"):
        time.sleep(0.01)
    note("end", ctx)

async def stubborn(payload, ctx):
    """A coroutine that does not let itself be cancelled."""
    note("start", ctx)
    while not told(f"go-{ctx.meta.id}"):
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass

async def family(payload, ctx):
    """Has a process of its own, which nobody ends."""
    process = subprocess.Popen(["sleep", "600"])
    (HERE / f"pid-{ctx.meta.id}").write_text(str(process.pid))
    await hold(payload, ctx)

async def poison(payload, ctx):
    note("start", ctx)
    for neighbour in payload.split():  # they are to die beside it
        while not told(f"seen-{neighbour.decode()}"):
            await asyncio.sleep(0.01)
    os._exit(7)

async def neighbour(payload, ctx):
    (HERE / f"seen-{ctx.meta.id}").touch()
    await hold(payload, ctx)

for handler in (hold, hog, deaf, stubborn, family, poison, neighbour):
    srv.register_task(handler.__name__, handler)
'''

RUN = """
import json, sys
from tasqueue.runtime.main import supervise
from tasqueue.runtime.supervisor import Supervisor
sys.exit(supervise(Supervisor(sys.argv[1], **json.loads(sys.argv[2]))))
"""


T = TypeVar("T")


async def until(condition: Callable[[], T], what: str, within: float = 15.0) -> T:
    """What another process does to a file or to itself cannot be awaited, only looked for."""
    try:
        async with asyncio.timeout(within):
            while not (found := condition()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {within:g} s: {what}") from None


class Entry(NamedTuple):
    """A line of the history: `at` in monotonic seconds."""

    what: str
    id: str
    pid: int
    at: float


class Fleet:
    """A supervisor on an app of its own, in a session of its own, so that whatever it starts can be found and ended."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.options = options
        self.url = f"sqlite:///{folder / 'jobs.db'}"
        (folder / "fleetapp.py").write_text(APP)
        self.supervisors: list[subprocess.Popen[bytes]] = []
        self.log = folder / "log"
        self.server = Server(self.url, **options)

    def start(self, app: str = "fleetapp:srv", *, script: str = RUN, **options: Any) -> subprocess.Popen[bytes]:
        """A supervisor of this app, or another script."""
        env = os.environ | {
            "FLEET": str(self.folder),
            "FLEET_OPTIONS": json.dumps(self.options),
            "TASQUEUE_URL": self.url,
        }
        with self.log.open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-c", script, app, json.dumps(options)],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self.supervisors.append(popen)
        return popen

    def tell(self, word: str) -> None:
        """Make the file that handlers look for."""
        (self.folder / word).touch()

    def history(self, what: str = "", id: str = "") -> list[Entry]:
        try:
            lines = (self.folder / "history").read_text().splitlines()
        except FileNotFoundError:
            return []
        entries = [Entry(w, i, int(pid), float(at)) for w, i, pid, at in (line.split() for line in lines)]
        return [entry for entry in entries if entry.what == (what or entry.what) and entry.id == (id or entry.id)]

    def said(self) -> str:
        """What the supervisor and its children have logged."""
        return self.log.read_text() if self.log.exists() else ""

    async def started(self, id: str, times: int = 1, within: float = 15.0) -> Entry:
        """The start of a run of this job, as its handler saw it."""
        await self.until(lambda: len(self.history("start", id)) >= times, f"start {times} of {id}", within)
        return self.history("start", id)[times - 1]

    async def until(self, condition: Callable[[], Any], what: str, within: float = 15.0) -> None:
        try:
            await until(condition, what, within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    async def exit(self, supervisor: subprocess.Popen[bytes], within: float = 15.0) -> int:
        """Wait for its end; the exit code."""
        await self.until(lambda: supervisor.poll() is not None, "the supervisor's end", within)
        return supervisor.returncode

    def processes(self) -> list[int]:
        """Everything that lives in the sessions of the supervisors, themselves included."""
        sessions = {popen.pid for popen in self.supervisors}
        found: list[int] = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) in sessions and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
        return found

    async def close(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for popen in self.supervisors:
            popen.wait()
        await self.server.close()
