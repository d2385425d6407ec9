"""Concurrency: many loops and threads on one store, and nothing is lost, doubled or half done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tasqueue.core.record import Lease, Schedule, Tick
from tasqueue.core.status import State, Status
from tasqueue.interfaces import Engine, WorkerGone

from .harness import LONG, Harness, Worker, chain, end, group, needs, record, release, retry

pytestmark = [pytest.mark.asyncio, needs("thread_beat")]

THREADS = 4


async def in_threads(h: Harness, job: Callable[[Engine, int], Awaitable[None]], n: int = THREADS) -> None:
    """Run `job(engine, k)` in n threads, each with a loop and an engine of its own."""
    twins = [h.engine.twin() for _ in range(n)]

    async def one(k: int) -> None:
        await twins[k].open()
        try:
            await job(twins[k], k)
        finally:
            await twins[k].close()

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, one(k)) for k in range(n)))


async def drain(
    engine: Engine, name: str, settle: Callable[[Worker, list[Lease]], Awaitable[None]], queue: str = "q"
) -> None:
    """Claim and settle until the queue gives nothing more."""
    await engine.register(name, LONG, b"", {}, 1)
    worker = Worker(name, engine)
    while leases := await worker.claim(7, queue):
        await settle(worker, leases)


async def test_each_job_is_run_once(h: Harness) -> None:
    names = [f"{i}" for i in range(400)]
    await h.put(*names)
    runs: Counter[str] = Counter()

    async def settle(worker: Worker, leases: list[Lease]) -> None:
        runs.update(lease.id for lease in leases)
        assert all(await worker.settle(*map(end, leases)))

    await in_threads(h, lambda engine, k: drain(engine, f"w{k}", settle))
    assert runs == Counter(names)
    assert (await h.engine.counts()).ended[State.SUCCESSFUL] == 400


async def test_one_id_from_many_producers_is_one_job(h: Harness) -> None:
    async def produce(engine: Engine, k: int) -> None:
        for i in range(50):
            await engine.submit([record(f"{i}", spec=f"{k}".encode())])

    await in_threads(h, produce)
    assert sorted(await h.ready(), key=int) == [f"{i}" for i in range(50)]


async def test_producers_and_workers_at_once(h: Harness) -> None:
    done: Counter[str] = Counter()
    total = 2 * 150

    async def both(engine: Engine, k: int) -> None:
        if k % 2 == 0:
            for i in range(0, 150, 10):
                await engine.submit([record(f"{k}-{j}") for j in range(i, i + 10)])
            return
        await engine.register(f"w{k}", LONG, b"", {}, 1)
        worker = Worker(f"w{k}", engine)
        while done.total() < total:
            leases = await worker.claim(20)
            if not leases:
                await engine.wait(["q"], await engine.now() + 50)
            assert all(await worker.settle(*map(end, leases)))
            done.update(lease.id for lease in leases)

    await asyncio.wait_for(in_threads(h, both), 30)
    assert set(done.values()) == {1}
    assert len(done) == total


async def test_a_group_ends_once_whoever_ends_its_members(h: Harness) -> None:
    for name in "abc":
        members, link = group(name, 40)
        await h.put(*members, links=[link])

    async def settle(worker: Worker, leases: list[Lease]) -> None:
        assert all(await worker.settle(*(end(lease, result=lease.id.encode()) for lease in leases)))

    await in_threads(h, lambda engine, k: drain(engine, f"w{k}", settle))
    for name in "abc":
        link = await h.link(f"g:{name}")
        assert (link.status, len(link.members), link.generation) == (Status.SUCCESSFUL, 40, 0)
        assert await h.engine.results(f"g:{name}", 0, 100) == [f"{name}~g{i}".encode() for i in range(40)]
    assert sorted(await h.ready("callbacks")) == ["a~s0", "b~s0", "c~s0"]


async def test_chains_go_on_in_order_whoever_runs_their_steps(h: Harness) -> None:
    for i in range(10):
        steps, link = chain(f"x{i}", 5)
        await h.put(*steps, links=[link])
    order: list[str] = []

    async def settle(worker: Worker, leases: list[Lease]) -> None:
        order.extend(lease.id for lease in leases)
        for lease in leases:
            assert lease.prev == (f"{lease.pos - 1}".encode() if lease.pos else None)
        assert all(await worker.settle(*(end(lease, result=f"{lease.pos}".encode()) for lease in leases)))

    async def work(engine: Engine, k: int) -> None:
        while len(order) < 50:
            await drain(engine, f"w{k}", settle)

    await asyncio.wait_for(in_threads(h, work), 30)
    for i in range(10):
        assert [id for id in order if id.startswith(f"x{i}~")] == [f"x{i}~c{j}" for j in range(5)]
        assert (await h.link(f"c:x{i}")).status is Status.SUCCESSFUL


async def test_of_many_who_fire_a_tick_one_does(h: Harness) -> None:
    await h.engine.put_schedule(Schedule("s", "@every 1s", "t", "q", 0, b"job", anchor=0, next_at=0))
    fired: list[bool] = []

    async def fire(engine: Engine, k: int) -> None:
        for at in range(20):
            fired.extend(await engine.fire([Tick("s", at, at, at + 1, record(f"s@{at}"))]))

    await in_threads(h, fire)
    found = await h.ready()
    assert len(found) == len(set(found)) == sum(fired)
    assert (await h.engine.schedules())[0].next_at == len(found)


async def test_promoters_do_not_double_what_is_due(h: Harness) -> None:
    due = await h.clock.now() + 50
    names = [f"{i}" for i in range(300)]
    await h.put(*(record(name, due=due) for name in names))
    await h.clock.advance(100)

    async def promote(engine: Engine, k: int) -> None:
        await engine.promote()

    await in_threads(h, promote)
    assert sorted(await h.ready()) == sorted(names)


async def test_whoever_was_reclaimed_meanwhile_is_refused(h: Harness) -> None:
    """Workers that are declared dead at random while they work: each job ends once, by a token that held."""
    names = [f"{i}" for i in range(200)]
    await h.put(*names)
    ended: Counter[str] = Counter()

    async def work(engine: Engine, k: int) -> None:
        if k == 0:
            for i in range(40):
                for row in await engine.workers():
                    if row.held and hash((row.id, i)) % 2:
                        await engine.reclaim(row.id, "killed")
            return
        for life in range(1_000):
            try:
                await engine.register(f"w{k}.{life}", LONG, b"", {}, 1)
                worker = Worker(f"w{k}.{life}", engine)
                while leases := await worker.claim(5):
                    accepted = await worker.settle(*map(end, leases))
                    ended.update(lease.id for lease, ok in zip(leases, accepted, strict=True) if ok)
                return
            except WorkerGone:
                continue

    await in_threads(h, work)
    for row in await h.engine.workers():
        await h.engine.retire(row.id)
    left = await h.ready()
    assert set(ended.values()) <= {1}
    assert sorted([*ended, *left]) == sorted(names)


@needs("atomic_finish")
async def test_nobody_ever_sees_half_a_finish(h: Harness) -> None:
    n = 100
    steps, link = chain("x", n)
    await h.put(*steps, links=[link])
    torn: list[str] = []

    async def both(engine: Engine, k: int) -> None:
        if k == 0:
            await engine.register("w", LONG, b"", {}, 1)
            worker = Worker("w", engine)
            for i in range(n):
                await worker.settle(end(await worker.take(f"x~c{i}"), follow=(record(f"x~c{i}~s0", "other"),)))
            return
        for i in range(n - 1):
            while True:
                ended, follow, following = await engine.get([f"x~c{i}", f"x~c{i}~s0", f"x~c{i + 1}"])
                assert ended is not None
                assert following is not None
                if ended.state is State.SUCCESSFUL:
                    if follow is None or following.state is State.HELD:
                        torn.append(ended.id)
                    break

    await asyncio.wait_for(in_threads(h, both, 2), 30)
    assert torn == []


async def test_a_mixed_crowd_leaves_the_counts_right(h: Harness) -> None:
    await h.put(*(f"{i}" for i in range(300)))
    kinds = [end, release, retry]

    async def work(engine: Engine, k: int) -> None:
        await engine.register(f"w{k}", LONG, b"", {}, 1)
        worker = Worker(f"w{k}", engine)
        for i in range(30):
            leases = await worker.claim(5)
            assert all(await worker.settle(*(kinds[(i + j) % 3](lease) for j, lease in enumerate(leases))))

    await in_threads(h, work)
    counts = await h.engine.counts()
    ready = counts.queues.get("q", {}).get(State.READY, 0)
    assert ready + counts.ended[State.SUCCESSFUL] == 300
    assert len(await h.ready()) == ready
    assert [row.held for row in await h.engine.workers()] == [0] * THREADS


async def test_many_calls_at_once_on_one_engine(h: Harness) -> None:
    worker = await h.worker()
    await asyncio.gather(*(h.put(f"{i}") for i in range(50)))
    leases = await worker.claim(50)
    assert len(leases) == 50
    answers = await asyncio.gather(*(worker.settle(end(lease)) for lease in leases))
    assert answers == [[True]] * 50
