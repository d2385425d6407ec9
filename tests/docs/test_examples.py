"""Every Python block of the README and the docs runs as it stands, pasted into a file of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(match[1], id=f"{path.relative_to(ROOT)}:{path.read_text()[: match.start()].count(chr(10)) + 2}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for match in BLOCK.finditer(path.read_text())
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 8


@pytest.mark.parametrize("code", BLOCKS)
def test_example(code: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in re.findall(r"print\(.*\)\s+# (\w+)$", code, re.MULTILINE):
        assert line in done.stdout, "the comment behind a print says what it prints"


def test_links_of_the_docs_lead_somewhere() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!\w+:)([^)#]+)[^)]*\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"
