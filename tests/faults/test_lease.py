"""Workers that cannot speak, or were silent for too long: a blocked loop or GIL keeps its lease, a frozen process
loses it and can change nothing afterwards, and a thread that ignores its timeout is fenced off (F5, F6, F14).

Leases of 2 to 3 s: beats come every third of that, from the keeper's thread and from the supervisor, so two in a row
may be late.
"""

from __future__ import annotations

import os
import re
import signal

import pytest

from tasqueue import Server, Status

from .fleet import PATIENCE, Fleet, Process, job
from .history import judge
from .stores import on_every_engine, on_whole_engines

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@on_every_engine
async def test_blocked_loops_and_held_gils_keep_their_leases(fleet: Fleet) -> None:
    """Ten processes cannot speak for three leases, twice, beside one that would take their jobs."""
    fleet.settings["lease"] = 2.0
    srv = fleet.server()
    ids = await srv.enqueue_many([job(("block", "gil")[i % 2], f"b{i}", s=6.0) for i in range(20)])
    fleet.supervised(11, default_concurrency=1)
    await fleet.until(lambda: len(fleet.history().all()) == len(ids), "they do not start")
    ids += await srv.enqueue_many([job("work", f"w{i}", s=0.01) for i in range(50)])
    await fleet.all_successful(srv, ids)
    verdict = judge(fleet.history(), ids)
    print(f"F5: {verdict}")
    verdict.check()
    assert verdict.extra == []
    for run in fleet.history().all("block") + fleet.history().all("gil"):
        assert run.end is not None
        assert run.end - run.start >= 3 * 2.0
    for id in ids:
        assert (await srv.get_job(id)).meta.deaths == 0


@on_every_engine
async def test_a_blocked_loop_keeps_its_lease_without_a_supervisor_too(fleet: Fleet) -> None:
    fleet.settings.update(lease=2.0, default_concurrency=1)
    srv = fleet.server()
    await srv.enqueue(job("block", "b", s=6.0))
    fleet.worker()
    await fleet.until(lambda: fleet.history().open(), "it does not start")
    fleet.worker()  # would take it
    await fleet.all_successful(srv, ["b"])
    assert len(fleet.history().of("b")) == 1


@on_every_engine
@pytest.mark.parametrize("held", [True, False], ids=["while the other runs it", "when the other has finished it"])
async def test_frozen_workers_come_back_too_late(fleet: Fleet, held: bool) -> None:
    fleet.settings["lease"] = 3.0
    srv = fleet.server()
    ids: list[str] = []
    frozen: list[Process] = []
    for k in range(4):
        frozen.append(fleet.worker(default_concurrency=5))
        ids += await srv.enqueue_many([job("first_waits_in_thread", f"t{k}-{i}") for i in range(4)])
        await fleet.until(lambda k=k: len(fleet.history().open()) == 5 * k + 4, "they do not start")
        # It blocks the loop: it ends, and its finish is on its way, before its worker can learn of the lost lease.
        ids.append(await srv.enqueue(job("first_waits", f"b{k}", block=True, again=held)))
        await fleet.until(lambda k=k: len(fleet.history().open()) == 5 * k + 5, "it does not start")
    for process in frozen:
        await fleet.freeze(process.pid)
    other = fleet.worker(default_concurrency=20)
    await fleet.until(lambda: all(len(fleet.history().of(id)) == 2 for id in ids), "nobody takes them over")
    if not held:
        await fleet.all_successful(srv, ids)
    assert {run.pid for id in ids for run in fleet.history().of(id)[1:]} == {other.pid}
    (fleet.folder / "go").touch()  # as soon as they go on, the first runs end
    for process in frozen:
        os.kill(process.pid, signal.SIGCONT)
    for process in frozen:
        await fleet.until(lambda p=process: not fleet.history().open(p.pid), "the frozen runs do not go on")
        await fleet.until(lambda p=process: refused(p), "nothing was refused")
        await fleet.until(lambda p=process: "going on under a new name" in p.log, "the lost lease is not noticed")
    (fleet.folder / "go-again").touch()
    await fleet.all_successful(srv, ids)
    other.signal(signal.SIGTERM)
    assert await other.ended() == 0
    more = await srv.enqueue_many([job("work", f"w{i}") for i in range(20)])
    await fleet.all_successful(srv, more)
    assert {run.pid for run in fleet.history().all("work")} <= {process.pid for process in frozen}
    accepted = [id for id in ids if await srv.get_result(id) != b"second"]
    print(f"F6: stale writes refused {sum(map(refused, frozen))}, accepted {len(accepted)}, of {len(ids)} stale runs")
    assert accepted == []
    for id in ids:
        meta = (await srv.get_job(id)).meta
        assert (meta.status, meta.deaths, meta.retried) == (Status.SUCCESSFUL, 1, 0)
        assert f":{other.pid}:" in meta.worker
        assert [run.done for run in fleet.history().of(id)][1:] == [True]


