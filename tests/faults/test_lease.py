"""Workers that cannot speak, or were silent for too long: a blocked loop or GIL keeps its lease, a frozen process
loses it and can change nothing afterwards, and a thread that ignores its timeout is fenced off (F5, F6, F14).

Leases of 2 to 3 s: beats come every third of that, from the keeper's thread and from the supervisor, so two in a row
may be late.
"""

from __future__ import annotations

import os
import signal

import pytest

from tasqueue import Status

from .fleet import Fleet, job
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


@pytest.mark.parametrize("round", range(3))
async def test_a_frozen_worker_comes_back_too_late(fleet: Fleet, round: int) -> None:
    fleet.settings["lease"] = 3.0
    srv = fleet.server()
    ids = await srv.enqueue_many([job("first_waits_in_thread", f"t{i}") for i in range(2)])
    frozen = fleet.worker(default_concurrency=4)
    await fleet.until(lambda: len(fleet.history().open()) == 2, "they do not start")
    # This one blocks the loop: it ends, and its finish is on its way, before its worker can learn of the lost lease.
    ids.append(await srv.enqueue(job("first_waits", "b", block=True)))
    await fleet.until(lambda: len(fleet.history().open()) == 3, "it does not start")
    await fleet.freeze(frozen.pid)
    other = fleet.worker()
    await fleet.all_successful(srv, ids)
    assert {run.pid for id in ids for run in fleet.history().of(id)[1:]} == {other.pid}
    (fleet.folder / "go").touch()  # as soon as they go on, the first runs end
    os.kill(frozen.pid, signal.SIGCONT)
    await fleet.until(lambda: not fleet.history().open(), "the frozen runs do not go on")
    await fleet.until(lambda: "stale finish of 1 job(s) refused" in frozen.log, "nothing was refused")
    await fleet.until(lambda: "going on under a new name" in frozen.log, "the lost lease is not noticed")
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


async def test_a_thread_that_ignores_its_timeout(fleet: Fleet) -> None:
    """Its slot comes back after the grace, its process is replaced, its retry waits for its end; there is one outcome."""
    fleet.settings.update(grace=1.0, default_concurrency=3)
    srv = fleet.server()
    deaf = await srv.enqueue_many([job("impatient", f"i{i}", s=6) for i in range(2)])
    fleet.supervised(1)
    await fleet.until(lambda: len(fleet.history().open()) == 2, "they do not start")
    ids = await srv.enqueue_many([job("work", f"w{i}", s=0.01) for i in range(100)])
    for id in deaf:
        assert (await srv.wait(id, 60)).meta.status is Status.FAILED
    await fleet.all_successful(srv, ids)
    history = fleet.history()
    verdict = judge(history, ids, attempted=deaf, retries=True)
    print(f"F14: {verdict}, {len({run.pid for run in history.all()})} processes")
    pids = {run.pid for run in history.all("impatient")}
    assert len(pids) > 1  # the process was replaced
    for id in deaf:
        runs = history.of(id)
        meta = (await srv.get_job(id)).meta
        assert len(runs) == 2  # max_retries is 1
        assert meta.retried == 1
        assert [error.type for error in meta.errors] == ["TimeoutError", "TimeoutError"]
        assert "timed out after 0.5 s" in meta.prev_err
        assert meta.deaths == 0
        # No overlap: the first run ended, or its process was gone (every run on it began before the second one).
        first, second = runs
        if first.end is None:
            assert first.pid != second.pid
            assert all(run.start <= second.start for run in history.all() if run.pid == first.pid)
        else:
            assert first.end <= second.start
