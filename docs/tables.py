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
COLUMNS = {"memory": "memory", "sqlite": "SQLite", "redis": "Redis", "nats": "NATS", "split": "a pair"}
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
    """What an engine declares otherwise than by default; None: it depends. One made of its halves: as they declare."""
    tree = ast.parse((SOURCE / "engines" / engine / "__init__.py").read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Capabilities"
    ]
    if not calls and halves(engine):
        return declared("split") | of_halves(*halves(engine).values())
    assert len(calls) == 1, f"{engine} declares its capabilities {len(calls)} times"
    return {
        word.arg: word.value.value if isinstance(word.value, ast.Constant) else None
        for word in calls[0].keywords
        if word.arg is not None
    }


def of_halves(broker: dict[str, object], results: dict[str, object]) -> dict[str, object]:
    """What the split engine makes of them; see its `__init__`."""
    both = (broker, results)
    return {
        "thread_beat": all("twin" in half for half in both),
        "shared": all(half.get("shared", False) for half in both),
        "durable": all(half.get("durable", False) for half in both),
        "max_link": broker.get("max_link", 10_000),
    }


def halves(engine: str) -> dict[str, dict[str, object]]:
    """An engine's broker and results, each with what its class and its bases define; {} when it has none."""
    classes: dict[str, ast.ClassDef] = {}
    for path in (SOURCE / "engines" / engine).glob("*.py"):
        classes |= {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}

    def members(found: ast.ClassDef) -> dict[str, object]:
        own: dict[str, object] = {}
        for base in found.bases:
            if isinstance(base, ast.Name) and base.id in classes:
                own |= members(classes[base.id])
        for node in found.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own[node.name] = True
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                own |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
        return own

    roles = ("Broker", "Results")
    return {role: members(node) for role in roles for name, node in sorted(classes.items()) if name.endswith(role)}


def engines() -> list[str]:
    names = {path.parent.name for path in (SOURCE / "engines").glob("*/__init__.py")}
    return [*(name for name in COLUMNS if name in names), *sorted(names - set(COLUMNS))]


def capabilities() -> str:
    """Engine × capability."""
    values = {engine: declared(engine) for engine in engines()}
    lines = [
        f"| capability | {' | '.join(COLUMNS.get(name, name) for name in values)} | what it says |",
        f"|---{'|:-:' * len(values)}|---|",
    ]
    for name, default, text in fields():
        cells = [_cell(values[engine].get(name, default)) for engine in values]
        note = " None of these lacks it." if set(cells) == {"yes"} else ""
        lines.append(f"| `{name}` | {' | '.join(cells)} | {text}{note} |")
    return "\n".join(lines)


OFFERS = {
    "shared": "several processes",
    "durable": "survives the process",
    "twin": "beats from a thread",
    "now": "its own clock",
    "wait": "wakes who sleeps",
    "check": "refuses a worker",
}
"""What a half may offer beyond its protocol, and how the table calls it."""


def pairs() -> str:
    """Half × what it offers."""
    lines = [f"| half | {' | '.join(OFFERS.values())} | `max_link` |", f"|---{'|:-:' * (len(OFFERS) + 1)}|"]
    for engine in engines():
        for role, has in halves(engine).items():
            cells = [
                "–" if role == "Results" and name in ("now", "wait") else _cell(bool(has.get(name, False)))
                for name in OFFERS
            ]
            most = _cell(has.get("max_link", 10_000)) if role == "Broker" else "–"
            lines.append(f"| {COLUMNS.get(engine, engine)}, {role.lower()} | {' | '.join(cells)} | {most} |")
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


TABLES: dict[str, Callable[[], str]] = {
    "capabilities": capabilities,
    "pairs": pairs,
    "states": states,
    "outcomes": outcomes,
}
PAGES = {
    DOCS / "engines" / "README.md": {"capabilities"},
    DOCS / "engines" / "pairs.md": {"pairs"},
    DOCS / "states.md": {"states", "outcomes"},
}


def written(text: str) -> str:
    """The page with its tables as they have to be."""
    return BLOCK.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text()))
