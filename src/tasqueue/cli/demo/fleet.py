"""The demo's workers: `tasqueue worker` as a child process, with its log in a file that is shown when it fails."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Self

import click

from ...clock import SYSTEM
from ...server import Server

PROCESSES = 2
START_WITHIN = 30.0
APP = "tasqueue.cli.demo.app:srv"


class Fleet:
    """`async with Fleet(srv, log)`: the workers are ready when it is entered, and gone when it is left."""

    def __init__(self, srv: Server, log: Path) -> None:
        self._srv = srv
        self._log = log
        self.killed: list[int] = []

    async def __aenter__(self) -> Self:
        arguments = ("worker", APP, "--processes", str(PROCESSES), "--log-level", "warning")
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tasqueue", *arguments, stdout=log, stderr=log
            )
        deadline = SYSTEM.mono() + START_WITHIN
        try:
            while len(await self._srv.inspector.workers()) < PROCESSES:
                self.check()
                if SYSTEM.mono() > deadline:
                    raise click.ClickException(f"no workers after {START_WITHIN:g} s; {self.log()}")
                await asyncio.sleep(0.05)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    def check(self) -> None:
        """ClickException when the workers have ended by themselves."""
        if self._process.returncode is not None:
            raise click.ClickException(f"the workers ended; {self.log()}")

    def log(self) -> str:
        """What they have said, warnings and worse."""
        return f"their log:\n{self._log.read_text(errors='replace').rstrip() or '(empty)'}"

    async def kill_one(self) -> int | None:
        """SIGKILL the worker process that holds most jobs; its pid, None if none holds any."""
        alive = [
            w for w in await self._srv.inspector.workers() if w.held and w.info.get("pid") not in (None, *self.killed)
        ]
        if not alive:
            return None
        pid = int(max(alive, key=lambda worker: worker.held).info["pid"])
        os.kill(pid, signal.SIGKILL)
        self.killed.append(pid)
        return pid
