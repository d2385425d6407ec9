"""Jobs that kill their process, bytes that are no job, tasks and versions that nobody knows (F4, F12, F13)."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tasqueue import DEFAULT_QUEUE, Server, Status
from tasqueue.core import codec
from tasqueue.core.record import Record

from .fleet import PATIENCE, Fleet, job
from .history import Kill, judge
from .stores import on_every_engine, on_whole_engines

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@on_whole_engines
@pytest.mark.timeout(180)
async def test_a_job_that_kills_its_process_takes_nobody_with_it(fleet: Fleet) -> None:
    fleet.settings.update(max_deaths=3, lease=10.0)
    srv = fleet.server()
    slow = [f"n{i}" for i in range(10)]
    await srv.enqueue_many(
        [
            job("poison", "p", how="segfault", neighbours=10),
            *(job("neighbour", id) for id in slow),
        ]  # all at the head of the queue
        + [job("work", f"w{i}", s=0.06) for i in range(240)]
    )
    healthy = [*slow, *(f"w{i}" for i in range(240))]
    fleet.supervised(1, default_concurrency=12)
    failed = await srv.wait("p", 120)
    await fleet.all_successful(srv, healthy)
    history = fleet.history()
    runs = history.of("p")
    print(f"F4: {failed.meta.prev_err}; {len(history.all())} runs of {len(healthy) + 1} jobs")
    assert failed.meta.status is Status.FAILED
    assert "SIGSEGV (signal 11), in a process that ran nothing else" in failed.meta.prev_err
    assert len(runs) == 3
    assert len({run.pid for run in runs}) == 3
    assert await srv.get_failed() == ["p"]
    for run in runs[:2]:  # ten neighbours ran beside it and died with it
        beside = [r for id in slow for r in history.of(id) if r.pid == run.pid and r.end is None]
        assert len(beside) == 10
    assert not [r for r in history.all() if r.pid == runs[2].pid and r is not runs[2]]  # the last run was made alone
    for run, after in itertools.pairwise(runs):
        back = min(r.start for r in history.all() if r.start > run.start and r.pid == after.pid)
        print(f"F4: in work again {back - run.start:.2f} s after the start of the run that ended it")
        assert back - run.start < 30
    dead = [Kill(run.pid, max(r.end or r.start for r in history.all() if r.pid == run.pid), 12 + 512) for run in runs]
    judge(history, healthy, dead, attempted=["p"]).check()  # the others were run again only where it had killed them


@on_whole_engines
@pytest.mark.timeout(180)
async def test_many_jobs_that_kill_their_processes(fleet: Fleet) -> None:
    """Each dies until its deaths are up; the good ones between them are done, and the pool is whole again. One that
    dies beside another before it has had its run alone has one death more.
    """
    fleet.settings.update(max_deaths=3, lease=10.0)
    srv = fleet.server()
    causes = {"exit": "exit code 7", "segfault": "SIGSEGV", "killed": "SIGKILL"}
    bad = {f"p{i}": how for i, how in enumerate([*causes] * 3)}
    good = [f"w{i}" for i in range(180)]
    jobs = [job("work", id, s=0.02) for id in good]
    for i, (id, how) in enumerate(bad.items()):
        jobs.insert(20 * i, job("poison", id, how=how, neighbours=0))
    await srv.enqueue_many(jobs)
    boss = fleet.supervised(4, default_concurrency=2)
    await fleet.all_successful(srv, good)
    for id, how in bad.items():
        meta = (await srv.wait(id, PATIENCE)).meta
        assert (meta.status, meta.retried) == (Status.FAILED, 0)
        assert meta.deaths >= 3
        assert causes[how] in meta.prev_err
        assert "in a process that ran nothing else" in meta.prev_err
    assert sorted(await srv.get_failed()) == sorted(bad)
    history = fleet.history()
    began = max(run.start for run in history.all("poison"))
    more = await srv.enqueue_many([job("first_waits", f"m{i}") for i in range(8)])
    await fleet.until(
        lambda: len({run.pid for run in fleet.history().all("first_waits")}) == 4, "the pool is not whole"
    )
    whole = max(min(r.start for r in fleet.history().all() if r.pid == pid) for pid in boss.children()) - began
    (fleet.folder / "go").touch()
    await fleet.all_successful(srv, more)
    deaths = {run.pid for run in history.all("poison")}
    dead = [Kill(pid, max(r.end or r.start for r in history.all() if r.pid == pid), 512) for pid in deaths]
    verdict = judge(fleet.history(), [*good, *more], dead, attempted=bad)
    print(f"F4 {len(deaths)} deaths: {verdict}; the pool whole again {whole:.2f} s after the start of the last of them")
    assert verdict.lost == verdict.unexpected == verdict.overlapping == []
    for run in verdict.unexplained:  # it had a process of its own, and that one's parent died
        assert (await srv.get_job(run.id)).meta.deaths >= 3
    for id in bad:
        runs = history.of(id)
        assert runs
        assert not [run for run in history.all() if run.pid == runs[-1].pid and run is not runs[-1]]  # made alone


def garbage(rand: random.Random, good: bytes) -> bytes:
    """Bytes that are no job: noise, pieces, wrong types, too much, too deep."""
    kind = rand.randrange(6)
    if kind == 0:
        return rand.randbytes(rand.randrange(0, 200))
    if kind == 1:
        return good[: rand.randrange(len(good))]
    if kind == 2:
        return good + rand.randbytes(rand.randrange(1, 20))
    if kind == 3:
        return b"\x91" * rand.randrange(1, 5_000)
    if kind == 4:
        return b"\xdd\xff\xff\xff\xff" + rand.randbytes(10)  # an array of four thousand million
    at = rand.randrange(len(good))
    return good[:at] + b"\xc1" + good[at + 1 :]  # a byte that msgpack does not use


def undecodable(rand: random.Random, good: bytes) -> bytes:
    while True:
        data = garbage(rand, good)
        try:
            codec.decode_spec(data)
        except codec.Undecodable:
            return data
        except codec.NewerVersion:
            continue


def rss(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


@on_every_engine
async def test_bytes_that_are_no_job_between_jobs(fleet: Fleet) -> None:
    srv = fleet.server()
    engine = (await srv.parts()).engine
    worker = fleet.worker()
    good = await srv.enqueue_many([job("work", f"before{i}") for i in range(200)])
    await fleet.all_successful(srv, good)
    before = rss(worker.pid)
    rand = random.Random(12)
    spec = codec.encode_spec(job("work", s=0), 0)
    bad = {f"bad{i}": undecodable(rand, spec) for i in range(2_000)}
    ids = list(bad)
    for start in range(0, len(ids), 100):
        await engine.submit([Record(id, DEFAULT_QUEUE, "work", bad[id]) for id in ids[start : start + 100]])
        good += await srv.enqueue_many([job("work", f"good{start + i}") for i in range(10)])
    await fleet.all_successful(srv, good)
    rows = await engine.get(ids)
    assert worker.code is None
    assert {run.pid for run in fleet.history().all()} == {worker.pid}
    judge(fleet.history(), good).check()
    for id, row in zip(ids, rows, strict=True):
        assert row is not None
        assert row.spec == bad[id]  # kept as it was
        tail = codec.decode_tail(row.tail)
        assert tail.status is Status.FAILED
        assert tail.prev_err.startswith("Undecodable: ")
    grown = rss(worker.pid) - before
    print(f"F12: 2,000 poison bodies, worker grew by {grown:.1f} MiB")
    assert grown < 50
    message = await srv.get_job(ids[0])
    assert message.meta.status is Status.FAILED
    assert await srv.retry(ids[0])  # offered again, and refused again
    assert (await srv.wait(ids[0], 30)).meta.status is Status.FAILED


async def parked(fleet: Fleet, srv: Server, ids: list[str]) -> None:
    """Until all of them are."""
    engine = (await srv.parts()).engine
    deadline = time.monotonic() + PATIENCE
    while not all(row is not None and row.parked for row in await engine.get(ids)):
        assert time.monotonic() < deadline, "they are not parked"
        await asyncio.sleep(0.02)


@on_whole_engines
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["task", "version"])
@pytest.mark.parametrize(("old_stays", "n"), [(False, 100), (True, 4)], ids=["replaced", "rolling"])
async def test_what_nobody_here_knows_waits_for_somebody_who_does(
    fleet: Fleet, what: str, old_stays: bool, n: int
) -> None:
    srv = fleet.server()
    engine = (await srv.parts()).engine

    async def put(name: str) -> list[str]:
        ids = [f"{name}{i}" for i in range(n)]
        if what == "task":
            return await srv.enqueue_many([job("brand-new", id) for id in ids])
        spec = codec.encode_spec(job("work"), 0)
        assert spec[1] == codec.VERSION
        newer = spec[:1] + bytes([codec.VERSION + 1]) + spec[2:]
        await engine.submit([Record(id, DEFAULT_QUEUE, "work", newer) for id in ids])
        return ids

    first = await put("first")
    old = fleet.worker()
    await parked(fleet, srv, first)
    message = await srv.get_job(first[0])
    assert message.meta.status is Status.QUEUED
    assert ("brand-new" if what == "task" else "version") in message.meta.parked
    known = await srv.enqueue_many([job("work", f"known{i}") for i in range(50)])
    for id in known:  # nothing waits behind them
        await srv.wait(id, PATIENCE)
    if not old_stays:
        old.signal(signal.SIGTERM)
        assert await old.ended() == 0
    began = time.monotonic()
    fleet.worker(**({"tasks": ["brand-new"]} if what == "task" else {"version": codec.VERSION + 1}))
    second = await put(
        "second"
    )  # while both are there, the old one takes some of them, parks them, and they are offered again
    ids = [*first, *known, *second]
    for id in ids:
        assert (await srv.wait(id, 240)).meta.status is Status.SUCCESSFUL
    verdict = judge(fleet.history(), ids)
    print(f"F13 {what}, {'old one stays' if old_stays else 'replaced'}: {verdict}, {time.monotonic() - began:.1f} s")
    verdict.check()
    assert verdict.extra == []
