"""A seed becomes a plan: which processes there are, what is enqueued and when, and what goes wrong and when. Pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tasqueue import Chain, Group, Job
from tasqueue.testing.clock import START

from .network import QUIET, Rates

QUEUES = ("q", "p")
TASKS = {"work": "q", "other": "p", "limited": "q", "new": "p"}
"""Task -> queue. `limited` has a timeout, `new` is known to some workers only."""
TIMEOUT = 0.8


@dataclass(frozen=True)
class Op:
    """Something that a client does: `at` seconds after the start. `what`: a Job, a list of them, a Chain, a Group, or
    the argument of the verb."""

    at: float
    verb: str
    what: Any = None


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong: `target`, the number of a process; `span` seconds."""

    at: float
    kind: str
    target: int
    span: float


@dataclass
class Plan:
    """`heal`: when nothing goes wrong any more, and a worker that knows all tasks lives."""

    seed: int
    lease: float
    timeout: float
    grace: float
    workers: int
    concurrency: int
    max_deaths: int
    old_workers: int
    rates: Rates
    rest: Rates
    """What the network is like after `heal`: replies may go on to be lost, which must not keep anything from ending."""
    heal: float
    skews: list[float] = field(default_factory=list[float])
    ops: list[Op] = field(default_factory=list[Op])
    faults: list[Fault] = field(default_factory=list[Fault])


def make_plan(seed: int) -> Plan:
    """The same seed, the same plan."""
    rand = random.Random(f"plan {seed}")
    workers = rand.choice([1, 2, 2, 3])
    rates = _rates(rand)
    plan = Plan(
        seed,
        lease=(lease := rand.choice([1.0, 1.5, 2.5])),
        timeout=rand.choice([0.3, 0.4] if lease < 1.5 else [0.4, 0.8]),  # one call without an answer costs no lease
        grace=rand.choice([0.0, 0.5, 2.0]),
        workers=workers,
        concurrency=rand.choice([1, 2, 4]),
        max_deaths=rand.choice([3, 3, 1000]),
        old_workers=rand.choice([0, 0, 0, 1]) if workers > 1 else 0,
        rates=rates,
        rest=Rates(lose_reply=rates.lose_reply) if rand.random() < 0.5 else QUIET,
        heal=rand.uniform(2.0, 6.0),
    )
    plan.skews = [rand.choice([0.0, 0.0, rand.uniform(-30, 30), rand.uniform(-1, 1)]) for _ in range(workers)]
    plan.ops = sorted(_ops(rand, plan.heal), key=lambda op: op.at)
    plan.faults = sorted(_faults(rand, plan), key=lambda fault: fault.at)
    return plan


def _rates(rand: random.Random) -> Rates:
    if rand.random() < 0.25:
        return Rates()
    some = (0.0, 0.0, 0.02, 0.1, 0.3, 0.5)
    return Rates(
        rand.choice(some), rand.choice(some), rand.choice((0.0, 0.0, 0.02, 0.1)), rand.choice((0.05, 0.5, 3.0))
    )


def _faults(rand: random.Random, plan: Plan) -> list[Fault]:
    kinds = ["kill", "pause", "block", "drain", "cancel", "outage", "freeze", "cut", "skew", "kill client"]
    if rand.random() < 0.15:
        return []
    chosen = rand.sample(kinds, rand.randint(1, 4))
    return [
        Fault(
            rand.uniform(0.1, plan.heal),
            kind := rand.choice(chosen),
            rand.randrange(plan.workers),
            rand.uniform(0.05, 2.5 * plan.lease) if kind != "skew" else rand.uniform(-60, 60),
        )
        for _ in range(rand.choice([1, 2, 4, 8]))
    ]


