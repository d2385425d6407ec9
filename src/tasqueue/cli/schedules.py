"""`tasqueue schedules` and `tasqueue unschedule`: what ticks, and how to end it.

A schedule lives in the store, not in the code that declared it: when that code is gone it ticks on, until it is
deleted.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime
from typing import Any

import click

from ..client.inspector import Inspector, WorkerMessage
from ..clock import SYSTEM
from ..core.message import ScheduleMessage
from . import near
from .report import known_tasks
from .target import Target, ask, json_option, target_options
from .terminal import WHOLE, Table, Text, complain, count_of, from_ms, show, show_json, since

DECLARED = "cron:"
"""Ids of the schedules that a worker stores for its own tasks begin with it."""


@click.command()
@target_options
@json_option
def schedules(target: Target, as_json: bool) -> None:
    """List what ticks: schedules, their next and last ticks."""

    async def question(inspector: Inspector) -> tuple[list[ScheduleMessage], list[WorkerMessage]]:
        return await inspector.get_schedules(), await inspector.workers()

    entries, workers = ask(target, question)
    now = from_ms(int(SYSTEM.now() * 1000))
    known = known_tasks(workers, now)
    if as_json:
        show_json([as_document(entry, known) for entry in entries])
        return
    show(
        table(entries, known, now),
        Text(count_of(len(entries), "schedule") if entries else "No schedules.", "dim"),
        *([Text("Next: tasqueue unschedule ID ends one.", "dim")] if entries else []),
    )


@click.command()
@target_options
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def unschedule(target: Target, ids: tuple[str, ...]) -> None:
    """Delete schedules: no tick follows. Jobs enqueued by them stay."""

    async def question(inspector: Inspector) -> tuple[list[bool], list[str]]:
        deleted = [await inspector.delete_schedule(id) for id in ids]
        return deleted, [] if all(deleted) else [entry.id for entry in await inspector.get_schedules()]

    deleted, others = ask(target, question)
    for id, done in zip(ids, deleted, strict=True):
        if done:
            show(Text(f"deleted: schedule {id}", "good"))
        else:
            complain(f"there is no schedule {id!r}.{near(id, others) or ' `tasqueue schedules` lists them'}")
    if any(done and id.startswith(DECLARED) for id, done in zip(ids, deleted, strict=True)):
        show(Text("A worker whose code still declares it stores it again when it starts.", "dim"))
    if not all(deleted):
        raise SystemExit(1)


def table(entries: Sequence[ScheduleMessage], known: Set[str], now: datetime) -> Table:
    """The schedules; one whose task no living worker knows is marked. `known`: the tasks that some living one knows."""
    return Table(
        ("SCHEDULE", "WHEN", "TASK", "QUEUE", "NEXT", "LAST", "NOTE"),
        [
            [
                entry.id,
                entry.schedule,
                entry.job.task,
                entry.job.queue or "",
                Text("paused", "warn") if entry.paused else since(entry.next_at, now),
                since(entry.last_at, now),
                Text("" if entry.job.task in known else "unknown task" if known else "no worker", "warn"),
            ]
            for entry in entries
        ],
        {"QUEUE": WHOLE, "LAST": WHOLE, "TASK": 10, "NEXT": WHOLE, "WHEN": 10},
    )


def as_document(entry: ScheduleMessage, known: Set[str]) -> dict[str, Any]:
    """A schedule as JSON shows it; `known`: whether a living worker can run its task."""
    return {
        "id": entry.id,
        "schedule": entry.schedule,
        "job": entry.job,
        "next_at": entry.next_at,
        "last_at": entry.last_at,
        "paused": entry.paused,
        "known": entry.job.task in known,
    }
