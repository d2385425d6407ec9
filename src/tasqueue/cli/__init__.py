"""The `tasqueue` command. Exit codes: 0 done, 1 failed, 2 wrong usage.

What is expected to go wrong ends in one line on stderr, never in a traceback. Each command is a module; all are over
`client.inspector`, but for the worker, the demo and the benchmark.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from .. import __version__
from ..errors import JobFailed, TasqueueError
from .terminal import visible

# name -> module: what a command needs is imported when it is called, so that each starts quickly
COMMANDS = {
    "demo": "demo.command",
    "worker": "work",
    "enqueue": "produce",
    "status": "status",
    "jobs": "jobs",
    "job": "job",
    "explain": "job",
    "cancel": "operate",
    "retry": "operate",
    "delete": "operate",
    "pause": "operate",
    "resume": "operate",
    "schedules": "schedules",
    "unschedule": "schedules",
    "doctor": "doctor",
    "bench": "bench.command",
}


class Commands(click.Group):
    """Loads a command when it is called, and turns this library's errors into one line and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, from its module."""
        if cmd_name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"{__name__}.{COMMANDS[cmd_name]}"), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown command is answered with those that look like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message}{near(args[0], COMMANDS)}", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Errors that a user can meet end here."""
        try:
            return super().invoke(ctx)
        except JobFailed as error:
            text = f"{error}; `tasqueue job {error.id}` shows the traceback"
            raise click.ClickException(visible(text, lines=True)) from None
        except (TasqueueError, TimeoutError) as error:
            raise click.ClickException(visible(str(error), lines=True)) from None


def near(word: str, known: Any) -> str:
    """` Did you mean …?`, or "" when nothing looks like it."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="tasqueue")
def main() -> None:
    """Jobs, groups, chains and schedules that no crash loses.

    See it work: tasqueue demo. Look at a queue: tasqueue status.
    """
