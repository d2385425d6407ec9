"""What goes to the terminal: lines and tables, styled by Rich on a terminal when it is installed, else as plain text.

Commands describe what they show as blocks and never print by themselves, so that a pipe, a log file and a terminal get
the same facts. Invariants: stored text never acts on the terminal (`visible`, which everything passes); a line is never
broken by us, so that an id or a path can be copied: a table that is too wide gives up its lesser columns instead, and
what is still longer the terminal wraps. Rich itself honours NO_COLOR.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

STYLES = {"good": "green", "bad": "bold red", "warn": "yellow", "dim": "dim", "strong": "bold", "": ""}
GAP = 2
WHOLE = 1_000
"""A least width that is never shortened."""


class Text(NamedTuple):
    """A piece of text with one of `STYLES`."""

    text: str
    style: str = ""


class Table(NamedTuple):
    """Rows under a heading; none without rows, no column that is empty in every row. `>NAME` is aligned to the right.

    `yields`: column -> its least width. On a terminal that is too narrow these are shortened, and if that is not enough
    left out, the first first; the others are always shown whole.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    yields: Mapping[str, int] = {}


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
        click.echo(plain(blocks, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    else:
        console.print(rich(blocks, console.width), soft_wrap=True)


def show_json(document: Any) -> None:
    """Print one JSON document; datetimes become ISO 8601, bytes base64."""
    text = msgspec.json.format(msgspec.json.encode(document, order="deterministic"), indent=2).decode()
    click.echo(visible(text, lines=True))


def complain(text: str) -> None:
    """An error line on stderr, for a command that goes on."""
    click.echo(f"Error: {visible(text)}", err=True)


def visible(text: str, lines: bool = False) -> str:
    """The text with all that is not printable (controls, escapes, bidi marks) escaped as JSON does; `lines`: but for
    newlines and tabs.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(char if char in kept or char.isprintable() else json.dumps(char)[1:-1] for char in text)


def plain(blocks: Iterable[Block], width: int | None = None) -> str:
    """The blocks as text; tables are aligned by spaces and fit into `width`, if it is given."""
    lines: list[str] = []
    for part in _spaced(blocks):
        if isinstance(part, Table):
            lines += ["".join(piece.text for piece in line) for line in _lines(part, width)]
        else:
            lines.append(part.text)
    return "\n".join(lines)


def rich(blocks: Iterable[Block], width: int) -> RenderableType:
    """The blocks for Rich, a line each."""
    from rich.console import Group
    from rich.text import Text as RichText

    parts: list[RenderableType] = []
    for part in _spaced(blocks):
        if not isinstance(part, Table):
            parts.append(RichText(part.text, STYLES[part.style]))
            continue
        lines = _lines(part, width)
        rows = [
            RichText.assemble(*((piece.text, STYLES[piece.style]) for piece in line), no_wrap=True, overflow="ignore")
            for line in lines
        ]
        if any(part.columns):
            rule = "─" * min(width, max(sum(_width(piece.text) for piece in line) for line in lines))
            rows.insert(1, RichText(rule, STYLES["dim"], no_wrap=True))
        parts += rows
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
    return block._replace(text=visible(block.text)) if isinstance(block, Text) else Text(visible(block))


def _lines(table: Table, room: int | None) -> list[list[Text]]:
    """Its lines in pieces, the heading first if it has one."""
    rows = [[_text(cell) for cell in row] for row in table.rows]
    names = [column.lstrip(">") for column in table.columns]
    widths = [max(_width(row[i].text) for row in rows) for i in range(len(names))]
    widths = [max(width, _width(name)) if width else 0 for width, name in zip(widths, names, strict=True)]
    if room is not None:
        widths = _shares(widths, {names.index(name): least for name, least in table.yields.items()}, room)
    if any(names):
        rows.insert(0, [Text(name, "dim") for name in names])
    shown = [(i, width, table.columns[i].startswith(">")) for i, width in enumerate(widths) if width]
    lines = [[piece for i, width, right in shown for piece in _padded(row[i], width, right)] for row in rows]
    for line in lines:
        while line and not line[-1].text.strip():
            line.pop()
    return lines


def _shares(natural: Sequence[int], yields: Mapping[int, int], room: int) -> list[int]:
    """Widths that fit into `room`, as far as those that yield allow it; 0: left out."""

    def total(widths: Sequence[int]) -> int:
        return sum(width + GAP for width in widths if width) - GAP

    widths = list(natural)
    least = [min(width, yields.get(i, WHOLE)) for i, width in enumerate(natural)]
    for i in yields:
        if total(least) <= room:
            break
        least[i] = widths[i] = 0
    for i in yields:
        widths[i] = max(least[i], widths[i] - max(0, total(widths) - room))
    return widths


def _padded(cell: Text, width: int, right: bool) -> list[Text]:
    """The cell, cut if it has to be, and the space around it; what is between two columns comes last."""
    text = cell.text
    if _width(text) > width:
        while _width(text) >= width:
            text = text[:-1]
        text += "…"
    space = Text(" " * (width - _width(text)))
    shown = Text(text, cell.style)
    return [*((space, shown) if right else (shown, space)), Text(" " * GAP)]


def _width(text: str) -> int:
    """How many columns of a terminal it takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


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
