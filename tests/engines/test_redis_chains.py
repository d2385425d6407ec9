"""What the Redis engine does together for many steps and members must be what it does one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests import services
from tests.engines.redis_world import opened, run_all, worker_on

from tasqueue.core.record import Link
from tasqueue.core.status import State, Status
from tasqueue.interfaces import Filter
from tasqueue.testing.conformance.harness import chain, end, fail, group, ids, record


@pytest.fixture(scope="module", params=services.kinds())
def server(request: pytest.FixtureRequest) -> Iterator[services.Server]:
    with services.server(request.param) as one:
        yield one


async def test_steps_whose_ids_do_not_tell_their_chain_go_on_beside_others(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        names = ["zero", "one~c1", "other~c2"]
        steps = [record(name, held=i > 0, link="c:own", pos=i) for i, name in enumerate(names)]
        others, other = chain("other", 2)
        await engine.submit([*steps, *others], [Link("c:own", 3), other])
        first = await worker.claim()
        assert ids(first) == ["zero", "other~c0"]
        assert await worker.settle(*(end(lease, result=lease.id.encode()) for lease in first)) == [True, True]
        second = await worker.claim()
        assert {lease.id: (lease.link, lease.pos, lease.prev) for lease in second} == {
            "one~c1": ("c:own", 1, b"zero"),
            "other~c1": ("c:other", 1, b"other~c0"),
        }
        await worker.settle(*map(end, second))
        (third,) = await worker.claim()
        assert (third.id, third.link, third.prev) == ("other~c2", "c:own", None)
        await worker.settle(fail(third))
        ended = [await engine.get_link("c:own"), await engine.get_link("c:other")]
        assert [(link.status, link.pos) for link in ended if link] == [(Status.FAILED, 2), (Status.SUCCESSFUL, 2)]


async def test_a_chain_keeps_its_place_when_a_group_of_its_name_is_forgotten(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        steps, chained = chain("x", 3)
        members, grouped = group("x", 1, result_ttl=0)
        await engine.submit([*steps, *members], [chained, grouped])
        await worker.settle(*map(end, await worker.claim()))
        assert await engine.get_link("g:x") is None
        link = await engine.get_link("c:x")
        assert link is not None
        assert (link.status, link.pos) == (Status.PROCESSING, 1)


async def test_groups_that_end_in_one_batch_call_back_in_the_order_of_its_steps(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        for name in "abc":
            members, link = group(name, 1)
            await engine.submit(members, [link])
        a, b, c = await worker.claim()
        assert all(await worker.settle(fail(c), end(b, ttl=1_000), end(a)))
        assert ids(await engine.pending("callbacks", 10, None)) == ["c~e0", "b~s0", "a~s0"]


async def test_a_long_list_of_steps_goes_on_in_order(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        n = 1_500  # more than one inner command takes
        for i in range(n):
            steps, link = chain(f"{i:04}", 2)
            await engine.submit(steps, [link])
        assert (await engine.counts()).queues == {"q": {State.READY: n, State.HELD: n}}
        first = await run_all(worker, batch=n)
        assert first == [f"{i:04}~c{k}" for k in (0, 1) for i in range(n)]
        assert (await engine.counts()).queues == {}


async def test_what_is_held_back_is_counted_and_listed_by_queue(server: services.Server) -> None:
    async with opened(server.url) as engine:
        worker = await worker_on(engine)
        steps = [record(f"x~c{i}", "q" if i % 2 else "p", held=i > 0, link="c:x", pos=i) for i in range(4)]
        await engine.submit(steps, [Link("c:x", 4)])
        assert (await engine.counts()).queues == {"p": {State.READY: 1, State.HELD: 1}, "q": {State.HELD: 2}}
        assert ids(await engine.jobs(Filter([State.HELD], "q"), 10, None)) == ["x~c3", "x~c1"]
        assert ids(await engine.jobs(Filter([State.HELD]), 2, None)) == ["x~c3", "x~c2"]
        assert ids(await engine.jobs(Filter([State.HELD]), 2, "x~c2")) == ["x~c1"]
        await worker.settle(*map(end, await worker.claim(1, "p")))
        assert ids(await engine.jobs(Filter([State.HELD]), 10, None)) == ["x~c3", "x~c2"]