def refused(process: Process) -> int:
    """How many stale finishes of it the store has refused."""
    return sum(map(int, re.findall(r"stale finish of (\d+) job\(s\) refused", process.log)))


@on_whole_engines
async def test_threads_that_ignore_their_timeout(fleet: Fleet) -> None:
    """So many that the process is replaced: the retries begin when it is gone, and each job has one outcome."""
    fleet.settings.update(grace=1.0, default_concurrency=3)
    srv = fleet.server()
    deaf = await srv.enqueue_many([job("impatient", f"i{i}", s=6) for i in range(2)])
    fleet.supervised(1)
    await fleet.until(lambda: len(fleet.history().open()) == 2, "they do not start")
    ids = await srv.enqueue_many([job("work", f"w{i}", s=0.01) for i in range(100)])
    await timed_out_twice(fleet, srv, deaf)
    await fleet.all_successful(srv, ids)
    history = fleet.history()
    assert judge(history, ids, attempted=deaf).lost == []
    assert len({run.pid for run in history.all("impatient")}) > 1
    for id in deaf:
        first, second = history.of(id)
        assert first.pid != second.pid
        assert first.end is None  # it died with its process, whose every run began before the second one
        assert all(run.start < second.start for run in history.all() if run.pid == first.pid)


@on_whole_engines
async def test_a_thread_that_ignores_its_timeout(fleet: Fleet) -> None:
    """One among many: its process goes on, the slot is used, and the retry waits until the thread has ended."""
    fleet.settings.update(grace=1.0, default_concurrency=12)
    srv = fleet.server()
    (deaf,) = await srv.enqueue_many([job("impatient", "i", s=2.5)])
    fleet.supervised(2)
    await fleet.until(lambda: fleet.history().open(), "it does not start")
    ids = await srv.enqueue_many([job("work", f"w{i}", s=0.01) for i in range(500)])
    await timed_out_twice(fleet, srv, [deaf])
    await fleet.all_successful(srv, ids)
    first, second = fleet.history().of(deaf)
    assert first.end is not None
    assert first.end - first.start >= 2.5
    assert second.start >= first.end
    verdict = judge(fleet.history(), ids, attempted=[deaf])
    print(f"F14: {verdict}, the retry began {second.start - first.end:.2f} s after the end of the run that timed out")
    assert verdict.lost == verdict.overlapping == []


async def timed_out_twice(fleet: Fleet, srv: Server, ids: list[str]) -> None:
    for id in ids:
        meta = (await srv.wait(id, PATIENCE)).meta
        assert (meta.status, meta.retried, meta.deaths) == (Status.FAILED, 1, 0)
        assert [error.type for error in meta.errors] == ["TimeoutError", "TimeoutError"]
        assert "timed out after 0.5 s" in meta.prev_err
        assert len(fleet.history().of(id)) == 2
