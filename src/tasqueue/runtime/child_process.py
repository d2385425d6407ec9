"""One worker child of a supervisor: how it is started, what it is told, how it is doing and how it ended.

Invariant: a child does not outlive its supervisor (its lifeline ends), nor do the processes that it started outlive a
child that crashed (they share its process group).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import msgspec

from .board import Board

RECYCLE = 75
"""Exit code: replace me at once, nothing is wrong with what I gave back."""
UNAVAILABLE = 69
"""Exit code: the engine did not answer; no fault of the app's."""


class Config(msgspec.Struct):
    """What a child is told, as JSON on its command line. `$TASQUEUE_URL` tells it what it tells the supervisor."""

    app: str
    queues: list[str] | None = None
    concurrency: int | None = None
    grace: float | None = None


class Process:
    """A started child. `poll` takes note of what has become of it; `gone` is set when it has ended."""

    def __init__(self, config: Config, started: float) -> None:
        self.started = started
        self.board = Board.create()
        self.gone = asyncio.Event()
        self.stopped = False
        """By SIGSTOP or the like."""
        self.ending = False
        """It was asked to end."""
        self.replaced = False
        """Another one has its place."""
        self.overdue = False
        """It was killed because a job in it was past its timeout."""
        self.code: int | None = None
        """As in subprocess: negative for a signal; None while it lives."""
        lifeline, self._lifeline = os.pipe()
        try:
            fds = (self.board.fd, lifeline)
            told = (msgspec.json.encode(config).decode(), *map(str, fds))
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tasqueue.runtime.child", *told],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,  # Ctrl-C in a terminal reaches the supervisor only, which then drains its children
            )
        finally:
            os.close(lifeline)
        self.pid = self._popen.pid

    def poll(self) -> None:
        """Stopped, going on, or gone? Costs one system call."""
        while self.code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:  # the app has waited for it, so nobody knows how it ended
                pid, status = self.pid, 255 << 8
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self.stopped = True
            elif os.WIFCONTINUED(status):
                self.stopped = False
            else:
                self.code = self._popen.returncode = os.waitstatus_to_exitcode(status)
                self.gone.set()

    def signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        self.poll()
        if self.code is None:
            os.kill(self.pid, number)

    def sweep(self) -> None:
        """Kill what a crashed child has left in its group: a job's own process must not run beside its next run."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._lifeline)
        self.board.close()

    @property
    def cause(self) -> str:
        """How it ended, for people."""
        if self.overdue:
            return "job past its timeout"
        return cause_of(self.code or 0)


def cause_of(code: int) -> str:
    """`exit code 7`, or `killed by SIGSEGV (signal 11)`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"killed by signal {-code}"
    return f"killed by {name} (signal {-code})"
