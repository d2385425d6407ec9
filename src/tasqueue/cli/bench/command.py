"""The command `tasqueue bench` and how its figures are shown."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import msgspec

from ..terminal import Block, Table, Text, show, show_json
from .suite import ENGINES, Figure, Report, Spread, run

TITLES = {
    "enqueue_one": "enqueue, one by one",
    "enqueue_many": "enqueue, batches of 1,000",
    "drain_10": "drain, concurrency 10",
    "drain_100": "drain, concurrency 100",
    "cpu": "processor time to drain",
    "latency_p50": "latency, idle worker, p50",
    "latency_p95": "latency, idle worker, p95",
    "latency_p99": "latency, idle worker, p99",
    "rss": "memory of the worker after it",
    "import": "import tasqueue",
}


@click.command()
@click.option("--engine", type=click.Choice([*ENGINES, "all"]), default="all", show_default=True)
@click.option("--quick", is_flag=True, help="A tenth of the jobs, one run: to see that it works, not to compare.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write one JSON document; - for stdout, then nothing else is printed.",
)
def bench(engine: str, quick: bool, json_file: str | None) -> None:
    """Measure this machine: jobs/s, latency, memory, next to a plain loop that does the same bookkeeping by hand."""
    engines = ENGINES if engine == "all" else (engine,)
    with tempfile.TemporaryDirectory(prefix="tasqueue-bench-") as folder:
        report = run(engines, quick, Path(folder), lambda text: click.echo(f"measuring: {text}", err=True))
    if json_file == "-":
        show_json(report)
        return
    if json_file is not None:
        Path(json_file).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    show(*view(report))


def view(report: Report) -> list[Block]:
    """The figures, and what they were measured on."""
    machine, versions = report.machine, report.versions
    blocks: list[Block] = [
        Text(
            ", ".join(
                [machine["cpu"], f"{machine['cores']} cores", machine["system"], machine.get("file system", "")]
            ).rstrip(", "),
            "strong",
        ),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        *(Text(f"{name}: {value}", "dim") for name, value in report.settings.items()),
    ]
    for engine in dict.fromkeys(figure.engine for figure in report.figures):
        rows = [_row(figure) for figure in report.figures if figure.engine == engine]
        blocks.append(Table((engine.upper() or "PROCESS", ">OURS", "", ">SPREAD", ">FLOOR", ">OURS/FLOOR"), rows))
    blocks.append(
        "The floor is a plain loop that does the same bookkeeping by hand, without leases, retries or a second process."
    )
    if report.quick:
        blocks.append(Text("Quick: single, short runs. Not for comparison.", "warn"))
    return blocks


def _row(figure: Figure) -> list[str | Text]:
    floor, ratio = figure.floor, figure.ratio
    return [
        TITLES[figure.name],
        Text(_number(figure.ours.median), "strong"),
        figure.unit,
        _range(figure.ours),
        "" if floor is None else _number(floor.median),
        "" if ratio is None else Text(f"{ratio:.2f}", "strong"),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _range(spread: Spread) -> str:
    return f"{_number(spread.low)} to {_number(spread.high)}" if len(spread.runs) > 1 else ""
