"""What the simulation has found, each with a plan made for it: not good before it was mended, and good since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasqueue import Job
from tasqueue.interfaces import Engine
from tasqueue.runtime.consumer import Consumer
from tasqueue.runtime.keeper import Keeper

from .mutants import planted
from .network import QUIET, Rates
from .plan import Fault, Op, Plan
from .play import play

SEEDS = range(20)


def plan(seed: int, ops: list[Op], **changes: Any) -> Plan:
    """One worker with two slots a queue, on a network that loses the replies of every other call."""
    lossy = Rates(lose_reply=0.5)
    told = {"workers": 1, "concurrency": 2, "rates": lossy, "rest": lossy, "heal": 6.0, "skews": [0.0]}
    told |= {"lease": 1.5, "timeout": 0.8, "grace": 2.0, "max_deaths": 1000, "old_workers": 0, **changes}
    return Plan(seed, ops=ops, **told)


def job(n: int, payload: bytes = b"{}", task: str = "work") -> Job[Any]:
    return Job(task, payload, id=f"j{n}", queue="q", max_retries=1)


def breaches(ops: list[Op], **changes: Any) -> list[str]:
    return [f"{seed}: {text}" for seed in SEEDS for text in play(seed, plan=plan(seed, ops, **changes)).wrong]


def test_a_job_that_came_between_a_claim_and_its_repeat_is_not_left_lying() -> None:
    """The repeat answers as the first did, which says nothing of what has become ready since; the consumer slept."""
    ops = [Op(0.9 + 0.13 * n, "enqueue", job(n)) for n in range(20)]
    assert breaches(ops) == []
    with planted("sleep after a repeated claim"):
        assert any("lost or stuck: READY" in text for text in breaches(ops))


def test_a_give_back_without_an_answer_does_not_cost_the_lease() -> None:
    """It was made before the beat: two that failed in a row, each after its timeout, and no beat was sent in time."""
    ops = [Op(0.9, "enqueue", job(n, b'{"block": 4.0}' if n % 8 == 0 else b"{}")) for n in range(40)]
    quick = {"rest": QUIET, "workers": 2, "skews": [0.0, 0.0]}
    assert breaches(ops, **quick) == []
    with give_back_first():
        assert any("lost its lease, and nothing was wrong with it" in text for text in breaches(ops, **quick))


def test_an_incarnation_does_not_end_before_a_retry_that_waits_for_its_handler() -> None:
    """The last allowed run, made alone, ignored its timeout: its incarnation ended, and gave the job back, before the
    retry could be written. It ran anew beside itself, spent nothing, and so for ever."""
    ops = [Op(0.9, "enqueue", job(0, b'{"s": 5.0, "stubborn": 2.0, "most": 1}', "limited"))]
    calm = {"rates": QUIET, "rest": QUIET, "grace": 0.5, "max_deaths": 2, "faults": [Fault(1.3, "kill", 0, 0.2)]}
    assert breaches(ops, **calm) == []

    async def until_nothing_runs(self: Consumer) -> None:
        await self._until(lambda: not self.crew.busy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Consumer, "_until_idle", until_nothing_runs)
        found = breaches(ops, **calm)
    assert any("gives back j0, and its handler still runs" in text for text in found)
    assert any("the jobs come to no end" in text for text in found)


@contextmanager
def give_back_first() -> Iterator[None]:
    beat = Keeper._beat

    async def give_back_and_beat(self: Keeper, engine: Engine) -> None:
        await self._give_back(engine)
        await beat(self, engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "_beat", give_back_and_beat)
        yield
