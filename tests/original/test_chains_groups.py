"""Chains and groups: C1 to C13 of docs/original.md; each test fails if we do as the original does."""
# ruff: noqa: N802  (a test bears the number of its fault)

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.runtime.conftest import Make
from tests.runtime.helpers import SOON, engine_of, soon, until, working

from tasqueue import Chain, ChainMessage, EngineUnavailable, Group, InvalidJob, Job, JobCtx, NotFound, Server, Status

from .helpers import all_end, all_succeed, echo, fails, flaky, nothing


async def test_C1_steps_that_save_nothing_do_not_end_the_chain(srv: Server) -> None:
    prev: list[bytes | None] = []

    async def quiet(payload: bytes, ctx: JobCtx) -> None:
        prev.append(ctx.meta.prev_job_result)

    srv.register_task("quiet", quiet)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("quiet")] * 10, id="c"))
        await srv.enqueue(Job("quiet", id="alone", on_success=Job("quiet")))
        assert (await srv.wait_chain("c", SOON)).status is Status.SUCCESSFUL
        await all_succeed(srv, [*(f"c~c{i}" for i in range(10)), "alone"])
        await all_succeed(srv, (await srv.get_job("alone")).meta.on_success_ids)
    assert prev == [None] * 12


async def test_C2_the_result_is_there_when_the_next_step_starts(make: Make) -> None:
    srv = make(default_concurrency=8)

    async def add_one(payload: bytes, ctx: JobCtx) -> None:
        before = ctx.meta.prev_job_result
        ctx.save(b"%d" % (int(before or 0) + 1))

    srv.register_task("t", add_one)
    async with working(srv):
        for i in range(20):
            await srv.enqueue_chain(Chain([Job("t")] * 5, id=f"c{i}"))
        for i in range(20):
            assert (await srv.wait_chain(f"c{i}", SOON)).status is Status.SUCCESSFUL
            assert await srv.get_result(f"c{i}~c4") == b"5"


async def looked_at(srv: Server, length: int) -> list[ChainMessage]:
    """What each step of a chain `c` sees of it, asking more than once."""
    looks: list[ChainMessage] = []

    async def look(payload: bytes, ctx: JobCtx) -> None:
        looks.extend([await srv.get_chain("c") for _ in range(3)])

    srv.register_task("look", look)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("look")] * length, id="c"))
        looks += [await srv.wait_chain("c", SOON), await srv.get_chain("c")]
    return looks


async def test_C3_the_completed_steps_are_listed_once_however_often_one_asks(srv: Server) -> None:
    done = [chain.prev_jobs for chain in await looked_at(srv, 3)]
    ids = ("c~c0", "c~c1", "c~c2")
    assert done == [(), (), (), *[ids[:1]] * 3, *[ids[:2]] * 3, ids, ids]


async def test_C4_the_chain_says_which_step_it_is_at(srv: Server) -> None:
    at = [chain.job_id for chain in await looked_at(srv, 3)]
    assert at == [*["c~c0"] * 3, *["c~c1"] * 3, *["c~c2"] * 3, "c~c2", "c~c2"]


async def test_C5_a_steps_own_follow_ups_run_beside_the_chain(srv: Server) -> None:
    srv.register_task("echo", echo)
    srv.register_task("nothing", nothing)
    step = Job("echo", b"x", on_success=[Job("nothing"), Job("nothing"), Job("nothing")])
    async with working(srv):
        await srv.enqueue_chain(Chain([step, step, Job("echo")], id="c"))
        chain = await srv.wait_chain("c", SOON)
        assert (chain.status, chain.prev_jobs) == (Status.SUCCESSFUL, ("c~c0", "c~c1", "c~c2"))
        for id in ("c~c0", "c~c1"):
            follow = (await srv.get_job(id)).meta.on_success_ids
            assert follow == tuple(f"{id}~s{i}" for i in range(3))
            await all_succeed(srv, follow)


async def test_C6_a_step_and_the_chains_progress_are_written_in_one(make: Make, url: str) -> None:
    """Between finishing a step and hearing of it, everything may happen: here answers are lost."""
    engine = flaky(url)
    srv = make(engine)
    runs: Counter[str] = Counter()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[ctx.meta.id] += 1

    srv.register_task("t", handler)
    engine.weather.plan("settle", "drop", "ok", "refuse", "drop")
    ids = [f"c~c{i}" for i in range(6)]
    await srv.enqueue_chain(Chain([Job("t")] * 6, id="c"))
    async with working(srv):
        chain = await srv.wait_chain("c", SOON)
    assert (chain.status, chain.prev_jobs) == (Status.SUCCESSFUL, tuple(ids))
    assert runs == dict.fromkeys(ids, 1)


async def test_C7_what_is_stored_of_a_step_does_not_grow_with_the_chain(srv: Server) -> None:
    async def stored(length: int) -> list[int]:
        id = f"c{length}"
        await srv.enqueue_chain(Chain([Job("nothing", b"x" * 100)] * length, id=id))
        assert (await srv.wait_chain(id, SOON)).status is Status.SUCCESSFUL
        rows = await (await engine_of(srv)).get([f"{id}~c{i}" for i in range(length)])
        return [len(row.spec) + len(row.tail) for row in rows if row is not None]

    srv.register_task("nothing", nothing)
    async with working(srv):
        short, long = await stored(2), await stored(40)
    assert len(long) == 40
    assert max(long) - min(long) <= 4
    assert abs(max(long) - max(short)) <= 4


