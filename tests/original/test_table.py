"""docs/original.md and the tests say the same: each of the 72 faults has one row and one test, and it exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "original.md"
FAULTS = {"L": 13, "S": 13, "C": 22, "V": 9, "M": 7, "N": 8}
NUMBERS = [f"{letter}{i}" for letter, most in FAULTS.items() for i in range(1, most + 1)]
HERE = "tests/original"
RANGE = re.compile(r"test_([A-Z])(\d+)(?:_to_\1(\d+))?_")
DEFINED = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def rows() -> list[list[str]]:
    """The cells of each row: number, the Go library, ours, test."""
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if re.match(r"\| [A-Z]\d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def defined(path: Path) -> list[str]:
    """The tests of a file, or of a folder's files."""
    files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
    return [name for file in files for name in DEFINED.findall(file.read_text("utf-8"))]


def of(name: str) -> list[str]:
    """The faults whose numbers a test's name bears."""
    found = RANGE.match(name)
    if found is None:
        return []
    letter, first, last = found.groups()
    return [f"{letter}{i}" for i in range(int(first), int(last or first) + 1)]


def test_each_of_the_72_faults_has_one_row_in_order() -> None:
    assert len(NUMBERS) == 72
    assert [row[0] for row in rows()] == NUMBERS
    assert {len(row) for row in rows()} == {4}
    assert all(all(row) for row in rows())


def test_each_row_names_one_test_that_exists() -> None:
    for number, _, _, test in rows():
        reference = re.fullmatch(r"`(?:([\w/]+\.py)::)?(test_\w+)`", test)
        assert reference, f"{number}: {test}"
        path, name = reference.groups()
        assert name in defined(ROOT / (path or HERE)), f"{number}: there is no {test}"
        if path is None:
            assert number in of(name), f"{number}: {test} is the test of another fault"


def test_each_fault_has_one_test_here_or_a_row_that_says_where() -> None:
    elsewhere = [row[0] for row in rows() if "::" in row[3]]
    here = [number for name in defined(ROOT / HERE) for number in of(name)]
    assert Counter([*here, *elsewhere]) == dict.fromkeys(NUMBERS, 1)


def test_the_files_that_the_table_names_exist() -> None:
    text = TABLE.read_text("utf-8")
    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path
    for cell in re.findall(r"\(`conformance/[^)]*\)", text):
        for name in re.findall(r"test_\w+\.py", cell):
            assert (ROOT / "src/tasqueue/testing/conformance" / name).is_file(), name
