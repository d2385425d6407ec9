"""Ours and its rivals in turn, on one server, in one run: `make bench-rivals`.

    python benchmarks/rivals/run.py [--only NAME]… [--jobs N] [--runs N] [--out STEM] [--note TEXT] [--envs FOLDER]

Each rival is installed into an environment of its own, in the interpreter that runs this. A round measures every
library once; the order is the same in each, ours first. What fails to install or to run is told with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from library import OURS, RIVALS, Failed, Library
from redis import Redis, RedisError
from report import markdown
from scenarios import UNITS, measure
from tests import services

Found = dict[str, dict[str, list[float]]]


def main() -> int:
    options = _options()
    with ExitStack() as stack:
        folder = options.envs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tasqueue-rivals-")))
        server = stack.enter_context(services.server())
        redis = stack.enter_context(Redis(port=server.port))
        names = [OURS, *(name for name in RIVALS if not options.only or name in options.only)]
        libraries = {name: Library(name, folder.resolve() / name, server.url) for name in names}
        failed: dict[str, str] = {}
        for name, library in list(libraries.items()):
            _try(libraries, failed, name, f"installing {name}", library.install)
        began, load = time.monotonic(), os.getloadavg()
        found = _rounds(libraries, failed, redis, options.runs, options.jobs)
        report = {
            "format": 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began),
            "load": {"before": round(load[0], 2), "after": round(os.getloadavg()[0], 2)},
            "note": options.note,
            "machine": _machine(),
            "server": _server(redis),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "runs": options.runs,
            "libraries": {
                name: {
                    "settings": library.settings,
                    "jobs": options.jobs or library.jobs,
                    "versions": library.versions,
                    "figures": {key: _spread(values) for key, values in found[name].items()},
                }
                for name, library in libraries.items()
            },
            "failed": failed,
        }
    _add_ratios(report)
    text = markdown(report)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    return 1 if OURS in failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tasqueue and its rivals in turn, on one server.")
    parser.add_argument("--only", action="append", choices=RIVALS, metavar="NAME", help="this rival; may be repeated")
    parser.add_argument("--jobs", type=int, default=0, help="jobs of a drain, for all  [default: each its own]")
    parser.add_argument("--runs", type=int, default=3, help="rounds  [default: 3]")
    parser.add_argument("--out", type=Path, help="write STEM.json and STEM.md")
    parser.add_argument("--envs", type=Path, help="a folder for the environments, kept  [default: a temporary one]")
    parser.add_argument("--note", default="", help="what a reader of the report should know, as what else was running")
    return parser.parse_args()


def _rounds(libraries: dict[str, Library], failed: dict[str, str], redis: Any, runs: int, jobs: int) -> Found:
    found: Found = defaultdict(lambda: defaultdict(list))
    for number in range(runs):
        for name, library in list(libraries.items()):

            def one(library: Library = library) -> None:
                for key, value in measure(library, redis, jobs or library.jobs).items():
                    found[library.name][key].append(value)

            _try(libraries, failed, name, f"round {number + 1} of {runs}: {name}", one)
    return found


def _try(libraries: dict[str, Library], failed: dict[str, str], name: str, what: str, action: Any) -> None:
    """Do it; when it fails, the library takes no further part."""
    print(what, file=sys.stderr, flush=True)
    try:
        action()
    except (Failed, RedisError, OSError, ValueError) as error:
        print(f"  failed: {error}", file=sys.stderr, flush=True)
        failed[name] = f"{what}: {error}"
        del libraries[name]


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "runs": values}


def _add_ratios(report: dict[str, Any]) -> None:
    """`ratio`: ours / theirs, by the medians. Of jobs/s more is better, of ms less."""
    ours = report["libraries"].get(OURS, {}).get("figures", {})
    for library in report["libraries"].values():
        for key, figure in library["figures"].items():
            figure["unit"] = UNITS[key]
            figure["ratio"] = ours[key]["median"] / figure["median"] if key in ours else None


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _server(redis: Any) -> dict[str, str]:
    info, settings = redis.info("server"), redis.config_get("appendonly", "save")
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    return {"version": name, "transport": "TCP on loopback", **{key: value or "no" for key, value in settings.items()}}


if __name__ == "__main__":
    sys.exit(main())
