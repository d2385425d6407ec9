"""Ours, the floor and the rivals in turn, on one server, in one run: `make bench-rivals`.

    python benchmarks/rivals/run.py [--only NAME]… [--scenario NAME]… [--jobs N] [--runs N] [--out STEM] [--note TEXT]
        [--envs FOLDER] [--install]

Each rival is installed into an environment of its own, in the interpreter that runs this. A round goes through the
scenarios, and each scenario through the libraries, the floor and ours first. What fails to install or to run is told
with its reason, and not tried again; the rest goes on.
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
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from library import FLOOR, OURS, RIVALS, Failed, Library
from redis import RedisError
from report import markdown
from scenarios import LESS_IS_BETTER, SCENARIOS, UNITS, measure, takes_part
from server import Server
from summary import summary
from tests import services

Found = dict[str, dict[str, list[float]]]


def main() -> int:
    options = _options()
    with ExitStack() as stack:
        folder = options.envs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tasqueue-rivals-")))
        started = stack.enter_context(services.server(options.server))
        server = stack.enter_context(closing(Server(started.port)))
        failed: dict[str, dict[str, str]] = defaultdict(dict)
        libraries = [
            library
            for library in _libraries(options.only, folder.resolve(), started.url)
            if _try(failed, library, "install", library.install)
        ]
        if options.install:
            return 1 if failed else 0
        began, load = time.monotonic(), os.getloadavg()
        found = _rounds(libraries, failed, server, options)
        report = {
            "format": 2,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began),
            "load": {"before": round(load[0], 2), "after": round(os.getloadavg()[0], 2)},
            "note": options.note,
            "machine": _machine(),
            "server": server.about(),
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "runs": options.runs,
            "libraries": {
                library.label: {
                    "name": library.name,
                    "variant": library.variant,
                    "settings": library.about["settings"],
                    "acknowledges": library.about["acknowledges"],
                    "jobs": options.jobs or library.about["jobs"],
                    "versions": library.about["versions"],
                    "figures": {key: _spread(key, values) for key, values in found[library.label].items()},
                }
                for library in libraries
            },
            "failed": failed,
        }
    _add_ratios(report)
    report["summary"] = summary(report)
    text = markdown(report)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    return 1 if OURS in failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tasqueue, the floor and its rivals in turn, on one server.")
    parser.add_argument(
        "--server", choices=services.kinds(), default=services.kinds()[-1], help="[default: Redis where there is one]"
    )
    parser.add_argument("--only", action="append", choices=RIVALS, metavar="NAME", help="this rival; may be repeated")
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, metavar="NAME", help=f"of {', '.join(SCENARIOS)}; repeatable"
    )
    parser.add_argument("--jobs", type=int, default=0, help="the most in a scenario  [default: each library its own]")
    parser.add_argument("--runs", type=int, default=3, help="rounds  [default: 3]")
    parser.add_argument("--out", type=Path, help="write STEM.json and STEM.md")
    parser.add_argument("--envs", type=Path, help="a folder for the environments, kept  [default: a temporary one]")
    parser.add_argument("--install", action="store_true", help="make the environments, measure nothing")
    parser.add_argument("--note", default="", help="what a reader of the report should know, as what else was running")
    return parser.parse_args()


def _libraries(only: list[str] | None, folder: Path, url: str) -> list[Library]:
    wanted = [(FLOOR, ""), (OURS, "")]
    wanted += [(name, variant) for name in RIVALS if not only or name in only for variant in ("", "fastest")]
    return [Library(name, variant, folder / name, url) for name, variant in wanted]


def _rounds(
    libraries: list[Library], failed: dict[str, dict[str, str]], server: Server, options: argparse.Namespace
) -> Found:
    found: Found = defaultdict(lambda: defaultdict(list))
    for number in range(1, options.runs + 1):
        for scenario in options.scenario or SCENARIOS:
            for library in libraries:
                if scenario in failed[library.label] or not takes_part(library, scenario):
                    continue

                def one(library: Library = library, scenario: str = scenario) -> None:
                    for key, value in measure(library, server, scenario, options.jobs).items():
                        found[library.label][key].append(value)

                print(f"round {number} of {options.runs}: ", end="", file=sys.stderr)
                _try(failed, library, scenario, one)
    for label in [label for label, reasons in failed.items() if not reasons]:
        del failed[label]
    return found


def _try(failed: dict[str, dict[str, str]], library: Library, what: str, action: Callable[[], None]) -> bool:
    """Do it; when it fails, the library has no further part in it."""
    began = time.monotonic()
    try:
        action()
    except (Failed, RedisError, OSError, ValueError) as error:
        print(f"{what}: {library.label} failed: {error}", file=sys.stderr, flush=True)
        failed[library.label][what] = str(error)
        return False
    print(f"{what}: {library.label}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return True


def _spread(key: str, values: list[float]) -> dict[str, Any]:
    return {
        "unit": UNITS[key],
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "runs": values,
    }


def _add_ratios(report: dict[str, Any]) -> None:
    """`ratio`: how many times better ours is than it, by the medians."""
    ours = report["libraries"].get(OURS, {}).get("figures", {})
    for library in report["libraries"].values():
        for key, figure in library["figures"].items():
            mine = ours[key]["median"] if key in ours else 0
            less = figure["unit"] in LESS_IS_BETTER
            above, below = (figure["median"], mine) if less else (mine, figure["median"])
            figure["ratio"] = above / below if mine and below else None


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


if __name__ == "__main__":
    sys.exit(main())
