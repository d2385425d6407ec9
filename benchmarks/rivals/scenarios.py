"""What is measured of a library: each scenario begins with an empty server and gives figures by name.

The clock is the machine's monotonic one, the same in all processes.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from library import OURS, Library, usage
from server import Server

PATIENCE = 120.0
"""Seconds that a scenario may take."""
LATE = 200
"""Jobs whose latency is measured."""
WARM_UP = 20
ONE_BY_ONE = 5_000
SLEEPS = 5_000
LINKED = 20_000
ENQUEUED = 100_000
"""The most that a scenario takes; a slow library takes as many as its drain has."""
UNITS = {
    "drain_10": "jobs/s",
    "drain_100": "jobs/s",
    "enqueue": "jobs/s",
    "bare": "calls/s",
    "enqueue_100": "jobs/s",
    "enqueue_many": "jobs/s",
    "latency_p50": "ms",
    "latency_p99": "ms",
    "sleeps": "jobs/s",
    "chains": "jobs/s",
    "groups": "jobs/s",
    "commands": "commands/job",
    "bytes_waiting": "bytes/job",
    "bytes_ended": "bytes/job",
    "cpu": "µs/job",
    "rss": "MiB",
}
TITLES = {
    "drain_10": "No-op jobs, concurrency 10",
    "drain_100": "No-op jobs, concurrency 100",
    "enqueue": "Enqueue, one by one from one coroutine",
    "enqueue_100": "Enqueue, from 100 coroutines",
    "enqueue_many": "Enqueue, 1,000 at a time",
    "latency_p50": "Latency, idle worker, p50",
    "latency_p99": "Latency, idle worker, p99",
    "sleeps": "10 ms sleeps, concurrency 100 (ideal 10,000)",
    "chains": "Chains of 10, concurrency 100",
    "groups": "Groups of 10, concurrency 100",
    "commands": "Commands that the server runs for a job, drained (inside scripts counted)",
    "bytes_waiting": "Memory of the server for a job that waits",
    "bytes_ended": "Memory of the server for a job that has ended",
    "cpu": "Processor time of the worker for a job",
    "rss": "Resident memory of the worker after the drain",
}
LESS_IS_BETTER = {"ms", "commands/job", "bytes/job", "µs/job", "MiB"}
FASTEST = ("drain_10", "drain_100", "enqueue", "latency", "sleeps")
"""What is measured of a library's fastest setting: the rest needs its results, or would be the same."""

Found = dict[str, float]


@dataclass
class Run:
    """One scenario of one library, with `most` jobs."""

    library: Library
    server: Server
    most: int

    @property
    def jobs(self) -> int:
        return min(self.most, self.library.about["jobs"])

    def enqueue(self, way: str, most: int) -> float:
        self.server.empty()
        return float(self.library.call("fill", way, min(most, self.jobs), "noop"))

    def drain(self, concurrency: int) -> Found:
        """From the first start to the last stored result."""
        return self._filled("noop", self.jobs, concurrency)

    def sleeps(self) -> Found:
        return self._filled("sleep", min(SLEEPS, self.most), 100)

    def linked(self, kind: str) -> Found:
        """The same for jobs that belong to each other, ten by ten."""
        n = min(LINKED, self.jobs) // 10 * 10
        empty = self._empty()
        self.library.call("fill", kind, n, "noop")
        return self._drain(empty, n, 100, self.library.name == OURS)

    def latency(self) -> Found:
        """From the call that enqueues to the first line of the handler, in another process."""
        library = self.library
        self.server.empty()
        library.forget()
        with library.worker(10) as process:
            library.call("offer", LATE)
            library.must_live(process, "latency")
        data = library.mark.read_bytes()
        seconds = sorted(struct.unpack(f"<{len(data) // 8}d", data)[WARM_UP:])
        return {f"latency_p{p}": seconds[max(0, -(-len(seconds) * p // 100) - 1)] * 1000 for p in (50, 99)}

    def _empty(self) -> int:
        """Bytes of a server that has nothing."""
        self.server.empty()
        return self.server.stored()

    def _filled(self, task: str, n: int, concurrency: int) -> Found:
        empty = self._empty()
        self.library.call("fill", "bulk" if self.library.about["bulk"] else "one", n, task)
        waiting = self.server.stored() - empty
        return self._drain(empty, n, concurrency) | {"bytes_waiting": waiting / n}

    def _drain(self, empty: int, n: int, concurrency: int, counted: bool = True) -> Found:
        library, server = self.library, self.server
        library.forget()
        left, done = library.about["left"], library.about["done"]
        target = server.count(done) + n if done else 0
        counted = counted and bool(left or done)

        def ready() -> bool:
            if not counted:
                return library.last.exists()
            return server.count(done) >= target if done else server.count(left) == 0

        before = server.commands()
        with library.worker(concurrency, 0 if counted else n) as process:
            library.until(library.mark.exists, process, "first start")
            used = usage(process.pid).cpu
            end = library.until(ready, process, "last end")
            after, commands = usage(process.pid), server.commands() - before
            if not counted:
                end = float(library.last.read_text(encoding="ascii"))
            seconds = end - float(library.mark.read_text(encoding="ascii"))
        return {
            "speed": n / seconds,
            "commands": commands / n,
            "bytes_ended": (server.stored() - empty) / n,
            "cpu": (after.cpu - used) / n * 1e6,
            "rss": after.rss,
        }


def _drain(run: Run, concurrency: int) -> Found:
    """The costs are those of the widest drain that it has."""
    found = run.drain(concurrency)
    speed = found.pop("speed")
    widest = concurrency == 100 or "drain_100" not in run.library.about["scenarios"]
    return {f"drain_{concurrency}": speed, **(found if widest else {})}


def _enqueue(run: Run) -> Found:
    found = {"enqueue": run.enqueue("one", ONE_BY_ONE)}
    if run.library.name == OURS:
        found["bare"] = run.enqueue("bare", ONE_BY_ONE)
    return found


SCENARIOS: dict[str, Callable[[Run], Found]] = {
    "drain_10": lambda run: _drain(run, 10),
    "drain_100": lambda run: _drain(run, 100),
    "enqueue": _enqueue,
    "enqueue_100": lambda run: {"enqueue_100": run.enqueue("hundred", ENQUEUED)},
    "enqueue_many": lambda run: {"enqueue_many": run.enqueue("bulk", ENQUEUED)},
    "latency": lambda run: run.latency(),
    "sleeps": lambda run: {"sleeps": run.sleeps()["speed"]},
    "chains": lambda run: {"chains": run.linked("chain")["speed"]},
    "groups": lambda run: {"groups": run.linked("group")["speed"]},
}


def takes_part(library: Library, scenario: str) -> bool:
    if library.variant == "fastest" and scenario not in FASTEST:
        return False
    return scenario in library.about["scenarios"]


def measure(library: Library, server: Server, scenario: str, most: int) -> Found:
    """Figures by name; at most so many jobs, 0: no such limit. Failed after PATIENCE."""
    library.deadline = time.monotonic() + PATIENCE
    return SCENARIOS[scenario](Run(library, server, most or sys.maxsize))
