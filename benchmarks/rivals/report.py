"""A report of `run.py` as Markdown."""

from __future__ import annotations

from typing import Any

from library import FLOOR, OURS
from scenarios import LESS_IS_BETTER, TITLES
from summary import number

BASE = {"chains": "drain_100", "groups": "drain_100"}
"""A figure that another one is a share of."""


def markdown(report: dict[str, Any]) -> str:
    machine, server, libraries = report["machine"], report["server"], report["libraries"]
    lines = [
        "# Tasqueue, the floor and the rivals on one server",
        "",
        f"{report['at']}, {report['runs']} rounds in turn, {report['seconds']} s. {machine['cpu']}, {machine['cores']} "
        f"cores, {machine['system']}; {report['python']}; {server['version']}, {server['transport']}, appendonly "
        f"{server['appendonly']}, save {server['save']}; load before "
        f"{report['load']['before']}, after {report['load']['after']}.",
        *(["", report["note"]] if report["note"] else []),
        "",
        "| figure | unit | ours | floor | best rival | ratio | aim | met |",
        "|---|---|--:|--:|--:|--:|---|---|",
        *map(_summary_row, report["summary"]),
        "",
        "The ratio is what the aim speaks of. The best rival is the best of those that acknowledge after running and "
        "store results; the tables below have all settings. The floor is a hand-written loop over two batched scripts.",
        "",
        "Medians, the lowest and highest run, and how many times better ours is, by the medians; below 1 it is worse.",
        "",
    ]
    for key in TITLES:
        lines += _table(key, libraries, report["failed"])
    lines += ["## Settings", "", "| library | version | jobs of a drain | settings |", "|---|---|--:|---|"]
    for label, one in libraries.items():
        version = one["versions"].get(one["name"], "")
        lines.append(f"| {label} | {version} | {one['jobs']:,} | {one['settings']} |")
    if report["failed"]:
        lines += ["", "## Failed", ""]
        lines += [f"- {label}, {what}: {why}" for label, all in report["failed"].items() for what, why in all.items()]
    return "\n".join(lines) + "\n"


def _summary_row(row: dict[str, Any]) -> str:
    best = f"{number(row['best'])} ({row['rival']})" if row["rival"] else "–"
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    return (
        f"| {row['figure']} | {row['unit']} | {number(row['ours'])} | {number(row['floor'])} | {best} | "
        f"{number(row['ratio'])} | {row['aim']} | {met} |"
    )


def _table(key: str, libraries: dict[str, Any], failed: dict[str, Any]) -> list[str]:
    rows = [(label, one["figures"][key]) for label, one in libraries.items() if key in one["figures"]]
    if not rows:
        return []
    unit = rows[0][1]["unit"]
    rows.sort(key=lambda row: row[1]["median"], reverse=unit not in LESS_IS_BETTER)
    base = BASE.get(key)
    without = [label for label in libraries if label not in dict(rows) and not libraries[label]["variant"]]
    extra, rule = (" of its plain jobs |", "--:|") if base else ("", "")
    lines = [
        f"## {TITLES[key]}",
        "",
        f"| library | {unit} | lowest to highest | ours is better by |{extra}",
        f"|---|--:|--:|--:|{rule}",
    ]
    for label, figure in rows:
        plain = libraries[label]["figures"].get(base) if base else None
        share = f" {figure['median'] / plain['median']:.2f} |" if plain else " – |" if base else ""
        lines.append(_row(label, figure) + share)
    lines += [f"| {label} | – |  |  |{' |' if base else ''}" for label in without if label != FLOOR]
    return [*lines, ""]


def _row(label: str, figure: dict[str, Any]) -> str:
    shown = f"**{label}**" if label == OURS else label
    ratio = "" if label == OURS or figure["ratio"] is None else number(figure["ratio"])
    median, low, high = (number(figure[key]) for key in ("median", "low", "high"))
    return f"| {shown} | {median} | {low} to {high} | {ratio} |"
