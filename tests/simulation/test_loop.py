"""The loop of the simulation: virtual time, strands that stand still, strands that are gone."""

from __future__ import annotations

import asyncio
import time

import pytest

from tasqueue.testing.clock import START

from .loop import SimLoop, Spinning


def test_nothing_sleeps() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert SimLoop("").run(main()) == pytest.approx(START + 86_400, abs=0.01)
    assert time.monotonic() - began < 5


def test_what_is_halted_goes_on_where_it_stood() -> None:
    loop = SimLoop("")
    strand = loop.strand("process")
    said: list[float] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            said.append(round(loop.time() - START, 3))

    async def main() -> None:
        task = loop.spawn(strand, work())
        await asyncio.sleep(1.5)
        loop.halt(strand)
        await asyncio.sleep(10)
        assert said == [1.0]
        loop.resume(strand)
        await task

    loop.run(main())
    assert said == [1.0, 11.5, 12.5]


def test_what_is_killed_cleans_nothing_up() -> None:
    loop = SimLoop("")
    strand = loop.strand("process")
    said: list[str] = []

    async def work() -> None:
        said.append("begun")
        try:
            await asyncio.sleep(1)
        finally:
            said.append("cleaned up")

    async def main() -> list[str]:
        loop.spawn(strand, work())
        await asyncio.sleep(0.5)
        loop.kill(strand)
        await asyncio.sleep(10)
        return said.copy()

    assert loop.run(main()) == ["begun"]


def test_the_order_between_strands_is_the_seeds() -> None:
    def order(seed: str) -> list[str]:
        loop = SimLoop(seed)
        said: list[str] = []

        async def work(name: str) -> None:
            for i in range(4):
                said.append(f"{name}{i}")
                await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(*(loop.spawn(loop.strand(name), work(name)) for name in "ab"))

        loop.run(main())
        return said

    orders = {seed: order(seed) for seed in "abcdefgh"}
    assert all(order(seed) == said for seed, said in orders.items())
    assert len({tuple(said) for said in orders.values()}) > 1
    for said in orders.values():
        assert [one for one in said if one[0] == "a"] == ["a0", "a1", "a2", "a3"]


def test_what_spins_is_ended() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(Spinning):
        SimLoop("").run(main())


def test_an_error_that_nobody_sees_is_kept() -> None:
    loop = SimLoop("")

    async def main() -> None:
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.1)

    loop.run(main())
    assert loop.errors == ["in a callback: ZeroDivisionError: division by zero"]
