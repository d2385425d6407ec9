"""Runs the measurements in turns, ours and the floor's next to each other, and sums up: medians, spread, ratio.

The result is one document (`Report`), which `--json` writes and `benchmarks/README.md` describes.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import msgspec

from ... import __version__
from ...clock import SYSTEM
from ...engines import redact
from ...engines.sqlite.durability import file_system
from ..terminal import from_ms
from .child import answer, measure, start, until_ready
from .measures import Case

Found = dict[str, float]
ENGINES = ("memory", "sqlite", "redis")


class Scale(msgspec.Struct, frozen=True):
    """How much is measured: `jobs` and `one_by_one` by engine."""

    runs: int
    jobs: dict[str, int]
    one_by_one: dict[str, int]
    latency_jobs: int
    imports: int


FULL = Scale(
    runs=3,
    jobs={"memory": 100_000, "sqlite": 50_000, "redis": 100_000},
    one_by_one={"memory": 20_000, "sqlite": 2_000, "redis": 5_000},
    latency_jobs=500,
    imports=11,
)
QUICK = Scale(
    runs=1,
    jobs={"memory": 10_000, "sqlite": 5_000, "redis": 5_000},
    one_by_one={"memory": 2_000, "sqlite": 300, "redis": 500},
    latency_jobs=50,
    imports=3,
)


class Spread(msgspec.Struct, frozen=True):
    """Several runs of one measurement."""

    median: float
    low: float
    high: float
    runs: list[float]

    @classmethod
    def of(cls, runs: list[float]) -> Spread:
        return cls(statistics.median(runs), min(runs), max(runs), runs)


class Figure(msgspec.Struct, frozen=True):
    """`ratio`: ours / floor, by their medians."""

    engine: str
    name: str
    unit: str
    ours: Spread
    floor: Spread | None = None
    ratio: float | None = None


class Report(msgspec.Struct, frozen=True):
    """All that is needed to read the figures later, on another machine."""

    format: int
    at: datetime
    quick: bool
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    figures: list[Figure]


UNITS = {
    "enqueue_one": "jobs/s",
    "enqueue_many": "jobs/s",
    "drain_10": "jobs/s",
    "drain_100": "jobs/s",
    "cpu": "µs/job",
    "latency_p50": "ms",
    "latency_p95": "ms",
    "latency_p99": "ms",
    "rss": "MiB",
    "import": "ms",
}


def run(engines: Sequence[str], url: str, quick: bool, folder: Path, tell: Callable[[str], None]) -> Report:
    """Everything, in this folder for the files; `tell` is told what is being done. `url`: of the Redis, with a
    namespace of its own.
    """
    scale = QUICK if quick else FULL
    versions = _versions()
    if "redis" in engines:
        from .redis_floor import version_of

        versions["server"] = asyncio.run(version_of(url))
    figures: list[Figure] = []
    for engine in engines:
        ours: dict[str, list[float]] = defaultdict(list)
        floors: dict[str, list[float]] = defaultdict(list)
        for number in range(1, scale.runs + 1):
            tell(f"{engine}, run {number} of {scale.runs}")
            here = folder / f"{engine}-{number}"
            here.mkdir()
            store = _Store(engine, here, url)
            try:
                _gather(floors, _floor(store, scale))
                _gather(ours, _ours(store, scale))
            finally:
                store.clear()
        figures += [_figure(engine, name, ours[name], floors.get(name)) for name in UNITS if name in ours]
    tell("import")
    figures.append(_figure("", "import", [_import_time() for _ in range(scale.imports)], None))
    settings = {
        "jobs": ", ".join(f"{engine} {scale.jobs[engine]:,}" for engine in engines),
        "one by one": ", ".join(f"{engine} {scale.one_by_one[engine]:,}" for engine in engines),
        "latency": f"{scale.latency_jobs} jobs, 10 ms apart, idle worker; memory in one process, others across two",
        **({"SQLite": "WAL, synchronous=FULL, one worker process"} if "sqlite" in engines else {}),
        **({"Redis": f"{redact(url)}, one worker process"} if "redis" in engines else {}),
        "handler": "async, does nothing, saves a result of 2 bytes",
        "event loop": "uvloop" if _version("uvloop") else "asyncio",
        "runs": f"{scale.runs}, ours and the floor in turns",
    }
    return Report(1, from_ms(int(SYSTEM.now() * 1000)), quick, _machine(folder), versions, settings, figures)


class _Store(NamedTuple):
    engine: str
    here: Path
    redis: str

    def url(self, name: str) -> str:
        """An empty one."""
        if self.engine == "memory":
            return "memory://"
        if self.engine == "sqlite":
            return f"sqlite:///{self.here}/{name}.db"
        self.clear()
        return self.redis

    def clear(self) -> None:
        """Nothing is left on a server that is not ours."""
        if self.engine == "redis":
            measure(Case("remove", self.redis))


def _floor(store: _Store, scale: Scale) -> Found:
    path = str(store.here / "floor.db") if store.engine == "sqlite" else ""
    url = store.url("floor") if store.engine == "redis" else ""
    return measure(Case("floor", url, path, scale.jobs[store.engine], scale.one_by_one[store.engine]))


def _ours(store: _Store, scale: Scale) -> Found:
    n, few, late = scale.jobs[store.engine], scale.one_by_one[store.engine], scale.latency_jobs
    found: Found = {}
    if store.engine == "memory":
        for concurrency in (10, 100):
            found |= measure(Case("fill_and_drain", store.url(""), n=n, concurrency=concurrency))
        found |= measure(Case("enqueue_one", store.url(""), few=few))
        return found | measure(Case("latency", store.url(""), n=late))

    for concurrency in (10, 100):
        url = store.url(f"{concurrency}")
        found |= measure(Case("enqueue_many", url, n=n))
        found |= measure(Case("drain", url, n=n, concurrency=concurrency))
    found |= measure(Case("enqueue_one", store.url("few"), few=few))
    case = Case("latency_worker", store.url("latency"), n=late)
    with start(case) as worker:
        until_ready(case, worker)
        measure(Case("latency_producer", case.url, n=late))
        return found | answer(case, worker)


def _import_time() -> float:
    """Of `tasqueue` in a fresh interpreter, in ms."""
    code = "import time; t = time.perf_counter(); import tasqueue; print((time.perf_counter() - t) * 1000)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def _gather(into: dict[str, list[float]], found: Found) -> None:
    for name, value in found.items():
        into[name].append(value)


def _figure(engine: str, name: str, ours: list[float], floor: list[float] | None) -> Figure:
    mine = Spread.of(ours)
    if not floor:
        return Figure(engine, name, UNITS[name], mine)
    theirs = Spread.of(floor)
    return Figure(engine, name, UNITS[name], mine, theirs, mine.median / theirs.median)


# -- what it was measured on ------------------------------------------------------------------------------------------


def _machine(folder: Path) -> dict[str, str]:
    facts = {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file system": file_system(str(folder)),  # what a commit costs depends on it
    }
    return {name: value for name, value in facts.items() if value}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _versions() -> dict[str, str]:
    names = ("msgspec", "click", "cronsim", "hiredis", "uvloop", "rich")
    found = {
        "tasqueue": __version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
    }
    return found | {name: version for name in names if (version := _version(name))}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
