"""The supervisor with real children on a file: deaths, stops, blocked interpreters, drains, and nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.fleet import Fleet

from tasqueue import Job, Status
from tasqueue.runtime.supervisor import TRIES

pytestmark = [pytest.mark.fault, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

Make = Callable[..., Fleet]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    fleets: list[Fleet] = []

    def make(**options: Any) -> Fleet:
        fleets.append(Fleet(tmp_path, **options))
        return fleets[-1]

    yield make
    for fleet in fleets:
        await fleet.close()


async def test_what_a_killed_child_held_runs_again_at_once(make: Make) -> None:
    fleet = make()
    fleet.start(processes=2)
    await fleet.server.enqueue(Job("hold", id="job"))
    first = await fleet.started("job")
    os.kill(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    second = await fleet.started("job", 2)
    assert second.at - killed < 2.0  # the lease is 10 s
    fleet.tell("go-job")
    ended = await fleet.server.wait("job", 10)
    assert (ended.meta.status, ended.meta.deaths, ended.meta.retried) == (Status.SUCCESSFUL, 1, 0)
    assert second.pid != first.pid
    await fleet.until(lambda: len(fleet.processes()) == 3, "a new child in the place of the dead one")
    assert "killed by SIGKILL (signal 9)" in fleet.said()


async def test_a_stopped_child_loses_its_lease_and_its_late_finish_changes_nothing(make: Make) -> None:
    fleet = make(lease=1.5, default_concurrency=1)
    fleet.start(processes=2)
    await fleet.server.enqueue(Job("hold", id="job"))
    first = await fleet.started("job")
    os.kill(first.pid, signal.SIGSTOP)
    second = await fleet.started("job", 2)
    assert second.pid != first.pid
    fleet.tell("go-job")
    ended = await fleet.server.wait("job", 10)
    os.kill(first.pid, signal.SIGCONT)
    # It goes on under a new name: with one slot in each child, two jobs at once need both.
    await fleet.server.enqueue_many([Job("hold", id="one"), Job("hold", id="two")])
    pids = {(await fleet.started("one")).pid, (await fleet.started("two")).pid}
    assert pids == {first.pid, second.pid}
    assert await fleet.server.get_job("job") == ended
    assert await fleet.server.get_result("job") == str(second.pid).encode()


async def test_a_child_whose_interpreter_is_blocked_keeps_its_lease(make: Make) -> None:
    fleet = make(lease=1.0)
    fleet.start(processes=2)
    await fleet.server.enqueue(Job("hog", b"3000", id="job"))
    ended = await fleet.server.wait("job", 20)
    assert (ended.meta.status, ended.meta.deaths) == (Status.SUCCESSFUL, 0)
    assert [entry.what for entry in fleet.history(id="job")] == ["start", "end"]


async def test_a_child_that_a_job_blocks_past_its_timeout_is_killed(make: Make) -> None:
    fleet = make()
    fleet.start(processes=1, overdue=0.5)
    await fleet.server.enqueue(Job("hog", b"60000", id="job", timeout=0.5))
    first = await fleet.started("job")
    second = await fleet.started("job", 2)
    assert 1.0 <= second.at - first.at < 5.0
    ended = await fleet.server.wait("job", 10)
    assert (ended.meta.status, ended.meta.deaths) == (Status.SUCCESSFUL, 1)
    assert "job past its timeout" in fleet.said()


async def test_a_job_that_kills_its_process_fails_with_the_cause_and_harms_nobody(make: Make) -> None:
    fleet = make(default_concurrency=4)
    fleet.start(processes=1)
    neighbours = ["a", "b", "c"]
    await fleet.server.enqueue_many(
        [*(Job("neighbour", id=id) for id in neighbours), Job("poison", b"a b c", id="poison", max_retries=5)]
    )
    failed = await fleet.server.wait("poison", 25)
    assert failed.meta.status is Status.FAILED
    assert [(error.type, error.message.partition(",")[0]) for error in failed.meta.errors] == [
        ("WorkerDied", "exit code 7")
    ]
    assert len(fleet.history("start", "poison")) == 3
    for id in neighbours:
        fleet.tell(f"go-{id}")
        ended = await fleet.server.wait(id, 15)
        assert (ended.meta.status, ended.meta.deaths) == (Status.SUCCESSFUL, 2)


async def test_a_drain_spends_nothing_and_ends_in_time(make: Make) -> None:
    fleet = make(default_concurrency=4)
    supervisor = fleet.start(processes=1, grace=1.0)
    given_back = ["slow", "deaf", "stubborn"]
    await fleet.server.enqueue_many(
        [Job("hold", id="quick"), Job("hold", id="slow"), Job("deaf", id="deaf"), Job("stubborn", id="stubborn")]
    )
    for id in ("quick", *given_back):
        await fleet.started(id)
    asked = time.monotonic()
    supervisor.send_signal(signal.SIGTERM)
    fleet.tell("go-quick")
    assert await fleet.exit(supervisor) == 0
    assert 1.0 <= time.monotonic() - asked < 2.6
    await fleet.until(lambda: not fleet.processes(), "the end of all children", 1.0)
    assert (await fleet.server.get_job("quick")).meta.status is Status.SUCCESSFUL
    for id in given_back:
        meta = (await fleet.server.get_job(id)).meta
        assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
    assert {message.meta.id for message in await fleet.server.get_pending()} == {*given_back}
    assert len(fleet.history("start")) == 4


async def test_a_second_signal_skips_the_grace(make: Make) -> None:
    fleet = make()
    supervisor = fleet.start(processes=2, grace=60.0)
    await fleet.server.enqueue(Job("hold", id="job"))
    await fleet.started("job")
    supervisor.send_signal(signal.SIGINT)
    await fleet.until(lambda: fleet.history("draining"), "the drain")
    supervisor.send_signal(signal.SIGINT)
    assert await fleet.exit(supervisor, 5.0) == 0
    meta = (await fleet.server.get_job("job")).meta
    assert (meta.status, meta.retried, meta.deaths) == (Status.QUEUED, 0, 0)
    assert [message.meta.id for message in await fleet.server.get_pending()] == ["job"]
    assert "worker process(es) now; what they hold is given back" in fleet.said()
    assert "is gone; 1 job(s) given back unfinished" in fleet.said()


async def test_a_signal_for_every_process_of_the_service_is_one_drain(make: Make) -> None:
    fleet = make(max_deaths=1)  # so the job runs in a process of its own, which gets the signal too
    supervisor = fleet.start(processes=1)
    await fleet.server.enqueue(Job("hold", id="job"))
    await fleet.started("job")
    for pid in fleet.processes():
        os.kill(pid, signal.SIGTERM)
    await fleet.until(lambda: fleet.history("draining"), "the drain")
    for pid in set(fleet.processes()) - {supervisor.pid}:
        os.kill(pid, signal.SIGTERM)
    fleet.tell("go-job")
    assert await fleet.exit(supervisor) == 0
    assert (await fleet.server.get_job("job")).meta.status is Status.SUCCESSFUL


async def test_a_child_full_of_stuck_threads_is_replaced(make: Make) -> None:
    fleet = make(default_concurrency=1)
    fleet.start(processes=1, grace=0.5)
    await fleet.server.enqueue(Job("deaf", id="stuck", timeout=0.2))
    first = await fleet.started("stuck")
    await fleet.server.enqueue(Job("hold", id="next"))
    failed = await fleet.server.wait("stuck", 10)
    assert (failed.meta.status, failed.meta.deaths) == (Status.FAILED, 0)
    assert failed.meta.prev_err == "TimeoutError: timed out after 0.2 s"
    await fleet.until(lambda: first.pid not in fleet.processes(), "the end of the stuck child")
    await fleet.until(lambda: any(e.pid != first.pid for e in fleet.history("start", "next")), "a new child's run")
    fleet.tell("go-next")
    ended = await fleet.server.wait("next", 10)
    assert (ended.meta.status, ended.meta.deaths) == (Status.SUCCESSFUL, 0)


async def test_children_do_not_outlive_their_supervisor(make: Make) -> None:
    fleet = make(default_concurrency=2)
    supervisor = fleet.start(processes=2, grace=0.5)
    await fleet.server.enqueue_many([Job("hold", id="async"), Job("deaf", id="deaf")])
    for id in ("async", "deaf"):
        await fleet.started(id)
    supervisor.kill()
    await fleet.until(lambda: not fleet.processes(), "the end of all children", 8.0)
    assert {message.meta.id for message in await fleet.server.get_pending()} == {"async", "deaf"}
    for id in ("async", "deaf"):
        assert (await fleet.server.get_job(id)).meta.deaths == 0


async def test_what_a_crashed_child_has_started_ends_with_it(make: Make) -> None:
    fleet = make()
    fleet.start(processes=1)
    await fleet.server.enqueue(Job("family", id="job"))
    child = await fleet.started("job")
    process = int((fleet.folder / "pid-job").read_text())
    assert process in fleet.processes()
    os.kill(child.pid, signal.SIGKILL)
    await fleet.until(lambda: process not in fleet.processes(), "the end of the child's child", 3.0)


async def test_a_lone_process_does_not_outlive_its_worker(make: Make) -> None:
    fleet = make(max_deaths=1)
    fleet.start(processes=1)
    await fleet.server.enqueue(Job("hold", id="job"))
    lone = await fleet.started("job")
    supervisor = fleet.supervisors[0].pid
    (worker,) = set(fleet.processes()) - {lone.pid, supervisor}
    os.kill(worker, signal.SIGKILL)
    await fleet.until(lambda: lone.pid not in fleet.processes(), "the end of the lone process", 3.0)
    second = await fleet.started("job", 2)
    fleet.tell("go-job")
    ended = await fleet.server.wait("job", 10)
    assert (ended.meta.status, ended.meta.deaths) == (Status.SUCCESSFUL, 1)
    assert second.pid != lone.pid


async def test_a_child_that_was_asked_to_drain_is_not_replaced(make: Make) -> None:
    fleet = make(default_concurrency=1)
    supervisor = fleet.start(processes=2)
    await fleet.server.enqueue_many([Job("hold", id="one"), Job("hold", id="two")])
    first, second = await fleet.started("one"), await fleet.started("two")
    engine = (await fleet.server.parts()).engine
    for row in await engine.workers():
        if f":{first.pid}:" in row.id:
            assert await engine.drain(row.id)
    await fleet.until(lambda: fleet.history("draining", "one"), "the drain")
    fleet.tell("go-one")
    await fleet.until(lambda: "it is not replaced" in fleet.said(), "the end of the drained child")
    assert set(fleet.processes()) == {supervisor.pid, second.pid}
    assert (await fleet.server.get_job("one")).meta.status is Status.SUCCESSFUL


async def test_hup_replaces_the_children(make: Make) -> None:
    fleet = make(default_concurrency=1)
    supervisor = fleet.start(processes=1)
    await fleet.server.enqueue_many([Job("hold", id="one"), Job("hold", id="two")])
    first = await fleet.started("one")
    supervisor.send_signal(signal.SIGHUP)
    second = await fleet.started("two")
    assert second.pid != first.pid
    fleet.tell("go-one")
    assert (await fleet.server.wait("one", 10)).meta.status is Status.SUCCESSFUL
    await fleet.until(lambda: first.pid not in fleet.processes(), "the end of the old child")


async def test_hup_lets_a_child_work_until_another_has_its_place(make: Make) -> None:
    fleet = make()
    supervisor = fleet.start(processes=1)
    await fleet.server.enqueue(Job("hold", id="one"))
    first = await fleet.started("one")
    fleet.tell("waiting")
    supervisor.send_signal(signal.SIGHUP)
    await fleet.until(lambda: len(fleet.processes()) == 3, "the new child")
    await fleet.server.enqueue(Job("hold", id="two"))
    assert (await fleet.started("two")).pid == first.pid
    fleet.tell("go-lifespan")
    for id in ("one", "two"):
        await fleet.until(lambda id=id: fleet.history("draining", id), f"the drain of {id}")
        fleet.tell(f"go-{id}")
        assert (await fleet.server.wait(id, 10)).meta.status is Status.SUCCESSFUL
    await fleet.until(lambda: first.pid not in fleet.processes(), "the end of the old child")
    await fleet.server.enqueue(Job("hold", id="three"))
    assert (await fleet.started("three")).pid != first.pid
    assert len(fleet.processes()) == 2


async def test_hup_with_an_app_that_cannot_be_loaded_changes_nothing(make: Make) -> None:
    fleet = make(default_concurrency=1)
    supervisor = fleet.start(processes=2)
    await fleet.server.enqueue_many([Job("hold", id="one"), Job("hold", id="two")])
    old = {(await fleet.started("one")).pid, (await fleet.started("two")).pid}
    app = fleet.folder / "fleetapp.py"
    good = app.read_text()
    app.write_text("import asyncio\nraise RuntimeError('half deployed')\n")
    supervisor.send_signal(signal.SIGHUP)
    await fleet.until(lambda: "the others stay" in fleet.said(), "the failure")
    assert set(fleet.processes()) == {*old, supervisor.pid}
    assert "half deployed" in fleet.said()
    app.write_text(good)
    supervisor.send_signal(signal.SIGHUP)
    for id in ("one", "two"):
        fleet.tell(f"go-{id}")
        assert (await fleet.server.wait(id, 10)).meta.status is Status.SUCCESSFUL
    await fleet.until(lambda: not old.intersection(fleet.processes()), "the end of both old children")
    assert len(fleet.history("start")) == 2
    assert len(fleet.processes()) == 3


async def test_a_second_hup_begins_anew(make: Make) -> None:
    """What the first one has started loads what is out of date, or hangs."""
    fleet = make()
    supervisor = fleet.start(processes=1)
    await fleet.server.enqueue(Job("hold", id="one"))
    first = await fleet.started("one")
    fleet.tell("waiting")
    supervisor.send_signal(signal.SIGHUP)
    await fleet.until(lambda: len(fleet.processes()) == 3, "the new child")
    (hanging,) = set(fleet.processes()) - {first.pid, supervisor.pid}
    os.kill(hanging, signal.SIGSTOP)  # it does not see that it could go on
    (fleet.folder / "waiting").unlink()
    supervisor.send_signal(signal.SIGHUP)
    await fleet.until(lambda: hanging not in fleet.processes(), "the end of the one that hangs")
    await fleet.until(lambda: fleet.history("draining", "one"), "the drain of the old child")
    fleet.tell("go-one")
    await fleet.until(lambda: first.pid not in fleet.processes(), "the end of the old child")
    assert (await fleet.server.get_job("one")).meta.status is Status.SUCCESSFUL
    assert len(fleet.processes()) == 2
    supervisor.send_signal(signal.SIGTERM)
    assert await fleet.exit(supervisor) == 0


async def test_a_signal_to_end_while_a_child_is_replaced_ends_all(make: Make) -> None:
    fleet = make()
    supervisor = fleet.start(processes=1, grace=0.5)
    await fleet.server.enqueue(Job("hold", id="one"))
    await fleet.started("one")
    fleet.tell("waiting")
    supervisor.send_signal(signal.SIGHUP)
    await fleet.until(lambda: len(fleet.processes()) == 3, "the new child")
    supervisor.send_signal(signal.SIGTERM)
    assert await fleet.exit(supervisor) == 0
    await fleet.until(lambda: not fleet.processes(), "the end of all children", 1.0)
    meta = (await fleet.server.get_job("one")).meta
    assert (meta.status, meta.deaths) == (Status.QUEUED, 0)


async def test_starts_that_fail_do_not_end_a_child_that_takes_its_time(make: Make) -> None:
    fleet = make()
    fleet.tell("one-waits")
    supervisor = fleet.start(processes=2)
    await fleet.until(lambda: fleet.said().count("ended: exit code 1") >= TRIES, "so many starts that fail", 40.0)
    fleet.tell("go-lifespan")
    await fleet.server.enqueue(Job("hold", id="job"))
    first = await fleet.started("job")
    (fleet.folder / "one-waits").unlink()
    await fleet.until(lambda: fleet.said().count(": serving ") == 2, "a second child, after all")
    fleet.tell("go-job")
    assert (await fleet.server.wait("job", 10)).meta.deaths == 0
    assert {first.pid, supervisor.pid} < set(fleet.processes())
    assert "giving up" not in fleet.said()


async def test_an_app_that_cannot_be_loaded_ends_the_supervisor(make: Make) -> None:
    fleet = make()
    assert await fleet.exit(fleet.start("fleetap:srv")) == 1
    assert "did you mean 'fleetapp'?" in fleet.said()


async def test_children_that_never_start_end_the_supervisor(make: Make) -> None:
    fleet = make()
    fleet.tell("fail-lifespan")
    assert await fleet.exit(fleet.start(processes=1), 30.0) == 1
    assert "no database today" in fleet.said()
    assert "giving up" in fleet.said()
    assert not fleet.processes()
