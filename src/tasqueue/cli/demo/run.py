"""Runs the demo: enqueues, watches, kills workers on the way if asked to, and checks what came of it.

Nothing here waits for a fixed time: a kill waits for progress since the one before, the end is that of the last job.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from ...clock import SYSTEM
from ...core.status import Status
from .app import Ranking, Tally, count, final_chain, package_group, srv
from .fleet import Fleet
from .progress import Bar

KILLS = 6
TOP = 10
LOOK_EVERY = 0.05
PATIENCE = 60.0
"""Seconds without a job that ends, after which the demo gives up."""


class Outcome(msgspec.Struct):
    """What the demo has found out. `starts`: how often each job was started, as the handlers wrote it down."""

    enqueued: list[str]
    done: set[str]
    starts: Counter[str]
    kills: int
    seconds: float
    ranking: Ranking
    expected: Ranking
    plain_seconds: float

    @property
    def lost(self) -> list[str]:
        """Jobs that did not run, or did not succeed."""
        return [id for id in self.enqueued if id not in self.done or not self.starts[id]]

    @property
    def rerun(self) -> list[str]:
        """Jobs that were started more than once."""
        return [id for id, times in self.starts.items() if times > 1]

    @property
    def right(self) -> bool:
        """Whether nothing is lost and every total is that of the plain loop."""
        return not self.lost and self.ranking == self.expected


async def run(found: dict[str, list[Path]], folder: Path, chaos: bool) -> Outcome:
    """Count these files by jobs, and again by a plain loop."""
    total = sum(len(paths) + 1 for paths in found.values()) + 2
    async with srv, Fleet(srv, folder / "workers.log") as fleet:
        with Bar("Counting") as bar:
            began = SYSTEM.mono()
            counting = asyncio.create_task(_count(found))
            watching = asyncio.create_task(_watch(fleet, bar, total, KILLS if chaos else 0))
            await asyncio.wait((counting, watching), return_when=asyncio.FIRST_COMPLETED)
            for task in (counting, watching):
                if not task.done():
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
            if not watching.cancelled():
                watching.result()  # it ends by itself only to say what went wrong
            enqueued, ranking = counting.result()
            seconds = SYSTEM.mono() - began
            bar.show(total, total)
        done = await _successful()
    began = SYSTEM.mono()
    expected = plain_loop([path for paths in found.values() for path in paths])
    return Outcome(
        enqueued=enqueued,
        done=done,
        starts=Counter((folder / "starts").read_text(encoding="ascii").splitlines()),
        kills=len(fleet.killed),
        seconds=seconds,
        ranking=ranking,
        expected=expected,
        plain_seconds=SYSTEM.mono() - began,
    )


def plain_loop(paths: list[Path]) -> Ranking:
    """The same totals without any queue."""
    total = Tally()
    for path in paths:
        total.add(count(str(path)))
    top = sorted(total.words.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return Ranking(total.files, total.lines, sum(total.words.values()), top)


async def _count(found: dict[str, list[Path]]) -> tuple[list[str], Ranking]:
    """All ids, and the ranking that the final chain came to."""
    groups = {await srv.enqueue_group(package_group(paths)): len(paths) for paths in found.values()}
    for id in groups:
        if (await srv.wait_group(id)).status is not Status.SUCCESSFUL:
            raise click.ClickException(f"group {id} failed: {await _first_error()}")
    added_up = [f"{id}~s0" for id in groups]
    chain = await srv.enqueue_chain(final_chain(added_up, TOP))
    end = await srv.wait_chain(chain)
    if end.status is not Status.SUCCESSFUL:
        raise click.ClickException(f"the final chain failed: {await _first_error()}")
    ids = [f"{id}~g{i}" for id, n in groups.items() for i in range(n)] + added_up + [f"{chain}~c0", f"{chain}~c1"]
    return ids, await srv.handle(end.job_id, Ranking).result()


async def _watch(fleet: Fleet, bar: Bar, total: int, kills: int) -> None:
    """Show what is really done; kill workers at equal parts of the way. Ends by raising, or is cancelled."""
    done, moved = 0, SYSTEM.mono()
    while True:
        fleet.check()
        ended = (await srv.inspector.counts()).ended
        if sum(ended.values()) > done:
            done, moved = sum(ended.values()), SYSTEM.mono()
        bar.show(done, total)
        due = len(fleet.killed) < kills and done * (kills + 1) >= total * (len(fleet.killed) + 1)
        if due and (pid := await fleet.kill_one()):
            bar.say(f"Killed worker process {pid} at {done:,} of {total:,} done")
        if SYSTEM.mono() - moved > PATIENCE:
            raise click.ClickException(f"no job has ended for {PATIENCE:g} s, at {done:,} of {total:,}: {fleet.log()}")
        await asyncio.sleep(LOOK_EVERY)


async def _successful() -> set[str]:
    ids: list[str] = []
    while page := await srv.get_success(limit=1000, after=ids[-1] if ids else None):
        ids += page
    return set(ids)


async def _first_error() -> str:
    for id in await srv.get_failed(limit=1):
        return f"job {id}: {(await srv.get_job(id)).meta.prev_err}"
    return "no job has an error"
