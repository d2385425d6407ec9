"""An engine that fails now and then: nothing is lost, and nothing runs twice while the worker lives (G1, G14)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import pytest

from tasqueue import DEFAULT_QUEUE, EngineUnavailable, Job, JobCtx, Server, Status
from tasqueue.clock import SYSTEM
from tasqueue.core.record import Step
from tasqueue.engines import connect
from tasqueue.interfaces import Claim
from tasqueue.runtime.settler import BACKLOG
from tasqueue.testing.flaky import FlakyEngine

from .conftest import Make
from .helpers import until, worker_of, working


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What is logged here is the test's own doing."""
    caplog.set_level(logging.CRITICAL, "tasqueue")


def flaky(url: str, **options: object) -> FlakyEngine:
    return FlakyEngine(connect(url, namespace="tasqueue", timeout=5.0, ports=SYSTEM), **options)  # type: ignore[arg-type]


class Count:
    """A task `t` that counts the runs of each job."""

    def __init__(self, srv: Server) -> None:
        self.runs: dict[str, int] = {}

        async def handler(payload: bytes, ctx: JobCtx) -> None:
            self.runs[ctx.meta.id] = self.runs.get(ctx.meta.id, 0) + 1
            ctx.save(payload)
            await asyncio.sleep(0)

        srv.register_task("t", handler)


@pytest.mark.parametrize("how", ["refuse", "drop"])
@pytest.mark.parametrize("verb", ["claim", "settle", "beat", "promote", "wait", "reclaim", "prune", "retire"])
async def test_one_failure_of_each_verb(make: Make, url: str, verb: str, how: str) -> None:
    engine = flaky(url)
    srv = make(engine, lease=0.6)
    count = Count(srv)
    engine.weather.plan(verb, how)  # type: ignore[arg-type]
    async with working(srv):
        ids = await srv.enqueue_many([Job("t", b"x") for _ in range(20)])
        for id in ids:
            await until(lambda id=id: ended(srv, id))
        if verb not in ("retire", "prune", "wait"):
            await until(lambda: len(engine.weather.made(verb)) > 1)
        ids.append(await srv.enqueue(Job("t")))
        await until(lambda: ended(srv, ids[-1]))
    assert count.runs == dict.fromkeys(ids, 1)
    assert {(await srv.get_job(id)).meta.deaths for id in ids} == {0}


async def ended(srv: Server, id: str) -> bool:
    try:
        return (await srv.get_job(id)).meta.status.final
    except EngineUnavailable:
        return False


async def test_a_claim_is_repeated_under_its_number(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine)
    count = Count(srv)
    ids = await srv.enqueue_many([Job("t") for _ in range(3)])
    engine.weather.plan("claim", "drop", "refuse", "drop")
    async with working(srv):
        claims = await until(lambda: engine.weather.made("claim")[:4] if engine.weather.made("claim")[3:] else [])
        assert len({(worker, number) for worker, number, _ in claims}) == 1
        for id in ids:
            await srv.wait(id, 10)
    assert count.runs == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_all_of_it_at_random(make: Make, url: str, seed: int) -> None:
    engine = flaky(
        url, seed=seed, refuse=0.08, drop=0.08, delay=0.002, verbs=("claim", "settle", "beat", "promote", "wait")
    )
    srv = make(engine, default_concurrency=8)
    count = Count(srv)
    async with working(srv):
        ids = await srv.enqueue_many([Job("t", b"%d" % i) for i in range(300)])
        for id in ids:
            assert (await srv.wait(id, 30)).meta.status is Status.SUCCESSFUL
    assert count.runs == dict.fromkeys(ids, 1)
    assert [await srv.get_result(id) for id in ids] == [b"%d" % i for i in range(300)]


async def test_submit_says_which_ids_and_may_be_repeated(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine)
    count = Count(srv)
    async with working(srv):
        for how in ("refuse", "drop"):
            engine.weather.plan("submit", how)  # type: ignore[arg-type]
            with pytest.raises(EngineUnavailable) as caught:
                await srv.enqueue(Job("t", id=how))
            assert caught.value.ids == (how,)
            await srv.enqueue(Job("t", id=how))
            assert (await srv.wait(how, 10)).meta.status is Status.SUCCESSFUL
    assert count.runs == {"refuse": 1, "drop": 1}


async def test_an_outage_while_jobs_run(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine, lease=30)
    entered, go = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await go.wait()
        ctx.save(b"done")

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await entered.wait()
        engine.weather.down = True
        go.set()
        tried = len(engine.weather.made("settle"))
        await until(lambda: len(engine.weather.made("settle")) > tried + 2)
        engine.weather.down = False
        assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL


