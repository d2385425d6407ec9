"""A report of `run.py` as Markdown."""

from __future__ import annotations

from typing import Any

from library import OURS
from scenarios import TITLES


def markdown(report: dict[str, Any]) -> str:
    machine, server, libraries = report["machine"], report["server"], report["libraries"]
    lines = [
        "# Tasqueue and its rivals on one server",
        "",
        f"{report['at']}, {report['runs']} rounds in turn, {report['seconds']} s. {machine['cpu']}, {machine['cores']} "
        f"cores, {machine['system']}; {report['python']}; {server['version']}, {server['transport']}, appendonly "
        f"{server['appendonly']}, save {server['save']}; load before "
        f"{report['load']['before']}, after {report['load']['after']}.",
        *(["", report["note"]] if report["note"] else []),
        "",
        "Medians, the lowest and highest run, and ours / theirs by the medians. Of jobs/s more is better, so a ratio "
        "above 1 is in our favour; of ms less is better, so one below 1 is.",
        "",
    ]
    for key, title in TITLES.items():
        rows = [(name, one["figures"][key]) for name, one in libraries.items() if key in one["figures"]]
        if not rows:
            continue
        unit = rows[0][1]["unit"]
        rows.sort(key=lambda row: row[1]["median"], reverse=unit == "jobs/s")
        lines += [f"## {title}", "", f"| library | {unit} | lowest to highest | ours / theirs |", "|---|--:|--:|--:|"]
        lines += [_row(name, figure) for name, figure in rows]
        lines.append("")
    lines += ["## Settings", "", "| library | version | jobs of a drain | settings |", "|---|---|--:|---|"]
    for name, one in libraries.items():
        lines.append(f"| {name} | {one['versions'].get(name, '')} | {one['jobs']:,} | {one['settings']} |")
    if report["failed"]:
        lines += ["", "## Failed", "", *(f"- {name}: {reason}" for name, reason in report["failed"].items())]
    return "\n".join(lines) + "\n"


def _row(name: str, figure: dict[str, Any]) -> str:
    shown = f"**{name}**" if name == OURS else name
    ratio = "" if name == OURS or figure["ratio"] is None else f"{figure['ratio']:,.2f}"
    median, low, high = (_number(figure[key]) for key in ("median", "low", "high"))
    return f"| {shown} | {median} | {low} to {high} | {ratio} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
