"""Outage: no answer within the timeout is a typed error, never a hang; cured, the engine works again by itself."""

from __future__ import annotations

import asyncio

import pytest

from tasqueue.errors import EngineUnavailable

from .harness import Harness, end, ids, record

pytestmark = pytest.mark.asyncio

TIMEOUT = 0.4


async def test_a_submit_without_an_answer_is_a_typed_error_in_time(h: Harness) -> None:
    engine = await h.another(TIMEOUT)
    with h.outage:
        start = asyncio.get_running_loop().time()
        with pytest.raises(EngineUnavailable):
            await engine.submit([record("a")])
        assert asyncio.get_running_loop().time() - start < TIMEOUT + 0.5
    await engine.submit([record("a")])
    assert await h.ready() == ["a"]


async def test_every_verb_that_writes_fails_in_time(h: Harness) -> None:
    engine = await h.another(TIMEOUT)
    await h.put("a", "b")
    worker = await h.worker("w", engine)
    (a,) = await worker.claim(1)
    with h.outage:
        start = asyncio.get_running_loop().time()
        answers = await asyncio.gather(
            worker.settle(end(a)),
            worker.claim(1),
            worker.beat(),
            engine.cancel(["b"], None),
            engine.promote(),
            engine.prune(),
            engine.pause("q", "", ""),
            engine.reclaim("w", "killed"),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [EngineUnavailable] * len(answers)
        assert asyncio.get_running_loop().time() - start < TIMEOUT + 0.5


async def test_afterwards_everything_is_as_it_was(h: Harness) -> None:
    engine = await h.another(TIMEOUT)
    await h.put("a", "b", "c")
    worker = await h.worker("w", engine)
    (a,) = await worker.claim(1)
    with h.outage:
        for call in (worker.settle(end(a)), worker.claim(1), engine.reclaim("w", "killed")):
            with pytest.raises(EngineUnavailable):
                await call
    assert ids(await worker.claim_again(1, 1)) == ["a"]
    assert ids(await worker.claim(1)) == ["b"]
    assert await worker.settle(end(a)) == [True]
    assert (await h.row("a")).deaths == 0


async def test_a_short_outage_is_waited_out(h: Harness) -> None:
    engine = await h.another(5.0)
    outage = h.outage
    outage.__enter__()
    task = asyncio.create_task(engine.submit([record("a")]))
    try:
        done, _ = await asyncio.wait([task], timeout=0.1)
        assert not done
    finally:
        outage.__exit__(None, None, None)
    await asyncio.wait_for(task, 10)
    assert await h.ready() == ["a"]


async def test_a_call_that_is_cancelled_leaves_nothing_to_stumble_over(h: Harness) -> None:
    engine = await h.another(5.0)
    with h.outage:
        task = asyncio.create_task(engine.submit([record("a")]))
        await asyncio.wait([task], timeout=0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await engine.submit([record("b")])
    assert "b" in await h.ready()
