"""What goes to the terminal: lines and tables, by Rich on a terminal when it is installed, else as plain aligned text.

Commands describe what they show as blocks and never print by themselves, so that a pipe, a log file and a terminal get
the same facts. Rich itself honours NO_COLOR.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

STYLES = {"good": "green", "bad": "bold red", "warn": "yellow", "dim": "dim", "strong": "bold", "": ""}


class Text(NamedTuple):
    """A piece of text with one of `STYLES`."""

    text: str
    style: str = ""


class Table(NamedTuple):
    """Rows under a heading; none without rows. A column whose name begins with `>` is aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Text]]


Block = str | Text | Table
_BLANK = Text("")


def rich_console(stderr: bool = False) -> Console | None:
    """Rich's console when it is installed and the stream is a terminal."""
    if not (sys.stderr if stderr else sys.stdout).isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=stderr, highlight=False)


def show(*blocks: Block) -> None:
    """Print them to stdout."""
    console = rich_console()
    if console is None:
        click.echo(plain(blocks))
    else:
        console.print(rich(blocks))


def show_json(document: Any) -> None:
    """Print one JSON document; datetimes become ISO 8601, bytes base64."""
    click.echo(msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=2).decode())


def plain(blocks: Iterable[Block]) -> str:
    """The blocks as text; tables are aligned by spaces."""
    return "\n".join("\n".join(_aligned(part)) if isinstance(part, Table) else part.text for part in _spaced(blocks))


def rich(blocks: Iterable[Block]) -> RenderableType:
    """The blocks for Rich."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    parts: list[RenderableType] = []
    for part in _spaced(blocks):
        if not isinstance(part, Table):
            parts.append(RichText(part.text, STYLES[part.style]))
            continue
        table = RichTable(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
        table.show_header = any(part.columns)
        for column in part.columns:
            table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
        for row in part.rows:
            table.add_row(*(RichText(_text(cell).text, STYLES[_text(cell).style]) for cell in row))
        parts.append(table)
    return Group(*parts)


def _spaced(blocks: Iterable[Block]) -> list[Text | Table]:
    """The blocks with one blank line around each table, none at the ends, and without empty tables."""
    parts: list[Text | Table] = []
    for block in blocks:
        if not isinstance(block, Table):
            parts.append(_text(block))
        elif block.rows:
            if parts and parts[-1] != _BLANK:
                parts.append(_BLANK)
            parts += [block, _BLANK]
    return parts[:-1] if parts and parts[-1] == _BLANK else parts


def _text(block: str | Text) -> Text:
    return block if isinstance(block, Text) else Text(block)


def _aligned(table: Table) -> list[str]:
    heading = [[column.lstrip(">") for column in table.columns]] if any(table.columns) else []
    rows = [*heading, *([_text(cell).text for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    right = [column.startswith(">") for column in table.columns]
    return [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in rows
    ]


# -- words for values -------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A span in its two largest useful digits: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.1f} s"


def since(at: datetime | None, now: datetime) -> str:
    """`3 min ago`, `in 5 s`, or `-` for None."""
    if at is None:
        return "-"
    seconds = (now - at).total_seconds()
    return f"in {span(-seconds)}" if seconds < 0 else f"{span(seconds)} ago"


def clock_time(at: datetime | None) -> str:
    """A moment in this machine's zone, to the millisecond; `-` for None."""
    return "-" if at is None else at.astimezone().isoformat(" ", "milliseconds")


def from_ms(ms: int) -> datetime:
    """An aware datetime from UNIX milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def size(amount: int) -> str:
    """Bytes as `12 B`, `3.4 KiB`, `56 MiB`."""
    value = float(amount)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def count_of(number: int, one: str, many: str = "") -> str:
    """`1 job`, `1,204 jobs`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def pairs(facts: Mapping[str, str | Text]) -> Table:
    """Name and value in two columns, without those that say nothing."""
    return Table(("", ""), [(Text(name, "dim"), value) for name, value in facts.items() if _text(value).text])
