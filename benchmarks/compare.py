"""Two results of `tasqueue bench --json FILE` side by side: `python benchmarks/compare.py OLD NEW`.

Figures with a floor are compared by their share of it, which carries over from machine to machine and from hour to
hour; the others by themselves. Exit code 1 when one is worse by more than a fifth.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from tasqueue.cli.bench.suite import Figure, Report
from tasqueue.cli.terminal import Table, Text, show

WORSE = 0.8
LESS_IS_BETTER = {"ms", "MiB", "µs/job"}


def value(figure: Figure) -> float:
    return figure.ratio if figure.ratio is not None else figure.ours.median


def change(old: Figure, new: Figure) -> float:
    """Above 1 is better."""
    return value(old) / value(new) if new.unit in LESS_IS_BETTER else value(new) / value(old)


def main(before: Path, after: Path) -> int:
    old, new = (msgspec.json.decode(path.read_bytes(), type=Report) for path in (before, after))
    if old.machine != new.machine:
        show(Text(f"Measured on two machines: {old.machine}, {new.machine}", "warn"))
    known = {(figure.engine, figure.name): figure for figure in old.figures}
    pairs = [(known[key], figure) for figure in new.figures if (key := (figure.engine, figure.name)) in known]
    rows = [
        (
            f"{figure.engine} {figure.name}".strip(),
            "of the floor" if figure.ratio is not None else figure.unit,
            f"{value(was):,.3g}",
            f"{value(figure):,.3g}",
            Text(f"{change(was, figure):.2f}", "bad" if change(was, figure) < WORSE else ""),
        )
        for was, figure in pairs
    ]
    show(Table(("FIGURE", "", ">OLD", ">NEW", ">BETTER BY"), rows))
    return 1 if any(change(was, figure) < WORSE for was, figure in pairs) else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
