"""The command `tasqueue bench` and how its figures are shown."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import click
import msgspec

from ...clock import SYSTEM
from ...engines import REDIS, connect, redact
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
@click.option(
    "--engine",
    type=click.Choice([*ENGINES, "all"]),
    default="all",
    help="redis needs --url; all is redis only with it.  [default: all]",
)
@click.option("-u", "--url", default="", help="A Redis or Valkey to load, as redis://localhost:6379/0.")
@click.option("--quick", is_flag=True, help="A tenth of the jobs, one run: to see that it works, not to compare.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write one JSON document; - for stdout, then nothing else is printed.",
)
def bench(engine: str, url: str, quick: bool, json_file: str | None) -> None:
    """Measure this machine: jobs/s, latency, memory, next to a plain loop that does the same bookkeeping by hand.

    On Redis all keys are in a namespace of its own, which is removed at the end.
    """
    if engine in ("redis", "all") and (url or engine == "redis"):
        url = _own_namespace(url)
    elif url:
        raise click.UsageError(f"--url is for --engine redis, and {engine} has none")
    engines = [one for one in ENGINES if engine in (one, "all") and (one != "redis" or url)]
    with tempfile.TemporaryDirectory(prefix="tasqueue-bench-") as folder:
        report = run(engines, url, quick, Path(folder), lambda text: click.echo(f"measuring: {text}", err=True))
    if json_file == "-":
        show_json(report)
        return
    if json_file is not None:
        Path(json_file).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    show(*view(report))


def _own_namespace(url: str) -> str:
    """The URL with one. UsageError. $TASQUEUE_URL is not looked at: it may be in use, and this is a load."""
    if not url:
        raise click.UsageError(
            "--engine redis needs the server to measure: --url redis://localhost:6379/0 ($TASQUEUE_URL is not used, so "
            "that nobody loads a server in use by accident)"
        )
    parts = urlsplit(url)
    if parts.scheme not in REDIS:
        raise click.UsageError(f"--url {redact(url)}: a Redis or Valkey, as redis://localhost:6379/0")
    if "namespace" in dict(parse_qsl(parts.query)):
        raise click.UsageError(
            f"--url {redact(url)}: leave the namespace out, the benchmark has a namespace of its own"
        )
    url = f"{url}{'&' if parts.query else '?'}namespace=tasqueue-bench-{SYSTEM.bits(6).hex()}"
    connect(url, namespace="", timeout=1.0, ports=SYSTEM)  # refuses what it cannot use, and connects to nothing
    return url


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
