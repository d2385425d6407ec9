"""The evidence of the fault tests: lines that the handlers of a test wrote to a file of their own, and what they
prove.

A line is one O_APPEND write: `S` (a run begins), `E` (the handler is at its end) or `X` (it is left by an error or an
interruption), with the job's id, the process, the monotonic time that all processes of the machine share, the wall
time, and the task. After the total-queue checker of Jepsen: every accepted id is lost, done, done twice or
unexpected; and every run beyond a job's first must be explained by a process that was killed while it held that job.
"""

from __future__ import annotations

import itertools
import os
import time
from bisect import insort
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """`at`: monotonic seconds. `wall`: UNIX seconds."""

    kind: str
    id: str
    pid: int
    at: float
    wall: float
    task: str


@dataclass
class Run:
    """One run of a job's handler, as its process told of it."""

    id: str
    pid: int
    task: str
    start: float
    wall: float
    end: float | None = None
    """When the handler was left; None: the process died first, or it still runs."""
    done: bool = False
    """Left by its end, not by an error."""


class Kill(NamedTuple):
    """A process that was killed: when, and how many jobs it held (running or prefetched)."""

    pid: int
    at: float
    held: int


@dataclass
class Verdict:
    """What a history says about the accepted ids."""

    accepted: int
    done: int = 0
    lost: list[str] = field(default_factory=list[str])
    twice: list[str] = field(default_factory=list[str])
    """The handler came to its end more than once: only a kill between the end and its being stored may do that."""
    unexpected: list[str] = field(default_factory=list[str])
    extra: list[Run] = field(default_factory=list[Run])
    """Runs beyond a job's first."""
    unexplained: list[Run] = field(default_factory=list[Run])
    """Of those, the ones whose predecessor was not on a process that was killed."""
    overlapping: list[tuple[Run, Run]] = field(default_factory=list[tuple[Run, Run]])
    """Two runs of one job at the same time."""
    kills: int = 0
    held: int = 0

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted}, done {self.done}, lost {len(self.lost)}, done twice {len(self.twice)},"
            f" unexpected {len(self.unexpected)},"
            f" extra runs {len(self.extra)} (unexplained {len(self.unexplained)}, overlapping"
            f" {len(self.overlapping)}), kills {self.kills}, held at them {self.held}"
        )

    def check(self) -> None:
        """AssertionError unless nothing is lost, unexpected or overlapping, and a kill explains each extra run."""
        shown = f"{self}\n lost {self.lost[:5]}\n unexpected {self.unexpected[:5]}\n unexplained {self.unexplained[:5]}"
        assert not self.lost, shown
        assert not self.unexpected, shown
        assert not self.unexplained, shown
        assert not self.overlapping, f"{shown}\n overlapping {self.overlapping[:3]}"
        assert len(self.extra) <= self.held, shown


class History:
    """The runs of a file, each job's in the order of their starts."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.runs: dict[str, list[Run]] = {}
        self._open: dict[tuple[str, int], list[Run]] = {}
        self._done: set[str] = set()
        self.add(lines)

    def add(self, lines: Iterable[Line]) -> None:
        """What has come since."""
        for line in sorted(lines, key=lambda line: line.at):
            key = (line.id, line.pid)
            if line.kind == "S":
                run = Run(line.id, line.pid, line.task, line.at, line.wall)
                insort(self.runs.setdefault(line.id, []), run, key=lambda run: run.start)
                self._open.setdefault(key, []).append(run)
                continue
            assert key in self._open, f"an end without a start: {line}"
            run = self._open[key].pop(0)
            if not self._open[key]:
                del self._open[key]
            run.end, run.done = line.at, line.kind == "E"
            if run.done:
                self._done.add(line.id)

    @classmethod
    def read(cls, path: Path) -> History:
        """What has been written so far."""
        return cls(read_lines(path))

    def all(self, task: str = "") -> list[Run]:
        """Every run (of a task), by start."""
        found = [run for runs in self.runs.values() for run in runs if not task or run.task == task]
        return sorted(found, key=lambda run: run.start)

    def of(self, id: str) -> list[Run]:
        """A job's runs."""
        return self.runs.get(id, [])

    def done(self) -> int:
        """How many jobs have come to an end of their handler."""
        return len(self._done)

    def open(self, pid: int | None = None) -> list[Run]:
        """Runs without an end (on a process), by start."""
        found = [run for runs in self._open.values() for run in runs if pid in (None, run.pid)]
        return sorted(found, key=lambda run: run.start)


