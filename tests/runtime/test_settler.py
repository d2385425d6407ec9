"""What gathers is written together: in order, never under another incarnation's name, never more than a batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from tasqueue.clock import SYSTEM
from tasqueue.core.record import Kind, Step
from tasqueue.core.status import State
from tasqueue.engines import connect
from tasqueue.events import Bus
from tasqueue.runtime.settler import MAX_BATCH, Settler
from tasqueue.testing.flaky import FlakyEngine

from .helpers import soon


def step(id: str) -> Step:
    return Step(id, 1, Kind.END, State.SUCCESSFUL)


def settler_of() -> tuple[Settler, FlakyEngine, list[str]]:
    engine = FlakyEngine(connect("memory://", namespace="tasqueue", timeout=5.0, ports=SYSTEM))
    stored: list[str] = []

    def keep(steps: Sequence[Step], actives: object) -> None:
        stored.extend(step.id for step in steps)

    return Settler(engine, Bus(), SYSTEM.mono, keep), engine, stored


def written(engine: FlakyEngine) -> list[tuple[str, list[str]]]:
    return [(worker, [step.id for step in steps]) for worker, steps in engine.weather.made("settle")]


async def test_one_batch_for_all_that_gathered_and_one_for_each_incarnation() -> None:
    settler, engine, _ = settler_of()
    for id, worker in (("1", "a"), ("2", "a"), ("3", "b"), ("4", "b"), ("5", "a")):
        settler.put(step(id), None, worker)
    assert settler.backlog == 5
    settler.start()
    await soon(settler.flush())
    assert settler.backlog == 0
    await settler.stop()
    assert written(engine) == [("a", ["1", "2"]), ("b", ["3", "4"]), ("a", ["5"])]


async def test_a_batch_has_its_limit() -> None:
    settler, engine, _ = settler_of()
    for i in range(2 * MAX_BATCH + 1):
        settler.put(step(str(i)), None, "a")
    settler.start()
    await soon(settler.flush())
    await settler.stop()
    assert [len(ids) for _, ids in written(engine)] == [MAX_BATCH, MAX_BATCH, 1]
    assert [id for _, ids in written(engine) for id in ids] == [str(i) for i in range(2 * MAX_BATCH + 1)]


async def test_a_failed_write_is_repeated_as_it_was_and_nothing_overtakes_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "tasqueue")
    settler, engine, stored = settler_of()
    engine.weather.plan("settle", "refuse", "drop")
    settler.start()
    settler.put(step("1"), None, "a")
    await asyncio.sleep(0)
    settler.put(step("2"), None, "a")
    await soon(settler.flush())
    await settler.stop()
    assert [ids for _, ids in written(engine)] == [["1"], ["1"], ["1"], ["2"]]
    assert settler.refused == 2  # nobody holds these jobs; what was refused is told to nobody
    assert stored == []


async def test_a_listener_that_fails_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    engine = FlakyEngine(connect("memory://", namespace="tasqueue", timeout=5.0, ports=SYSTEM))

    def fail(steps: Sequence[Step], actives: object) -> None:
        raise RuntimeError("telling failed")

    settler = Settler(engine, Bus(), SYSTEM.mono, fail)
    settler.start()
    for id in ("1", "2"):
        settler.put(step(id), None, "a")
        await soon(settler.flush())
    await settler.stop()
    assert len(written(engine)) == 2
    assert "telling failed" in caplog.text
