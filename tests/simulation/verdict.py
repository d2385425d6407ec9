"""What a simulated run was worth: the breaches seen as they happened, and what its end and its history say."""

from __future__ import annotations

from collections.abc import Iterator

from tasqueue.core import codec
from tasqueue.core.record import callback_id
from tasqueue.core.status import State

from ..faults.history import History, Kill, Line, chain_faults, group_faults, judge
from .ledger import Ledger
from .world import World


def breaches(world: World) -> list[str]:
    """All that is wrong, the earliest first; empty when the run was as it should be."""
    ledger = world.ledger
    return [*ledger.wrong, *world.loop.errors, *_at_the_end(world), *_stored(world), *_history(ledger)]


def _at_the_end(world: World) -> Iterator[str]:
    ledger = world.ledger
    for id in ledger.unfinished():
        state = world.store.jobs[id].state.name if id in world.store.jobs else "not stored"
        yield f"{id} is lost or stuck: {state}"
    for id in world.acknowledged:
        if id not in ledger.jobs and not {f"c:{id}", f"g:{id}"} & ledger.wholes.keys() and id != "tick":
            yield f"{id} was acknowledged, and never stored"
    if ledger.holders:
        yield f"still held by somebody: {ledger.holders}"


def _stored(world: World) -> Iterator[str]:
    for id, known in world.ledger.jobs.items():
        job = world.store.jobs.get(id)
        if job is None:
            yield f"{id} is not stored any more"
            continue
        state = world.ledger.final.get(id)
        if state is None:
            continue
        if job.state is not state:
            yield f"{id} ended as {state.name}, and is stored as {job.state.name}"
        retried = codec.decode_tail(job.tail).retried
        if retried != known.retries:
            yield f"{id} was retried {known.retries} times, and {retried} are stored"
        if state is State.SUCCESSFUL and job.result != known.result:
            yield f"{id} ended with {known.result!r}, and {job.result!r} is stored"


def _history(ledger: Ledger) -> Iterator[str]:
    """The history checker of the other fault tests, an incarnation being what a process is there."""
    numbers: dict[str, int] = {}
    lines: list[Line] = []
    for run in ledger.runs:
        worker = run.token[0]
        pid = numbers.setdefault(worker, len(numbers))
        end = ledger.ends.get(worker)
        if end is not None and run.start > end.at:  # a worker that stood still does not know yet that it has lost it
            if not end.died:
                yield f"{run.id} was begun at {run.start - 1e9:.6f} by {worker}, which had given everything back"
            continue
        lines.append(Line("S", run.id, pid, run.start, run.start, ""))
        if run.end is not None and (end is None or run.end <= end.at):  # later, it is as if the process had died
            lines.append(Line("E" if run.how == "done" else "X", run.id, pid, run.end, run.end, ""))
    history = History(lines)
    kills = [Kill(numbers[name], end.at, end.held) for name, end in ledger.ends.items() if name in numbers]
    good = [id for id, state in ledger.final.items() if state is State.SUCCESSFUL]
    verdict = judge(history, good, kills, ledger.jobs, retries=True)
    yield from (f"{id} is successful, and never came to its end" for id in verdict.lost)
    yield from (f"{id} ran, and nobody enqueued it" for id in verdict.unexpected)
    yield from (f"a run of {run.id} at {run.start - 1e9:.6f} that nothing explains" for run in verdict.unexplained)
    yield from (
        f"runs of {one.id} overlap, at {one.start - 1e9:.6f} and {other.start - 1e9:.6f}"
        for one, other in verdict.overlapping
    )
    yield from _wholes(ledger, history)
    yield from _previous(ledger)


def _wholes(ledger: Ledger, history: History) -> Iterator[str]:
    for whole in ledger.wholes.values():
        ids = [whole.ids[i] for i in range(whole.link.n)]
        if whole.ended is not State.SUCCESSFUL:
            continue
        if whole.is_chain:
            yield from chain_faults(history, ids)
            continue
        for template in whole.link.on_success:
            callback = callback_id(template.id, whole.generation)
            if history.of(callback):  # otherwise it was cancelled or failed without a run, and that is said elsewhere
                yield from group_faults(history, ids, callback)


def _previous(ledger: Ledger) -> Iterator[str]:
    for run in ledger.runs:
        if run.id not in ledger.jobs:
            continue  # said above
        record = ledger.jobs[run.id].record
        whole = ledger.wholes.get(record.link)
        if whole is not None and whole.is_chain and record.pos:
            before = ledger.jobs[whole.ids[record.pos - 1]].result
            if run.prev != before:
                yield f"{run.id} was told {run.prev!r} by the step before, which saved {before!r}"
