"""A wrong version of the library by hand, and a run of a part of the suite over a copy of the library that has it.

Invariant: what a run says is of the copy. The child is told where that is, finds it first on its path, and writes down
every module of the library that it took from elsewhere (`guard.py`). And a mutant cannot rot: its old text must stand
in its file exactly once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PATIENCE = 150.0
"""Seconds that no run takes, unless it hangs."""


class Mutant(NamedTuple):
    """One function is patched: `old` becomes `new` in `file`, a path under src/tasqueue."""

    name: str
    breaks: str
    """Which guarantee, and how."""
    file: str
    old: str
    new: str
    killed_by: str
    """The part of the suite whose business it is: a file, or a test in one."""
    engine: str = ""
    """Only what runs on this engine: as the tests' parameters name it."""


class Run(NamedTuple):
    """What came of a run of pytest. `failed`: tests that failed by themselves; `errors`: whatever else went wrong."""

    code: int
    output: str
    failed: list[str]
    errors: list[str]
    imported: str
    """The library's own `__file__`."""
    strangers: list[str]
    """Modules of the library that did not come from the copy."""


def copy_of_the_library(to: Path) -> Path:
    """A folder to run the suite in: the library is a copy, the tests are these. With the compiled files, which saves
    each run a second."""
    to.mkdir()
    shutil.copy2(ROOT / "pyproject.toml", to)
    shutil.copytree(ROOT / "src" / "tasqueue", to / "src" / "tasqueue", ignore=shutil.ignore_patterns("*.pyc.*"))
    (to / "tests").symlink_to(ROOT / "tests")
    return to


def apply(mutant: Mutant, copy: Path) -> None:
    """Patch the copy. LookupError when the old text is not there exactly once: the mutant must follow the code."""
    path = copy / "src" / "tasqueue" / mutant.file
    text = path.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise LookupError(f"{mutant.name}: its old text is {text.count(mutant.old)} times in {mutant.file}, not once")
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        compiled.unlink()


def run(tests: Iterable[str], engine: str, copy: Path, path: Path | None = None) -> Run:
    """Run these tests in a copy, up to the first that fails. `path`: where the library is found instead."""
    report = copy / "report.json"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TASQUEUE_"))}
    env.update({name: value for name, value in os.environ.items() if name.startswith("TASQUEUE_TEST_")})
    env["PYTHONPATH"] = str(path or copy / "src")
    env["TASQUEUE_TEST_COPY"] = str(copy)
    env["HYPOTHESIS_PROFILE"] = "ci"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.mutants.guard", "-m", "not slow and not fault"]
    command += ["-o", "timeout=30", f"--basetemp={copy / 'tmp'}", "-k", engine, *tests]
    child = subprocess.Popen(
        command,
        cwd=copy,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=PATIENCE)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    said = json.loads(report.read_text("utf-8")) if report.exists() else {}
    return Run(
        child.returncode,
        output,
        said.get("failed", []),
        said.get("errors", []),
        said.get("imported", ""),
        said.get("strangers", []),
    )
