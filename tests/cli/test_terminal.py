"""What is printed where: Rich on a terminal, plain text elsewhere, no colour when NO_COLOR says so."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import make_on, url

from tasqueue import Job, pack
from tasqueue.cli import terminal
from tasqueue.cli.terminal import WHOLE, Table, Text, plain, since, size, span, visible


def _on_a_terminal(*args: str, **env: str) -> str:
    """What the command prints on a terminal of 120 columns."""
    ours, theirs = pty.openpty()
    try:
        whole = {**os.environ, "COLUMNS": "120", "TERM": "xterm-256color", **env}
        process = subprocess.Popen((sys.executable, "-m", "tasqueue", *args), stdout=theirs, stdin=theirs, env=whole)
        os.close(theirs)
        printed = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            printed += part
        assert process.wait(30) == 0
    finally:
        os.close(ours)
    return printed.decode()


def test_colour_on_a_terminal(db: Path) -> None:
    text = _on_a_terminal("jobs", "--url", url(db), NO_COLOR="")
    assert "\x1b[1;31mfailed" in text
    assert "─────" in text


def test_no_color(db: Path) -> None:
    text = _on_a_terminal("jobs", "--url", url(db), NO_COLOR="1")
    assert "failed" in text
    assert "31m" not in text


def test_json_is_plain_on_a_terminal(db: Path) -> None:
    assert "\x1b" not in _on_a_terminal("jobs", "--url", url(db), "--json")


def test_plain_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert terminal.rich_console() is not None
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert terminal.rich_console() is None


def test_watch_draws_again_until_interrupted(db: Path) -> None:
    argv = (sys.executable, "-m", "tasqueue", "status", "--watch", "--url", url(db))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        times = 0
        for line in process.stdout:
            times += line.startswith("QUEUE")
            if times == 2:
                process.send_signal(2)
                break
        assert process.wait(20) == 0


def test_tables_are_aligned() -> None:
    text = plain(["first", Table(("NAME", ">N"), [("a", "1"), (Text("long one", "bad"), "1,000")]), Table(("X",), [])])
    assert text.splitlines() == ["first", "", "NAME          N", "a             1", "long one  1,000"]


ID = "01a20d8d-756c-7f48-b43e-15baee5511ff"
WIDE = Table(
    ("ID", "STATUS", ">N", "QUEUE", "NOTE", "EMPTY"),
    [(ID, "failed", "1", "tasqueue:tasks", "x" * 50, ""), ("b", Text("retrying", "warn"), "22", "q", "", "")],
    {"QUEUE": WHOLE, "NOTE": 16},
)


@pytest.mark.parametrize(
    ("width", "heading", "note"),
    [
        (None, ["ID", "STATUS", "N", "QUEUE", "NOTE"], "x" * 50),
        (100, ["ID", "STATUS", "N", "QUEUE", "NOTE"], "x" * 31 + "…"),
        (80, ["ID", "STATUS", "N", "NOTE"], "x" * 27 + "…"),
        (60, ["ID", "STATUS", "N"], None),
        (20, ["ID", "STATUS", "N"], None),
    ],
)
def test_a_table_that_is_too_wide_gives_up_columns_but_no_id(
    width: int | None, heading: list[str], note: str | None
) -> None:
    first, *rows = plain([WIDE], width).splitlines()
    assert first.split() == heading
    assert rows[0].split()[:3] == [ID, "failed", "1"]
    assert note is None or rows[0].split()[-1] == note
    assert len(rows) == 2
    if width is not None and width >= 60:
        assert max(map(len, [first, *rows])) <= width


def test_an_id_is_on_one_line_of_a_narrow_terminal(db: Path) -> None:
    async def enqueue() -> str:
        async with make_on(db) as srv:
            return await srv.enqueue(Job("add", pack("x" * 200)))

    id = asyncio.run(enqueue())
    for command in (("jobs",), ("job", id)):
        text = _on_a_terminal(*command, "--url", url(db), COLUMNS="80", NO_COLOR="1")
        assert id in text, command
    lines = _on_a_terminal("jobs", "--url", url(db), COLUMNS="80", NO_COLOR="1", TERM="dumb").splitlines()
    assert max(map(len, lines)) <= 80
    text = _on_a_terminal("job", id, "--url", url(db), COLUMNS="80", NO_COLOR="1", TERM="dumb")
    assert f"('{'x' * 200}')" in text


def test_only_printable_text_is_shown() -> None:
    text = plain([Text("a\x1b[31m\n\u202e"), Table(("N",), [("b\tc\x07",)])])
    assert text == "a\\u001b[31m\\n\\u202e\n\nN\nb\\tc\\u0007"
    assert visible("é\U000e0001\n\t", lines=True) == "é\\udb40\\udc01\n\t"


def test_wide_characters_are_aligned() -> None:
    assert plain([Table(("A", "B"), [("日本", "x"), ("abcd", "y")])]).splitlines() == ["A     B", "日本  x", "abcd  y"]


def test_words_for_values() -> None:
    assert [span(s) for s in (0.25, 9.94, 12, 200, 7_300, 200_000)] == ["0.2 s", "9.9 s", "12 s", "3 min", "2 h", "2 d"]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert since(now - timedelta(seconds=3), now) == "3.0 s ago"
    assert since(now + timedelta(hours=5), now) == "in 5 h"
    assert since(None, now) == "-"
    assert [size(n) for n in (12, 2_048, 34 << 20, 5 << 30)] == ["12 B", "2.0 KiB", "34.0 MiB", "5.0 GiB"]
