"""Workers that cannot speak, or were silent for too long: a blocked loop or GIL keeps its lease, a frozen process
loses it and can change nothing afterwards, and a thread that ignores its timeout is fenced off (F5, F6, F14).

Leases of 2 to 3 s: beats come every third of that, from the keeper's thread and from the supervisor, so two in a row
may be late.
"""

from __future__ import annotations

import os
import signal

import pytest

from tasqueue import Server, Status

from .fleet import PATIENCE, Fleet, job
from .history import judge

pytestmark = [pytest.mark.fault, pytest.mark.slow]


async def test_a_blocked_loop_and_a_held_gil_keep_their_lease(fleet: Fleet) -> None:
    fleet.settings["lease"] = 2.0
    srv = fleet.server()
    blocked = await srv.enqueue_many([job("block", f"b{i}", s=6.0) for i in range(2)])  # 3 leases
    fleet.supervised(2, default_concurrency=1)
    await fleet.until(lambda: len(fleet.history().open()) == 2, "they do not start")
    held = await srv.enqueue(job("gil", "g", s=4.0))  # 2 leases, beside a process that would take it
    rest = await srv.enqueue_many([job("work", f"w{i}", s=0.01) for i in range(50)])
    ids = [*blocked, held, *rest]
    await fleet.all_successful(srv, ids)
    verdict = judge(fleet.history(), ids)
    print(f"F5: {verdict}")
    verdict.check()
    assert verdict.extra == []
    for run in fleet.history().all("block") + fleet.history().all("gil"):
        assert run.end is not None
        assert run.end - run.start >= 2 * 2.0
    for id in ids:
        assert (await srv.get_job(id)).meta.deaths == 0


async def test_a_blocked_loop_keeps_its_lease_without_a_supervisor_too(fleet: Fleet) -> None:
    fleet.settings.update(lease=2.0, default_concurrency=1)
    srv = fleet.server()
    await srv.enqueue(job("block", "b", s=6.0))
    fleet.worker()
    await fleet.until(lambda: fleet.history().open(), "it does not start")
    fleet.worker()  # would take it
    await fleet.all_successful(srv, ["b"])
    assert len(fleet.history().of("b")) == 1


@pytest.mark.parametrize("held", [True, False], ids=["while the other runs it", "when the other has finished it"])
async def test_a_frozen_worker_comes_back_too_late(fleet: Fleet, held: bool) -> None:
    fleet.settings["lease"] = 3.0
    srv = fleet.server()
    ids = await srv.enqueue_many([job("first_waits_in_thread", f"t{i}") for i in range(2)])
    frozen = fleet.worker(default_concurrency=4)
    await fleet.until(lambda: len(fleet.history().open()) == 2, "they do not start")
    # This one blocks the loop: it ends, and its finish is on its way, before its worker can learn of the lost lease.
    ids.append(await srv.enqueue(job("first_waits", "b", block=True, again=held)))
    await fleet.until(lambda: len(fleet.history().open()) == 3, "it does not start")
    await fleet.freeze(frozen.pid)
    other = fleet.worker()
    await fleet.until(lambda: all(len(fleet.history().of(id)) == 2 for id in ids), "nobody takes them over")
    if not held:
        await fleet.all_successful(srv, ids)
    assert {run.pid for id in ids for run in fleet.history().of(id)[1:]} == {other.pid}
    (fleet.folder / "go").touch()  # as soon as they go on, the first runs end
    os.kill(frozen.pid, signal.SIGCONT)
    await fleet.until(lambda: not fleet.history().open(frozen.pid), "the frozen runs do not go on")
    await fleet.until(lambda: "stale finish of 1 job(s) refused" in frozen.log, "nothing was refused")
    await fleet.until(lambda: "going on under a new name" in frozen.log, "the lost lease is not noticed")
    (fleet.folder / "go-again").touch()
    await fleet.all_successful(srv, ids)
    other.signal(signal.SIGTERM)
    assert await other.ended() == 0
    more = await srv.enqueue_many([job("work", f"w{i}") for i in range(20)])
    await fleet.all_successful(srv, more)
    assert {run.pid for run in fleet.history().all("work")} == {frozen.pid}
    for id in ids:
        assert await srv.get_result(id) == b"second"
        meta = (await srv.get_job(id)).meta
        assert (meta.status, meta.deaths, meta.retried) == (Status.SUCCESSFUL, 1, 0)
        assert f":{other.pid}:" in meta.worker
        assert len(fleet.history().of(id)) == 2


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


async def test_a_thread_that_ignores_its_timeout(fleet: Fleet) -> None:
    """One among many: its process goes on, the slot is used, and the retry waits until the thread has ended."""
    fleet.settings.update(grace=1.0, default_concurrency=12)
    srv = fleet.server()
    (deaf,) = await srv.enqueue_many([job("impatient", "i", s=4)])
    fleet.supervised(2)
    await fleet.until(lambda: fleet.history().open(), "it does not start")
    ids = await srv.enqueue_many([job("work", f"w{i}", s=0.01) for i in range(500)])
    await timed_out_twice(fleet, srv, [deaf])
    await fleet.all_successful(srv, ids)
    first, second = fleet.history().of(deaf)
    assert first.end is not None
    assert first.end - first.start >= 4
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
