"""`tasqueue doctor`: does the store work, and what do its settings really promise. Exit code 1 for an error."""

from __future__ import annotations

import click

from ..interfaces import Durability
from .target import Target, ask, json_option, target_options
from .terminal import Table, Text, count_of, show, show_json

_PROMISES = {
    "process": "nothing beyond this process",
    "os-crash": "a crash of any process, not of the machine",
    "power-loss": "a power cut",
}
_STYLE = {"ok": "good", "warn": "warn", "error": "bad"}


@click.command()
@target_options
@json_option
def doctor(target: Target, as_json: bool) -> None:
    """Check the store, its settings and what they promise."""
    found = ask(target, lambda inspector: inspector.durability())
    errors = sum(finding.level == "error" for finding in found.findings)
    warnings = sum(finding.level == "warn" for finding in found.findings)
    if as_json:
        show_json({"level": found.level, "promise": found.promise, "errors": errors, "findings": found.findings})
    else:
        _show(found, errors, warnings)
    if errors:
        raise SystemExit(1)


def _show(found: Durability, errors: int, warnings: int) -> None:
    findings = sorted(found.findings, key=lambda finding: list(_STYLE).index(finding.level), reverse=True)
    rows = [(Text(finding.level, _STYLE[finding.level]), finding.name, finding.value) for finding in findings]
    show(
        Text(f"An acknowledged job survives {_PROMISES[found.level]}.", "strong"),
        found.promise,
        Table(("", "SETTING", "VALUE"), rows),
        *(Text(f"{finding.name}: {finding.advice}", _STYLE[finding.level]) for finding in findings if finding.advice),
        Text(
            f"{count_of(errors, 'error')}, {count_of(warnings, 'warning')}",
            "bad" if errors else "warn" if warnings else "good",
        ),
    )
