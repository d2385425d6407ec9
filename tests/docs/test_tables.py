"""The tables of the docs that are taken from the code are those of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tasqueue.core.status import FINAL, TRANSITIONS
from tasqueue.interfaces import Capabilities

ROOT = Path(__file__).parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = _load()
PAGES: dict[Path, set[str]] = tables.PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_is_not_stale(page: Path) -> None:
    text = page.read_text()
    assert {name for _, name, _ in tables.BLOCK.findall(text)} == PAGES[page]
    assert tables.written(text) == text, "stale: run `make docs`"


def test_what_stands_between_the_marks_is_replaced_and_nothing_else() -> None:
    before, after = "# Title\n<!-- generated: states -->\n", "<!-- /generated -->\nThe end.\n"
    assert tables.written(f"{before}old\n{after}") == f"{before}{tables.states()}\n{after}"


def test_every_capability_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", tables.capabilities(), re.MULTILINE)
    assert [name for name, _ in rows] == list(Capabilities.__struct_fields__)
    assert all(text.endswith(".") for _, text in rows)


def test_what_the_engines_declare_is_read_as_it_is() -> None:
    """The source is read; what is imported says the same."""
    from tasqueue.engines.memory import MemoryEngine
    from tasqueue.engines.sqlite import SqliteEngine

    for name, engine in (("memory", MemoryEngine), ("sqlite", SqliteEngine)):
        assert Capabilities(**tables.declared(name)) == engine.capabilities


def test_the_diagram_has_every_transition() -> None:
    arrows = len(re.findall(r"^    \w+ --> \w+$", tables.states(), re.MULTILINE))
    assert arrows == sum(map(len, TRANSITIONS.values()))
    assert tables.states().count("--> [*]") == len(FINAL)
