"""`tasqueue status`: queues, workers and schedules on one screen, and what to do next. `--watch` keeps it there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
import msgspec

from ..client.inspector import Inspector, WorkerMessage
from ..clock import SYSTEM
from ..core.message import ScheduleMessage
from ..core.status import ENDED, State
from ..interfaces import Counts, PauseRow
from . import schedules
from .report import Report, alive, known_tasks
from .target import Target, ask, json_option, target_options
from .terminal import (
    WHOLE,
    Block,
    Table,
    Text,
    clock_time,
    count_of,
    from_ms,
    plain,
    rich,
    rich_console,
    show,
    show_json,
    since,
    size,
)

WAITING = (State.READY, State.RUNNING, State.DUE, State.HELD, State.PARKED)
EVERY = 1.0
"""Seconds between two looks of --watch."""


class Snapshot(msgspec.Struct, frozen=True):
    """All that is shown, read at `at`."""

    url: str
    at: datetime
    counts: Counts
    workers: list[WorkerMessage]
    schedules: list[ScheduleMessage]
    paused: list[PauseRow]


@click.command()
@target_options
@json_option
@click.option("-w", "--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
def status(target: Target, as_json: bool, watch: bool) -> None:
    """Show queues, workers and schedules."""
    if watch and as_json:
        raise click.UsageError("--json prints one document, --watch never ends: choose one")
    if watch:
        try:
            asyncio.run(_watch(target))
        except KeyboardInterrupt:
            return
    snapshot = ask(target, look)
    if as_json:
        show_json(_document(snapshot))
    else:
        show(*view(snapshot))


async def look(inspector: Inspector) -> Snapshot:
    """Read everything."""
    return Snapshot(
        inspector.connection.url,
        from_ms(int(SYSTEM.now() * 1000)),
        await inspector.counts(),
        sorted(await inspector.workers(), key=lambda worker: worker.id),
        await inspector.get_schedules(),
        await inspector.paused(),
    )


async def _watch(target: Target) -> None:
    async with target.server() as srv:
        with _screen() as draw:
            while True:
                draw(view(await look(srv.inspector)))
                await asyncio.sleep(EVERY)


@contextmanager
def _screen() -> Generator[Callable[[Sequence[Block]], None]]:
    """Something that shows blocks in the place of those before; where there is no terminal, below them."""
    console = rich_console()
    if console is None:
        home = "\x1b[2J\x1b[H" if sys.stdout.isatty() else ""
        yield lambda blocks: click.echo(f"{home}{plain(blocks)}\n")
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=True) as live:
        yield lambda blocks: live.update(rich(blocks, console.width), refresh=True)


# -- for people -------------------------------------------------------------------------------------------------------


def view(seen: Snapshot) -> list[Block]:
    """The screen."""
    paused = {row.queue: row for row in seen.paused}
    queues = {
        queue: seen.counts.queues.get(queue, {}) for queue in sorted({*seen.counts.queues, *paused, *_served(seen)})
    }
    ended = seen.counts.ended
    failed = ended.get(State.FAILED, 0)
    known = known_tasks(seen.workers, seen.at)
    return [
        Text(f"{seen.url}  {clock_time(seen.at)[:19]}", "dim"),
        Table(
            ("QUEUE", ">READY", ">RUNNING", ">LATER", ">HELD", ">PARKED", "WORKERS", ""),
            [_queue_row(queue, states, paused.get(queue), _slots(seen, queue)) for queue, states in queues.items()],
        ),
        Text(
            f"Ended: {ended.get(State.SUCCESSFUL, 0):,} successful, {failed:,} failed, "
            f"{ended.get(State.CANCELLED, 0):,} cancelled",
            "bad" if failed else "",
        ),
        *_held_note(seen),
        Table(
            ("WORKER", ">PID", ">BUSY", ">HELD", ">DONE", ">FAILED", ">MEMORY", "LAST BEAT", "LEASE", "NOTE"),
            [_worker_row(worker, seen.at) for worker in seen.workers],
            dict.fromkeys(("PID", "HELD", "MEMORY", "FAILED", "LAST BEAT", "DONE", "BUSY", "LEASE"), WHOLE),
        ),
        schedules.table(seen.schedules, known, seen.at),
        *([Text("tasqueue unschedule ID ends a schedule.", "dim")] if seen.schedules else []),
        *(Text(advice, "warn") for advice in _advice(seen, paused, known)),
    ]


def _queue_row(
    queue: str, states: Mapping[State, int], pause: PauseRow | None, workers: tuple[int, int]
) -> list[str | Text]:
    style = {State.READY: "strong", State.RUNNING: "good", State.PARKED: "warn"}
    numbers = [
        Text(f"{states.get(state, 0):,}", style.get(state, "") if states.get(state) else "dim") for state in WAITING
    ]
    serving, slots = workers
    served = f"{serving} ({count_of(slots, 'slot')})" if serving else Text("none", "warn" if states else "dim")
    return [queue, *numbers, served, Text("paused" if pause else "", "warn")]


def _held_note(seen: Snapshot) -> list[Text]:
    if not any(states.get(State.HELD) for states in seen.counts.queues.values()):
        return []
    text = "Held: later steps of chains, those of failed and cancelled chains too, as long as these are kept."
    return [Text(text, "dim")]


def _worker_row(worker: WorkerMessage, now: datetime) -> list[str | Text]:
    report = Report.of(worker)
    living = alive(worker, now)
    lease = f"until {clock_time(worker.lease_until)[11:19]}" if living else f"ended {since(worker.lease_until, now)}"
    return [
        worker.id if worker.id.startswith(f"{report.host}:") or not report.host else f"{worker.id} on {report.host}",
        str(report.pid or "-"),
        f"{report.busy}/{sum(report.queues.values())}",
        str(worker.held),
        f"{report.done:,}",
        Text(f"{report.failed:,}", "bad" if report.failed else ""),
        size(report.rss) if report.rss else "-",
        since(from_ms(report.at), now) if report.at else "-",
        Text(lease, "good" if living else "bad"),
        Text("draining" if report.draining and living else "", "warn"),
    ]


def _advice(seen: Snapshot, paused: Mapping[str, PauseRow], known: Set[str]) -> list[str]:
    """What is not well, and the command that an operator would type now; nothing when all is well."""
    advice: list[str] = []
    if not (seen.counts.queues or any(seen.counts.ended.values()) or seen.workers or seen.schedules):
        advice.append("Nothing was ever enqueued here. Next: tasqueue enqueue APP:SERVER TASK")
    for queue, pause in sorted(paused.items()):
        why = f": {pause.reason.rstrip('.')}" if pause.reason else ""
        advice.append(f"Queue {queue} was paused by {pause.by}{why}. Next: tasqueue resume {queue}")
    for queue, states in sorted(seen.counts.queues.items()):
        waiting = states.get(State.READY, 0)
        if queue not in paused and waiting and not _slots(seen, queue)[0]:
            advice.append(
                f"No worker serves queue {queue}, {count_of(waiting, 'job')} ready. Next: tasqueue worker APP:SERVER"
            )
    if parked := sum(states.get(State.PARKED, 0) for states in seen.counts.queues.values()):
        advice.append(
            f"{count_of(parked, 'job')} parked: no worker knows the task. Next: tasqueue worker APP:SERVER, upgraded"
        )
    if any(alive(worker, seen.at) for worker in seen.workers):  # if not, that is what is wrong
        advice += [
            f"Schedule {entry.id} ticks, but no live worker knows task {entry.job.task}. Next: tasqueue unschedule "
            f"{entry.id}, or start a worker that knows it"
            for entry in seen.schedules
            if entry.job.task not in known
        ]
    if failed := seen.counts.ended.get(State.FAILED, 0):
        advice.append(f"{count_of(failed, 'job')} failed. Next: tasqueue jobs --status failed")
    return advice


def _served(seen: Snapshot) -> set[str]:
    return {queue for worker in seen.workers for queue in Report.of(worker).queues}


def _slots(seen: Snapshot, queue: str) -> tuple[int, int]:
    """How many living workers serve it, with how many slots."""
    slots = [Report.of(worker).queues.get(queue, 0) for worker in seen.workers if alive(worker, seen.at)]
    return sum(map(bool, slots)), sum(slots)


# -- for programs -----------------------------------------------------------------------------------------------------


def _document(seen: Snapshot) -> dict[str, Any]:
    return {
        "url": seen.url,
        "at": seen.at,
        "queues": {
            queue: {state.name.lower(): states.get(state, 0) for state in WAITING}
            for queue, states in seen.counts.queues.items()
        },
        "ended": {str(ENDED[state]): seen.counts.ended.get(state, 0) for state in ENDED},
        "workers": [
            {"id": w.id, "lease_until": w.lease_until, "alive": alive(w, seen.at), "held": w.held, "info": w.info}
            for w in seen.workers
        ],
        "schedules": [schedules.as_document(entry, known_tasks(seen.workers, seen.at)) for entry in seen.schedules],
        "paused": [
            {"queue": row.queue, "reason": row.reason, "by": row.by, "at": from_ms(row.at)} for row in seen.paused
        ],
    }
