"""The command `tasqueue demo`: what it prints, and when its exit code is 1."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from ..terminal import Block, Table, Text, count_of, show
from . import files

if TYPE_CHECKING:
    from .run import Outcome


@click.command()
@click.option("--chaos", is_flag=True, help="Kill workers on the way, and prove that nothing is lost.")
@click.option("--files", "limit", type=click.IntRange(1), hidden=True, help="So many files at the most.")
def demo(chaos: bool, limit: int | None) -> None:
    """Count the words of Python's standard library, on two workers and a SQLite file."""
    found = files.packages(limit)
    with tempfile.TemporaryDirectory(prefix="tasqueue-demo-") as folder:
        os.environ["TASQUEUE_URL"] = f"sqlite:///{quote(folder)}/demo.db"
        os.environ["TASQUEUE_DEMO_STARTS"] = f"{folder}/starts"
        from .run import run  # its Server reads the environment

        show(
            f"{count_of(sum(map(len, found.values())), 'file')} in {count_of(len(found), 'package')} of Python's "
            "standard library:",
            "a job per file, a group per package, then a chain that merges and ranks.",
            Text(f"Two worker processes on a SQLite file in {folder}", "dim"),
            *([Text("One of them gets killed, again and again.", "dim")] if chaos else []),
        )
        outcome = asyncio.run(run(found, Path(folder), chaos))
    show(*view(outcome, chaos))
    if not outcome.right:
        raise SystemExit(1)


def view(outcome: Outcome, chaos: bool) -> list[Block]:
    """What came of it; the last line is the verdict."""
    ranking, jobs = outcome.ranking, len(outcome.enqueued)
    blocks: list[Block] = [
        Table(("WORD", ">TIMES"), [(word, f"{times:,}") for word, times in ranking.top]),
        f"{ranking.files:,} files, {ranking.lines:,} lines, {ranking.words:,} words.",
        f"{jobs:,} jobs in {outcome.seconds:.1f} s: {jobs / outcome.seconds:,.0f} jobs/s "
        f"(a plain loop over the files: {outcome.plain_seconds:.1f} s).",
    ]
    if chaos or outcome.lost:
        style = "bad" if outcome.lost else "good"
        killed = (
            f"{count_of(outcome.kills, 'worker')} killed, {count_of(len(outcome.rerun), 'job')} run more than once:"
        )
        counts = f"{jobs:,} jobs enqueued, {len(outcome.done):,} done, {len(outcome.lost):,} lost."
        blocks += [Text(killed, style), Text(counts, style)]
    if outcome.ranking == outcome.expected:
        return [*blocks, Text("The totals are those of a plain loop over the same files.", "good")]
    expected = outcome.expected
    return [
        *blocks,
        Text(
            f"WRONG: a plain loop over the same files has {expected.files:,} files, {expected.lines:,} lines, "
            f"{expected.words:,} words" + ("." if ranking.top == expected.top else ", and other words at the top."),
            "bad",
        ),
    ]
