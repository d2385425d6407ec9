"""What a worker tells with each beat: who it is, what it serves, what it runs and has done. Read by status, dashboard
and explain."""

from __future__ import annotations

import os
import platform
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..client import __version__
from ..core.record import Kind, Step
from ..core.status import State
from .crew import Crew

SHOWN = 50
"""Running jobs that are named, at the most."""


class Running(msgspec.Struct):
    """A job in a slot; `since` in ms."""

    id: str
    task: str
    queue: str
    since: int


class WorkerInfo(msgspec.Struct):
    """As it is stored, msgpack. Times in ms, memory in bytes; the counters are since the worker's start."""

    host: str
    pid: int
    version: str
    python: str
    started_at: int
    at: int
    queues: dict[str, int]
    """Queue -> concurrency."""
    tasks: list[str]
    running: list[Running]
    busy: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    refused: int = 0
    rss: int = 0
    draining: bool = False


class Info:
    """Counts what was stored and makes the report; `encode` may be called from another thread."""

    def __init__(self, crew: Crew, concurrency: int, draining: Callable[[], bool]) -> None:
        self._crew = crew
        self._draining = draining
        self._concurrency = concurrency
        self._started_at = int(crew.ports.now() * 1000)
        self.done = self.failed = self.cancelled = self.retried = 0

    def count(self, steps: Sequence[Step]) -> None:
        """Steps were stored."""
        for step in steps:
            if step.kind is Kind.END:
                if step.state is State.SUCCESSFUL:
                    self.done += 1
                elif step.state is State.FAILED:
                    self.failed += 1
                else:
                    self.cancelled += 1
            elif step.kind is Kind.RETRY:
                self.retried += 1

    def encode(self) -> bytes:
        """The report as it is now."""
        crew = self._crew
        lanes = list(crew.lanes.values())
        active = [a for lane in lanes for a in list(lane.running.values())]
        return msgspec.msgpack.encode(
            WorkerInfo(
                socket.gethostname(),
                os.getpid(),
                __version__,
                platform.python_version(),
                self._started_at,
                int(crew.ports.now() * 1000),
                {lane.queue: lane.concurrency for lane in lanes},
                sorted(crew.registry.tasks),
                [Running(a.run.lease.id, a.task.name, a.lane.queue, a.run.started_at) for a in active[:SHOWN]],
                len(active),
                self.done,
                self.failed,
                self.cancelled,
                self.retried,
                crew.settler.refused,
                _rss(),
                self._draining(),
            )
        )


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:  # no /proc: the peak is the best there is
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