async def test_an_outage_longer_than_the_lease(make: Make, url: str) -> None:
    """Somebody else has the job by then: this worker's finish is refused, and nothing is lost."""
    engine = flaky(url)
    srv, other = make(engine, lease=0.3), make(lease=0.3)
    count, theirs = Count(srv), Count(other)
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await go.wait()

    async def quick(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"theirs")

    srv.register_task("slow", slow)
    other.register_task("slow", quick)
    async with working(srv):
        id = await srv.enqueue(Job("slow"))
        await entered.wait()
        engine.weather.down = True
        async with working(other):
            assert (await other.wait(id, 15)).meta.status is Status.SUCCESSFUL
            go.set()
            engine.weather.down = False
            ids = await srv.enqueue_many([Job("t") for _ in range(20)])
            for id_ in ids:
                assert (await srv.wait(id_, 10)).meta.status is Status.SUCCESSFUL
    assert await srv.get_result(id) == b"theirs"
    assert set(count.runs) | set(theirs.runs) == set(ids)


async def test_nothing_is_claimed_while_too_much_waits_to_be_written(
    make: Make, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = flaky(url)
    srv = make(engine)
    count = Count(srv)
    writable = asyncio.Event()
    backlogs: list[int] = []
    claim, settle = engine.claim, engine.settle

    async def claiming(worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        backlogs.append(at_work.settler.backlog)
        return await claim(worker, number, wants)

    async def settling(worker: str, steps: Sequence[Step]) -> list[bool]:
        await writable.wait()
        return await settle(worker, steps)

    monkeypatch.setattr(engine, "claim", claiming)
    monkeypatch.setattr(engine, "settle", settling)
    ids = await srv.enqueue_many([Job("t") for _ in range(2 * BACKLOG)])
    async with worker_of(srv) as at_work:
        await until(lambda: at_work.settler.backlog > BACKLOG and not at_work.crew.lanes[DEFAULT_QUEUE].ready)
        writable.set()
        await until(lambda: len(count.runs) == len(ids) and not at_work.settler.backlog)
    assert max(backlogs) <= BACKLOG
    assert count.runs == dict.fromkeys(ids, 1)


async def test_stopping_during_an_outage_ends_in_time(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine, grace=0.1, timeout=0.3)
    entered = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await asyncio.sleep(60)

    srv.register_task("t", handler)
    async with asyncio.timeout(8):
        async with working(srv):
            id = await srv.enqueue(Job("t"))
            await entered.wait()
            engine.weather.down = True
    engine.weather.down = False
    assert (await srv.get_job(id)).meta.status is Status.PROCESSING  # until its lease ends


async def test_what_the_keeper_gives_back_is_not_lost_with_a_failure(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine, default_concurrency=1, lease=30)
    ran: list[bytes] = []
    release, entered = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        ran.append(payload)
        if payload == b"slow":
            entered.set()
            await release.wait()

    srv.register_task("t", handler)
    async with working(srv):
        await srv.wait(await srv.enqueue(Job("t")), 10)
        ids = await srv.enqueue_many([Job("t", b"slow"), *(Job("t") for _ in range(10))])
        await entered.wait()
        settles = len(engine.weather.made("settle"))
        engine.weather.plan("settle", "refuse", "drop")
        await until(lambda: released(engine.weather.made("settle")[settles:]))
        release.set()
        for id in ids:
            assert (await srv.wait(id, 10)).meta.status is Status.SUCCESSFUL
    assert len(ran) == 12


def released(settles: Sequence[tuple[object, ...]]) -> bool:
    return len(settles) >= 3


class SlowAnswer(FlakyEngine):
    """The answer to a claim that took something is held back while `gate` is closed."""

    def __init__(self, url: str) -> None:
        super().__init__(connect(url, namespace="tasqueue", timeout=5.0, ports=SYSTEM))
        self.gate = asyncio.Event()
        self.gate.set()
        self.held = asyncio.Event()

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        claim = await super().claim(worker, number, wants)
        if claim.leases and not self.gate.is_set():
            self.held.set()
            await self.gate.wait()
        return claim


async def test_what_a_claim_brings_after_stop_goes_back_at_once(make: Make, url: str) -> None:
    """Not at the end of the drain, which may take the whole grace."""
    engine = SlowAnswer(url)
    srv = make(engine, grace=20, default_concurrency=2)
    entered, go = asyncio.Event(), asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        entered.set()
        await go.wait()

    srv.register_task("t", handler)
    async with working(srv):
        await srv.enqueue(Job("t"))
        await entered.wait()
        engine.gate.clear()
        late = await srv.enqueue(Job("t", id="late"))
        await engine.held.wait()
        stopping = asyncio.ensure_future(srv.stop())
        await asyncio.sleep(0)
        engine.gate.set()
        await until(lambda: waits(srv, late))
        assert not stopping.done()
        go.set()
        await stopping


async def waits(srv: Server, id: str) -> bool:
    return id in [message.meta.id for message in await srv.get_pending()]


async def test_progress_survives_a_failed_beat(make: Make, url: str) -> None:
    engine = flaky(url)
    srv = make(engine, lease=0.3)
    go = asyncio.Event()

    async def handler(payload: bytes, ctx: JobCtx) -> None:
        engine.weather.plan("beat", "refuse", "refuse")
        await ctx.progress(1, 2, "half")
        await go.wait()

    srv.register_task("t", handler)
    async with working(srv):
        id = await srv.enqueue(Job("t"))
        await until(lambda: progress_of(srv, id))
        go.set()


async def progress_of(srv: Server, id: str) -> bool:
    return (await srv.get_job(id)).meta.progress == (1, 2, "half")