async def test_C8_a_chain_leaves_the_callers_jobs_as_they_are(srv: Server) -> None:
    runs: Counter[bytes] = Counter()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        runs[payload] += 1

    srv.register_task("t", handler)
    jobs = [Job("t", b"a"), Job("t", b"b"), Job("t", b"c")]
    before = list(jobs)
    chains = [Chain(jobs, id="one"), Chain(jobs, id="two"), Group(jobs, id="three")]
    jobs.append(Job("t", b"too late"))
    assert jobs[:3] == before
    assert [len(chain.jobs) for chain in chains] == [3, 3, 3]
    async with working(srv):
        for chain in chains[:2]:
            assert isinstance(chain, Chain)
            await srv.enqueue_chain(chain)
        assert (await srv.wait_chain("one", SOON)).prev_jobs == ("one~c0", "one~c1", "one~c2")
        assert (await srv.wait_chain("two", SOON)).prev_jobs == ("two~c0", "two~c1", "two~c2")
    assert jobs[:3] == before
    assert runs == {b"a": 2, b"b": 2, b"c": 2}


async def test_C9_a_group_goes_on_after_its_first_failure(srv: Server) -> None:
    go = asyncio.Event()

    async def waits(payload: bytes, ctx: JobCtx) -> None:
        await go.wait()

    srv.register_task("fails", fails)
    srv.register_task("waits", waits)
    async with working(srv):
        await srv.enqueue_group(Group([Job("fails"), Job("waits"), Job("waits")], id="g"))
        await all_end(srv, ["g~g0"])
        group = await srv.get_group("g")
        assert group.status is Status.PROCESSING
        assert list(group.job_status.values()) == [Status.FAILED, Status.QUEUED, Status.QUEUED]
        go.set()
        group = await srv.wait_group("g", SOON)
    assert group.status is Status.FAILED
    assert list(group.job_status.values()) == [Status.FAILED, Status.SUCCESSFUL, Status.SUCCESSFUL]


async def test_C10_reading_writes_nothing_and_prolongs_nothing(make: Make, url: str) -> None:
    engine = flaky(url)
    srv, worker = make(engine), make(result_ttl=0.3)
    worker.register_task("nothing", nothing)
    await worker.enqueue_chain(Chain([Job("nothing")] * 2, id="c"))
    await worker.enqueue_group(Group([Job("nothing")] * 2, id="g"))
    for _ in range(3):
        await srv.get_chain("c")
        await srv.get_group("g")
    assert {verb for verb, _ in engine.weather.calls} == {"open", "get_link"}
    assert len(engine.weather.made("get_link")) == 6

    async def gone() -> bool:
        found = await asyncio.gather(srv.get_chain("c"), srv.get_group("g"), return_exceptions=True)
        return all(isinstance(one, NotFound) for one in found)

    async with working(worker):
        await worker.wait_chain("c", SOON)
        await worker.wait_group("g", SOON)
        await until(gone)  # though it is being read all the time


async def test_C11_a_chain_or_group_is_stored_with_its_jobs_or_not_at_all(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine)
    srv.register_task("nothing", nothing)
    chain = Chain([Job("nothing")] * 2, id="c")
    group = Group([Job("nothing")] * 2, id="g", on_success=Job("nothing"))
    ids = ["c~c0", "c~c1", "g~g0", "g~g1"]
    for how, stored in (("refuse", False), ("drop", True)):
        for enqueue in (lambda: srv.enqueue_chain(chain), lambda: srv.enqueue_group(group)):
            engine.weather.plan("submit", how)  # type: ignore[arg-type]
            with pytest.raises(EngineUnavailable):
                await enqueue()
        rows = await engine.get(ids)
        links = [await engine.get_link("c:c"), await engine.get_link("g:g")]
        assert [row is not None for row in (*rows, *links)] == [stored] * 6
    async with working(srv):
        await srv.enqueue_chain(chain)  # once more, since nobody knows
        await srv.enqueue_group(group)
        assert (await srv.wait_chain("c", SOON)).status is Status.SUCCESSFUL
        assert (await srv.wait_group("g", SOON)).status is Status.SUCCESSFUL
        await all_succeed(srv, [*ids, "g~s0"])


async def test_C12_an_empty_group_is_refused_and_no_outcome_drops_a_member(srv: Server) -> None:
    with pytest.raises(InvalidJob, match="a group of 0"):
        Group([])
    with pytest.raises(InvalidJob, match="a chain of 1"):
        Chain([Job("nothing")])
    srv.register_task("nothing", nothing)
    await srv.enqueue_group(Group([Job("nothing"), Job("nothing")], id="g"))
    assert await srv.cancel("g~g0")  # a status that the original does not know
    async with working(srv):
        group = await srv.wait_group("g", SOON)
    assert group.status is Status.FAILED
    assert group.job_status == {"g~g0": Status.CANCELLED, "g~g1": Status.SUCCESSFUL}


async def test_C13_a_job_that_is_gone_takes_no_chain_or_group_with_it(make: Make) -> None:
    srv = make()
    srv.register_task("at_once", nothing, result_ttl=0)
    srv.register_task("nothing", nothing)
    async with working(srv):
        await srv.enqueue_chain(Chain([Job("at_once"), Job("nothing"), Job("nothing")], id="c"))
        await srv.enqueue_group(Group([Job("at_once"), Job("nothing"), Job("nothing")], id="g"))
        await soon(asyncio.gather(srv.wait_chain("c"), srv.wait_group("g")))
    for id in ("c~c1", "g~g1"):
        assert await srv.delete_job(id)
    for id in ("c~c0", "c~c1", "g~g0", "g~g1"):
        with pytest.raises(NotFound):
            await srv.get_job(id)
    chain, group = await srv.get_chain("c"), await srv.get_group("g")
    assert (chain.status, chain.prev_jobs) == (Status.SUCCESSFUL, ("c~c0", "c~c1", "c~c2"))
    assert group.status is Status.SUCCESSFUL
    assert list(group.job_status.values()) == [Status.SUCCESSFUL] * 3
