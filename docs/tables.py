"""Writes what the docs take from the code: `make docs`. `tests/docs/test_tables.py` fails when a page is stale.

A page has `<!-- generated: name -->` and `<!-- /generated -->`; what is between them is replaced. Engines are read, not
imported, so that the tables are the same whichever drivers are installed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import tasqueue
from tasqueue.core import lifecycle
from tasqueue.core.status import FINAL, TRANSITIONS, Status

DOCS = Path(__file__).parent
SOURCE = Path(tasqueue.__file__).parent
COLUMNS = {"memory": "memory", "sqlite": "SQLite", "redis": "Redis", "split": "a pair"}
"""Engines in the order and under the names of the docs; those that are not named here come last."""
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


# -- capabilities -----------------------------------------------------------------------------------------------------


def fields() -> Iterator[tuple[str, object, str]]:
    """Name, default and docstring of each field of `Capabilities`, in order."""
    tree = ast.parse((SOURCE / "interfaces.py").read_text())
    (found,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Capabilities")
    for field, text in zip(found.body, found.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.value is not None:
            assert isinstance(text, ast.Expr), f"{field.target.id} has no docstring"
            yield field.target.id, ast.literal_eval(field.value), " ".join(ast.literal_eval(text.value).split())


def declared(engine: str) -> dict[str, object]:
    """What an engine declares otherwise than by default; None: it depends."""
    tree = ast.parse((SOURCE / "engines" / engine / "__init__.py").read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Capabilities"
    ]
    assert len(calls) == 1, f"{engine} declares its capabilities {len(calls)} times"
    return {
        word.arg: word.value.value if isinstance(word.value, ast.Constant) else None
        for word in calls[0].keywords
        if word.arg is not None
    }


def capabilities() -> str:
    """Engine × capability."""
    names = {path.parent.name for path in (SOURCE / "engines").glob("*/__init__.py")}
    engines = [*(name for name in COLUMNS if name in names), *sorted(names - set(COLUMNS))]
    values = {engine: declared(engine) for engine in engines}
    lines = [
        f"| capability | {' | '.join(COLUMNS.get(name, name) for name in engines)} | what it says |",
        f"|---{'|:-:' * len(engines)}|---|",
    ]
    for name, default, text in fields():
        cells = [_cell(values[engine].get(name, default)) for engine in engines]
        note = " None of these lacks it." if set(cells) == {"yes"} else ""
        lines.append(f"| `{name}` | {' | '.join(cells)} | {text}{note} |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "its halves'"
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:,}"


# -- states -----------------------------------------------------------------------------------------------------------


def states() -> str:
    """The statuses, and which may follow which."""
    arrows = [f"    [*] --> {Status.QUEUED}"]
    for status, followers in TRANSITIONS.items():
        arrows += [f"    {status} --> {follower}" for follower in Status if follower in followers]
    arrows += [f"    {status} --> [*]" for status in Status if status in FINAL]
    return "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])


def outcomes() -> str:
    """The table in the docstring of `core/lifecycle.py`, with its footnote."""
    paragraphs = (lifecycle.__doc__ or "").split("\n\n")
    table, note = (text for text in paragraphs if text.startswith("    "))
    return f"```text\n{table}\n\n{note}\n```"


TABLES: dict[str, Callable[[], str]] = {"capabilities": capabilities, "states": states, "outcomes": outcomes}
PAGES = {DOCS / "engines" / "README.md": {"capabilities"}, DOCS / "states.md": {"states", "outcomes"}}


def written(text: str) -> str:
    """The page with its tables as they have to be."""
    return BLOCK.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text()))
