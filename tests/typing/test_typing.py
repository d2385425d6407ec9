"""What pyright reveals of the typed level: right calls have the types that they promise, wrong ones are errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyright")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[int, list[str]]]:
    """Pyright's errors by file name and line, in strict mode (pyproject.toml)."""
    files = [str(HERE / name) for name in ("typed_calls.py", "wrong_calls.py")]
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright did not run: {done.stdout}{done.stderr}")
    found: dict[str, dict[int, list[str]]] = {}
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 2
    for one in report["generalDiagnostics"]:
        lines = found.setdefault(Path(one["file"]).name, {})
        lines.setdefault(one["range"]["start"]["line"] + 1, []).append(one["message"])
    return found


@pytest.mark.slow
def test_right_calls_have_the_types_that_they_promise(errors: dict[str, dict[int, list[str]]]) -> None:
    assert errors.get("typed_calls.py", {}) == {}


@pytest.mark.slow
def test_wrong_calls_are_errors(errors: dict[str, dict[int, list[str]]]) -> None:
    lines = (HERE / "wrong_calls.py").read_text("utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    assert set(errors.get("wrong_calls.py", {})) == expected
