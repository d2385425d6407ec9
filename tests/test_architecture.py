"""The shape of the code: the rings, what importing tasqueue loads, the size of a file, what a committed file names."""

from __future__ import annotations

import graphlib
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

import tasqueue

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"

MAX_LINES = 500
"""A file this long does more than one thing. About 150 is usual, 350 asks for a reason."""

NOT_FOR_PRODUCERS = {
    "tasqueue.cli", "tasqueue.runtime", "tasqueue.testing", "tasqueue.engines.memory", "tasqueue.engines.sqlite",
    "sqlite3", "redis", "nats", "psycopg", "click", "rich", "uvloop", "multiprocessing", "concurrent.futures.process",
}  # fmt: skip
"""What `import tasqueue` must not load: worker code, engines, drivers, the terminal, process pools."""

REGISTRY = re.compile(r"://[^/\s]*\b(?:pypi|npm\w*|registry|files|index|deb|mirrors?|crates)\b[^/\s]*\.\w")
"""An address whose host is, by one of its labels, a package registry's."""


def committed() -> Iterator[tuple[str, str]]:
    """Path and text of each file that is, or would be, committed."""
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    except (OSError, subprocess.CalledProcessError):  # no git, or an unpacked archive
        files = (path for top in ("src", "tests", "requirements") for path in (ROOT / top).rglob("*"))
        names = [str(path.relative_to(ROOT)) for path in (*files, *ROOT.glob("*")) if "__pycache__" not in path.parts]
    for name in names:
        path = ROOT / name
        if path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="replace")


def test_rings() -> None:
    # In a process of its own: it sets up logging anew, which switches off every logger that there is.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_import_cycles() -> None:
    graph = grimp.build_graph("tasqueue", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    cycle: list[str] = []
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
    assert cycle == [], "each is imported by the next"


def test_importing_tasqueue_loads_no_worker_code() -> None:
    code = "import json, sys; before = set(sys.modules); import tasqueue; print(json.dumps([*{*sys.modules} - before]))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert sorted(NOT_FOR_PRODUCERS.intersection(json.loads(done.stdout))) == []


def test_files_are_small() -> None:
    files = (path for path in SRC.rglob("*") if path.suffix in {".py", ".sql", ".lua"})
    lines = {str(path.relative_to(ROOT)): path.read_text("utf-8").count("\n") for path in files}
    assert {path: n for path, n in lines.items() if n > MAX_LINES} == {}


def test_no_file_names_a_package_registry() -> None:
    found = [f"{name}: {hit[0]}" for name, text in committed() for hit in REGISTRY.finditer(text)]
    assert found == []


@pytest.mark.parametrize("name", ["dev", "demo"])
def test_requirements_are_hashed_and_name_no_host(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    assert "://" not in text
    pins = re.split(r"\n(?! )", text.strip())
    assert [pin for pin in pins if "==" not in pin or "--hash=sha256:" not in pin] == []


def test_the_demo_runs_on_the_versions_that_the_tests_run_on() -> None:
    dev, demo = ((ROOT / "requirements" / name).read_text("utf-8").splitlines() for name in ("dev.txt", "demo.txt"))
    assert sorted(set(demo) - set(dev)) == []


def test_the_version_is_the_packages() -> None:
    assert tasqueue.__version__ == importlib.metadata.version("tasqueue")
