"""`tasqueue jobs`: a list of jobs, newest first, and how to get the next page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from ..client.explain import first_line
from ..clock import SYSTEM
from ..core.message import JobMessage
from ..core.status import Status
from .target import Target, ask, json_option, target_options
from .terminal import WHOLE, Table, Text, count_of, from_ms, show, show_json, since

STYLE = {Status.FAILED: "bad", Status.RETRYING: "warn", Status.SUCCESSFUL: "good", Status.CANCELLED: "dim"}
NOTED = 80
"""Characters of an error in a list."""


@click.command()
@target_options
@click.option("-s", "--status", type=click.Choice([str(status) for status in Status]), help="Only these.")
@click.option("-q", "--queue", help="Only of this queue.")
@click.option("-t", "--task", help="Only of this task.")
@click.option(
    "-l", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="So many at the most."
)
@click.option("--after", metavar="ID", help="Those that follow this one: the last id of the page before.")
@json_option
def jobs(
    target: Target,
    status: str | None,
    queue: str | None,
    task: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    found = ask(
        target, lambda inspector: inspector.jobs(status=status, queue=queue, task=task, limit=limit, after=after)
    )
    if as_json:
        show_json([as_document(message) for message in found])
        return
    now = from_ms(int(SYSTEM.now() * 1000))
    rows = [_row(message, now) for message in found]
    show(
        Table(
            ("ID", "STATUS", "TASK", "QUEUE", "CHANGED", "NOTE"),
            rows,
            {"QUEUE": WHOLE, "CHANGED": WHOLE, "NOTE": 16, "TASK": 10},
        ),
        Text(count_of(len(found), "job") if found else "No such jobs.", "dim"),
    )
    if len(found) == limit:
        show(Text(f"There may be more: --after {found[-1].meta.id}", "dim"))


def _row(message: JobMessage, now: datetime) -> list[str | Text]:
    meta = message.meta
    return [
        meta.id,
        Text(str(meta.status), STYLE.get(meta.status, "")),
        message.job.task,
        meta.queue,
        since(meta.processed_at, now),
        note(message, now),
    ]


def note(message: JobMessage, now: datetime) -> str:
    """The one thing about this job that an operator wants to know now, in a line."""
    meta = message.meta
    if meta.parked:
        return f"parked: {meta.parked}"
    if meta.progress and not meta.status.final:
        done, total, text = meta.progress
        return f"{done}/{total} {text}".rstrip()
    if meta.status is Status.QUEUED and meta.due_at is not None and meta.due_at > now:
        return f"due {since(meta.due_at, now)}"
    if meta.status is Status.RETRYING:
        return f"try {meta.retried + 1} {since(meta.due_at, now)}: {first_line(meta.prev_err, NOTED)}"
    return first_line(meta.prev_err, NOTED)


def as_document(message: JobMessage) -> dict[str, Any]:
    """A job as JSON shows it: `job` as submitted, `meta` as it is now. Bytes are base64."""
    return {"job": message.job, "meta": message.meta}