class Follower:
    """A history that grows with its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._history = History()

    def read(self) -> History:
        """The same one each time, with what has been written since the last one."""
        lines, self._offset = _from(self._path, self._offset)
        self._history.add(lines)
        return self._history


def read_lines(path: Path) -> list[Line]:
    """The whole lines of a file; none when there is no file yet."""
    return _from(path, 0)[0]


def _from(path: Path, offset: int) -> tuple[list[Line], int]:
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read()
    text = text[: text.rfind(b"\n") + 1]
    lines: list[Line] = []
    for raw in text.decode().splitlines():
        kind, id, pid, at, wall, task = raw.split(" ")
        lines.append(Line(kind, id, int(pid), float(at), float(wall), task))
    return lines, offset + len(text)


class Writer:
    """What a handler writes its lines with: one descriptor a process, one write a line, so that a kill tears none."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, kind: str, id: str, task: str) -> None:
        line = f"{kind} {id} {os.getpid()} {time.monotonic():.6f} {time.time():.6f} {task}\n"
        os.write(self._fd, line.encode())


def judge(
    history: History,
    accepted: Collection[str],
    kills: Sequence[Kill] = (),
    attempted: Collection[str] = (),
    *,
    retries: bool = False,
) -> Verdict:
    """Every accepted id is lost, done, done twice or unexpected. `attempted`: not acknowledged, may be done or not.

    `retries`: a run after one that was left by an error needs no kill to explain it.
    """
    known = set(accepted)
    dead = {kill.pid: kill.at for kill in kills}
    verdict = Verdict(len(known), kills=len(kills), held=sum(kill.held for kill in kills))
    verdict.unexpected = sorted(history.runs.keys() - known - set(attempted))
    for id in sorted(known):
        count = sum(run.done for run in history.of(id))
        if not count:
            verdict.lost.append(id)
            continue
        verdict.done += 1
        if count > 1:
            verdict.twice.append(id)
    for runs in history.runs.values():
        for before, run in itertools.pairwise(runs):
            if not (retries and before.end is not None and not before.done):
                verdict.extra.append(run)
                if before.pid not in dead or dead[before.pid] > run.start:
                    verdict.unexplained.append(run)
            end = dead.get(before.pid) if before.end is None else before.end
            if end is None or end > run.start:
                verdict.overlapping.append((before, run))
    return verdict


def chain_faults(history: History, ids: Sequence[str]) -> list[str]:
    """What is wrong with a chain's steps, in their order: one never ended, or began before the one before had."""
    wrong: list[str] = []
    ready: float | None = 0.0
    for id in ids:
        runs = history.of(id)
        ends = [run.end for run in runs if run.done and run.end is not None]
        if not ends:
            wrong.append(f"{id} never ended")
        if runs and (ready is None or runs[0].start < ready):
            wrong.append(f"{id} began before the step before it had ended")
        ready = min(ends) if ends else None
    return wrong


def group_faults(history: History, members: Sequence[str], callback: str) -> list[str]:
    """What is wrong with a group's callback: it never began, or did so before a member had ended."""
    runs = history.of(callback)
    if not runs:
        return [f"{callback} never began"]
    ends = {
        id: min((run.end for run in history.of(id) if run.done and run.end is not None), default=None) for id in members
    }
    return [f"{callback} began before {id} had ended" for id, end in ends.items() if end is None or end > runs[0].start]
