"""Plays one seed with the real worker, and tells what was wrong with it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasqueue.runtime import worker as runtime
from tasqueue.runtime.crew import Crew

from .loop import CURRENT, Spinning
from .plan import Plan, make_plan
from .process import StrandKeeper
from .verdict import breaches
from .world import Stuck, World


@dataclass
class Played:
    """How one seed went."""

    seed: int
    wrong: list[str]
    jobs: int
    runs: int
    stale: int
    taken_back: int
    seconds: float
    """Virtual ones."""
    steps: int


def play(seed: int, trace: Callable[[str], None] | None = None, plan: Plan | None = None) -> Played:
    """The whole of it. With the same hashes of `str` the same seed is the same run, to the last line of its trace.

    `plan`: instead of the seed's own.
    """
    world = World(plan or make_plan(seed), trace)
    stuck: list[str] = []
    with _simulated(world):
        try:
            world.play()
        except Stuck as error:
            stuck.append(f"{error} come to no end")
        except Spinning as error:
            stuck.append(str(error))
        wrong = [*breaches(world), *stuck]
    ledger = world.ledger
    died = sum(end.died for end in ledger.ends.values())
    played = Played(
        seed, wrong, len(ledger.jobs), len(ledger.runs), ledger.stale, died, world.loop.clock - 1e9, world.loop.steps
    )
    world.forget()
    return played


class _Alarm(logging.Handler):
    """An exception that was only logged, since nothing else could be done with it, is a breach."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.say("log", record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self._world.ledger.breach(f"{record.getMessage()}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _simulated(world: World) -> Iterator[None]:
    """Strands for threads, names without the machine's, and an ear for exceptions that are logged."""
    log = logging.getLogger("tasqueue")
    alarm = _Alarm(world)
    before = log.level, log.propagate, runtime.Keeper, Crew.new_name

    def new_name(crew: Crew, suffix: str = "") -> str:
        return f"{CURRENT.get().main.name}:{crew.ports.bits(4).hex()}{suffix}"

    runtime.Keeper, Crew.new_name = StrandKeeper, new_name
    log.addHandler(alarm)
    log.setLevel(logging.DEBUG if world.traced else logging.ERROR)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(alarm)
        log.level, log.propagate, runtime.Keeper, Crew.new_name = before
