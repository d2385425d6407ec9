"""The statements, read once from the `.sql` files beside this module and made ready for one namespace.

A file holds named statements, each under `-- name: <name>` and a line that tells parameters and result. Two things
stand in them that SQL does not know: `ns_`, the prefix of a namespace's tables; and `, ...` behind a row `(?, ?)` of
a bulk insert, which means that the row is repeated. The invariant: table names are never made of anything but a
checked namespace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from sqlite3 import Connection
from typing import Any, NamedTuple

from ...errors import InvalidJob

CHUNKS = (256, 64, 16, 4, 1)
"""Rows of one bulk statement. One step of SQLite for many rows is cheaper than executemany, and lets go of the GIL
but once. A few fixed sizes, so that the prepared statements are found again."""


class Layout(NamedTuple):
    """A set of tables: its schema, the files with its statements, and what follows the namespace in their names."""

    schema: str
    files: tuple[str, ...]
    suffix: str
    version: int


ENGINE = Layout("schema", ("store", "submit", "claim", "settle", "link", "operate", "read"), "", 1)
BROKER = Layout("broker_schema", ("store", "broker"), ":broker", 1)
RESULTS = Layout("results_schema", ("store", "results"), ":results", 1)

_valid = re.compile(r"[A-Za-z0-9_-]{1,64}\Z").match
_name = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_table = re.compile(r"\bns_(\w+)")
_number = re.compile(r"\?([1-9])")
_row = re.compile(r"(\((?:\?, )*\?\)), \.\.\.")


def check_namespace(namespace: str) -> str:
    """InvalidJob unless it can stand in a table's name."""
    if not _valid(namespace):
        raise InvalidJob(f"namespace {namespace!r}: 1 to 64 of the characters A-Z a-z 0-9 _ -, please")
    return namespace


def read(name: str) -> str:
    """The text of a file."""
    return files("tasqueue.engines.sqlite").joinpath("sql", f"{name}.sql").read_text("utf-8")


@cache
def _statements(files: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files:
        parts = _name.split(read(name))[1:]
        for title, body in zip(parts[::2], parts[1::2], strict=True):
            assert title not in found, f"two statements are called {title}"
            found[title] = "\n".join(line for line in body.strip().splitlines() if not line.startswith("--"))
    return found


class Sql(dict[str, str]):
    """Every statement of a namespace, by name."""

    def __init__(self, namespace: str, layout: Layout = ENGINE) -> None:
        # SQLite's names know no case, and `sqlite` is its own.
        prefix = re.sub("[A-Z]", lambda found: "^" + found[0].lower(), check_namespace(namespace))
        self._prefix = (f"~{prefix}" if prefix.startswith("sqlite") else prefix) + layout.suffix
        self.layout = layout
        super().__init__({name: self.of(text) for name, text in _statements(layout.files).items()})
        self.order: dict[str, tuple[int, ...]] = {}
        """Of statements with numbered parameters: which value stands where. (Python 3.12 warns of the numbers.)"""
        for name, text in self.items():
            if numbers := _number.findall(text):
                self.order[name] = tuple(int(number) - 1 for number in numbers)
                self[name] = _number.sub("?", text)
        self._bulk: dict[str, list[tuple[int, str]]] = {}
        for name, text in self.items():
            if row := _row.search(text):
                self._bulk[name] = [(n, text.replace(row[0], ", ".join([row[1]] * n))) for n in CHUNKS]

    def of(self, text: str) -> str:
        """Any text with this namespace's names in it."""
        return _table.sub(lambda found: f'"{self._prefix}_{found[1]}"', text)

    def table(self, name: str) -> str:
        """A table's name, as the schema lists it."""
        return f"{self._prefix}_{name}"

    def bulk(
        self,
        connection: Connection,
        name: str,
        width: int,
        values: Sequence[Any],
        before: tuple[Any, ...] = (),
        after: tuple[Any, ...] = (),
    ) -> int:
        """Run a bulk statement over flat `values`, `width` for each row. The row count.

        `before` and `after` are the values of parameters that stand before and behind the rows in the statement's text.
        """
        total, at, left = 0, 0, len(values) // width
        for n, text in self._bulk[name]:
            while left >= n:
                total += connection.execute(text, (*before, *values[at : at + n * width], *after)).rowcount
                at += n * width
                left -= n
        return total