def act(rand: random.Random) -> dict[str, Any]:
    """What a handler is to do, as its payload says."""
    what: dict[str, Any] = {}
    if rand.random() < 0.7:
        what["s"] = round(rand.choice([0.003, 0.02, 0.1, 0.4, 1.5]) * rand.random(), 4)
    chance = rand.random()
    if chance < 0.1:
        what["fail"] = rand.randint(1, 4)
    elif chance < 0.13:
        what["fatal"] = True
    elif chance < 0.18:
        what["snooze"] = rand.randint(1, 2)
    elif chance < 0.21:
        what["stubborn"] = round(rand.uniform(0.1, 3.0), 3)
    elif chance < 0.25:
        what["block"] = round(rand.uniform(0.05, 4.0), 3)
    elif chance < 0.28:
        what["asks"] = rand.randint(1, 3)
    elif chance < 0.31:
        what["progress"] = 3
    return what


def _job(rand: random.Random, *, id: str | None = None, follow: int = 1, eta: bool = True) -> Job[Any]:
    task = rand.choices(list(TASKS), weights=(6, 3, 1, 1))[0]
    what = act(rand)
    most = rand.choice([0, 1, 3]) if "fail" in what or "asks" in what or task == "limited" else rand.choice([0, 2])
    what["most"] = most
    payload = json.dumps(what).encode()
    due = None
    if eta and rand.random() < 0.15:
        due = datetime.fromtimestamp(START, UTC) + timedelta(seconds=rand.uniform(0.0, 8.0))
    followed = [_job(rand, follow=follow - 1) for _ in range(2)] if follow and rand.random() < 0.15 else []
    return Job(
        task,
        payload,
        id=id,
        queue=TASKS[task],
        max_retries=most,
        eta=due,
        priority=rand.choice([0, 0, 0, 5, -5]),
        on_success=followed[:1],
        on_error=followed[1:],
    )


def _ops(rand: random.Random, heal: float) -> list[Op]:
    ops: list[Op] = []
    ids: list[str] = []
    for n in range(rand.choice([6, 10, 20])):
        at = rand.choice([0.0, 0.0, rand.uniform(0.0, heal)])
        chance = rand.random()
        if chance < 0.5:
            ids.append(f"j{n}")
            ops.append(Op(at, "enqueue", _job(rand, id=ids[-1])))
        elif chance < 0.65:
            some = [f"m{n}.{i}" for i in range(rand.randint(2, 8))]
            ids += some
            ops.append(Op(at, "enqueue_many", [_job(rand, id=id) for id in some]))
        elif chance < 0.82:
            steps = [_job(rand) for _ in range(rand.randint(2, 4))]
            ids += [f"c{n}~c{i}" for i in range(len(steps))]
            ops.append(Op(at, "enqueue_chain", Chain(steps, id=f"c{n}")))
        else:
            members = [_job(rand) for _ in range(rand.randint(1, 5))]
            ids += [f"g{n}~g{i}" for i in range(len(members))]
            after = [_job(rand, follow=0, eta=False) for _ in range(2)]
            ops.append(Op(at, "enqueue_group", Group(members, id=f"g{n}", on_success=after[:1], on_error=after[1:])))
    wholes = [op.what.id for op in ops if op.verb in ("enqueue_chain", "enqueue_group")]
    ops += [Op(rand.uniform(0.0, heal), "cancel", rand.choice(ids)) for _ in range(rand.choice([0, 0, 1, 3]))]
    for _ in range(rand.choice([0, 0, 0, 1])):
        if wholes:
            id = rand.choice(wholes)
            verb = "cancel_chain" if id[0] == "c" else "cancel_group"
            ops.append(Op(rand.uniform(0.0, heal), verb, id))
    ops += [Op(rand.uniform(0.5, heal), "retry", rand.random()) for _ in range(rand.choice([0, 0, 1, 4]))]
    if rand.random() < 0.15:
        ops.append(Op(rand.uniform(0.0, heal), "pause", (rand.choice(QUEUES), rand.uniform(0.1, 2.0))))
    if rand.random() < 0.25:
        what = json.dumps({"most": 0}).encode()
        every = rand.choice([1, 2])
        ops.append(Op(0.0, "enqueue", Job("work", what, id="tick", queue="q", schedule=f"@every {every}s")))
    return ops
