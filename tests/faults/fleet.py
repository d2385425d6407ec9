"""The processes of a fault test: workers with and without a supervisor, producers; each known by its pid, and gone at
the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from tasqueue import Job, Server, Status
from tasqueue.interfaces import Engine

from .history import Follower, History, Kill
from .stores import Store

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that a test waits for what takes a moment on a quiet machine: CI has two cores, and other tests beside."""


class Process:
    """A started process; `log` is what it says."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.path = log
        with log.open("wb") as file:
            self._popen = subprocess.Popen(
                [sys.executable, *argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, cwd=ROOT
            )
        self.pid = self._popen.pid

    @property
    def log(self) -> str:
        return self.path.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """As in subprocess; None while it lives."""
        return self._popen.poll()

    def children(self) -> list[int]:
        """Its direct children's pids."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    async def ended(self, within: float = PATIENCE) -> int:
        """Its exit code, when it has ended."""
        await until(lambda: self.code is not None, f"process {self.pid} does not end", within)
        assert self.code is not None
        return self.code


class Fleet:
    """One store, and whoever works on it; their files are in `folder`. `settings` go to every Server of it."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.settings: dict[str, Any] = {"lease": 2.0, "max_deaths": 1000, **store.settings}
        self.processes: list[Process] = []
        self.kills: list[Kill] = []
        self.may_complain = False
        """Whether a traceback in a log is what the test is about."""
        self._servers: list[Server] = []
        self._engine: Engine | None = None
        self._follower = Follower(folder / "history")

    # -- what there is ------------------------------------------------------------------------------------------------

    def server(self, **settings: Any) -> Server:
        """One of this process, to enqueue and look; closed at the end."""
        server = Server(**{**self.settings, **settings})
        self._servers.append(server)
        return server

    async def engine(self) -> Engine:
        """An open one."""
        if self._engine is None:
            self._engine = (await self.server().parts()).engine
        return self._engine

    def worker(self, fault: str = "", **settings: Any) -> Process:
        """A worker without a supervisor, as `srv.run()`."""
        return self._start(["-m", "tests.faults.app"], fault, settings)

    def supervised(self, processes: int, **settings: Any) -> Process:
        """`tasqueue worker`."""
        return self._start(
            ["-m", "tasqueue", "worker", "tests.faults.app:srv", "--processes", str(processes)], "", settings
        )

    def producer(self, what: str, n: int, fault: str = "") -> Process:
        """See `app.produce`."""
        return self._start(["-m", "tests.faults.app", "produce", what, str(n)], fault, {})

    def _start(self, argv: list[str], fault: str, settings: dict[str, Any]) -> Process:
        env = {
            **os.environ,
            "FAULTS_DIR": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        }
        env["FAULTS_SETTINGS"] = json.dumps({**self.settings, **settings})
        if fault:
            env["TASQUEUE_FAULT"] = fault
        process = Process(argv, env, self.folder / f"log-{len(self.processes)}")
        self.processes.append(process)
        return process

    def history(self) -> History:
        """As far as it is written by now."""
        return self._follower.read()

    def produced(self) -> tuple[set[str], set[str]]:
        """What producers were told is stored, and what they tried to store."""
        path = self.folder / "accepted"
        marks = [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []
        return {id for mark, id in marks if mark == "!"}, {id for _, id in marks}

    # -- what is done to it -------------------------------------------------------------------------------------------

    async def kill(self, pid: int) -> Kill:
        """SIGKILL, and how many jobs that took: the process is stopped first, so that the number is exact."""
        await self.engine()  # opening may write, which somebody who is stopped may prevent
        await self._stop(pid)
        held = await self.held(pid)
        os.kill(pid, signal.SIGKILL)
        kill = Kill(pid, time.monotonic(), held)
        self.kills.append(kill)
        return kill

    async def held(self, pid: int) -> int:
        """How many jobs the store says that this process holds."""
        return await self.store.held(await self.engine(), pid)

    async def freeze(self, pid: int) -> None:
        """SIGSTOP, but not where that would hold up others."""
        deadline = time.monotonic() + PATIENCE
        while True:
            await self._stop(pid)
            if self.store.may_be_stopped():
                return
            os.kill(pid, signal.SIGCONT)
            assert time.monotonic() < deadline, "whenever it is stopped it holds the lock"
            await asyncio.sleep(0.01)

    async def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: state_of(pid) in "TZ", f"process {pid} does not stop")

    # -- what is waited for -------------------------------------------------------------------------------------------

    async def until(self, true: Callable[[], object], why: str, within: float = PATIENCE) -> None:
        """Until it holds; AssertionError with the end of each log when it does not in time."""
        try:
            await until(true, why, within)
        except AssertionError as error:
            logs = "".join(f"\n--- {p.path.name} ({p.pid}, {p.code})\n{p.log[-1500:]}" for p in self.processes[-8:])
            raise AssertionError(f"{error}{logs}") from None

    async def until_ended(self, server: Server, within: float = PATIENCE) -> None:
        """Until the store has no job that has not ended: none is stuck."""
        deadline = time.monotonic() + within
        while queues := {q: s for q, s in (await server.inspector.counts()).queues.items() if any(s.values())}:
            if time.monotonic() > deadline:
                await self.until(lambda: False, f"stuck: {queues}", 0)
            await asyncio.sleep(0.05)

    async def all_successful(self, server: Server, ids: Collection[str], within: float = PATIENCE) -> None:
        """Until all have ended; each one successfully."""
        await self.until_ended(server, within)
        for id in ids:
            message = await server.get_job(id)
            assert message.meta.status is Status.SUCCESSFUL, (id, message.meta)

    async def close(self) -> None:
        """End everything, by pid; AssertionError when a process has logged a traceback that nobody expected."""
        for server in self._servers:
            await server.close()
        for process in self.processes:
            pids = [process.pid, *process.children()]
            if process.code is None:
                for pid in pids:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
        for process in self.processes:
            await process.ended()
        if not self.may_complain:
            for process in self.processes:
                log = process.log
                at = log.find("Traceback (most recent call last)")
                assert at < 0, f"{process.path.name} ({process.pid}): {log[max(0, at - 300) : at + 3000]}"


def state_of(pid: int) -> str:
    """As ps has it: R, S, T (stopped), Z (ended), …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def until(true: Callable[[], object], why: str, within: float = PATIENCE) -> None:
    """Look again and again, until it holds."""
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"{why}, after {within:g} s")
        await asyncio.sleep(0.01)


def job(task: str, id: str | None = None, **options: Any) -> Job[Any]:
    """A job of `tests.faults.app`, by what its payload says."""
    return Job(task, json.dumps(options).encode(), id=id)
