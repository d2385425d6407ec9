"""Who holds what, told again from the requests as the store executed them: what an engine and its workers may do.

It knows the guarantees and none of the code: a token that was taken back is worth nothing (G4), a job ends once (G2),
what it came to is what its handler did, ids are derived (G5), a group calls back once a generation (G6), nothing comes
before its time.

Invariant: `wrong` has a sentence for each breach, and each is written when it happens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from tasqueue import JobCtx
from tasqueue.core import codec
from tasqueue.core.ids import derive
from tasqueue.core.record import Kind, Lease, Link, Record, Step, Tick, callback_id
from tasqueue.core.status import State
from tasqueue.interfaces import Beat, Cancelled, Claim, WorkerGone

Token = tuple[str, int]
"""Incarnation and claim number."""


@dataclass(eq=False)
class Attempt:
    """One run, as its handler saw it. `left`: how it was left, by itself: `done`, `error`, `snoozed`."""

    id: str
    token: Token
    ctx: JobCtx
    saved: bytes
    prev: bytes | None
    start: float
    end: float | None = None
    left: str = ""
    fatal: bool = False

    @property
    def how(self) -> str:
        """What it came to: why it was interrupted, or how it was left; "": neither, it runs or its process has died."""
        return self.ctx.interrupted or self.left


@dataclass
class Known:
    """A job that is stored. `most`: its retries."""

    record: Record
    due: int = 0
    retries: int = 0
    most: int = 0
    deaths: int = 0
    last_death: str = ""
    claimed: bool = False
    """It was, and has not ended since: it goes on, whatever becomes of its chain."""
    applied: tuple[Token, Kind] | None = None
    """The last step that was accepted."""
    result: bytes | None = None


@dataclass
class Whole:
    """A chain or a group."""

    link: Link
    ids: dict[int, str] = field(default_factory=dict[int, str])
    pos: int = 0
    readied: int = 0
    """The last step that was let go; it has to end even when the chain has ended by the cancel of a later one."""
    members: dict[int, State] = field(default_factory=dict[int, State])
    ended: State | None = None
    generation: int = 0

    @property
    def is_chain(self) -> bool:
        return self.link.key.startswith("c:")


@dataclass
class End:
    """An incarnation's: what it held went back to the queue."""

    worker: str
    at: float
    held: int
    died: bool


class Ledger:
    """`states`: how the store says that these jobs are, asked only about what a cancel came to."""

    def __init__(self, now: Callable[[], float], state: Callable[[str], State | None], lease: float) -> None:
        self._now = now
        self._state = state
        self._lease = lease
        self.wrong: list[str] = []
        self.closed = False
        self.jobs: dict[str, Known] = {}
        self.wholes: dict[str, Whole] = {}
        self.final: dict[str, State] = {}
        self.holders: dict[str, Token] = {}
        self.attempts: dict[tuple[str, Token], Attempt] = {}
        self.runs: list[Attempt] = []
        self.errors: Counter[str] = Counter()
        """Of each job, the runs that ended in an error, stored or not."""
        self.ends: dict[str, End] = {}
        self.seen: dict[str, float] = {}
        """When an incarnation was last heard of."""
        self.asked: set[str] = set()
        """Somebody wanted it cancelled."""
        self.cancelling: set[str] = set()
        """It ran then, and has not been settled since, but given back."""
        self.doomed: set[tuple[str, Token]] = set()
        """Claims of such jobs."""
        self.paused: set[str] = set()
        self.fired: Counter[str] = Counter()
        self.stale = 0
        """Settles that were refused, rightly."""
        self.retried: Counter[str] = Counter()
        """Times that a job was put back by `retry`."""

    def breach(self, text: str) -> None:
        """Write it down, unless the run is over: what is thrown away then breaks nothing any more."""
        if not self.closed:
            self.wrong.append(f"{self._now() - 1e9:.6f} {text}")

    def note(self, verb: str, args: tuple[Any, ...], answer: Any) -> None:
        """The store executed this, and answered that."""
        if isinstance(answer, WorkerGone):
            if args[0] not in self.ends and args[0] in self.seen:
                self.breach(f"{verb}: {args[0]} is said to be gone, but was never taken back")
        elif isinstance(answer, BaseException):
            self.breach(f"{verb} raised {type(answer).__name__}: {answer}")
        else:
            method = getattr(self, f"on_{verb}", None)
            if method is not None:
                method(*args, answer)

    # -- handlers -----------------------------------------------------------------------------------------------------

    def started(self, ctx: JobCtx, at: float) -> Attempt:
        """A handler was entered."""
        lease = ctx.run.lease
        id, token = lease.id, (ctx.run.worker, lease.claim)
        attempt = Attempt(id, token, ctx, f"{id}#{len(self.runs)}".encode(), lease.prev, at)
        if (id, token) in self.attempts:
            self.breach(f"{id} runs twice under one lease {token}")
        if (id, token) in self.doomed:
            self.breach(f"{id} is to be cancelled, and runs again")
        self.attempts[id, token] = attempt
        self.runs.append(attempt)
        return attempt

    def left(self, attempt: Attempt, how: str, at: float) -> None:
        """A handler was left."""
        attempt.left = how
        if attempt.end is None:
            attempt.end = at
        if attempt.how in ("error", "timeout"):
            self.errors[attempt.id] += 1

    # -- producing ----------------------------------------------------------------------------------------------------

    def on_submit(self, records: Sequence[Record], links: Sequence[Link], _answer: None) -> None:
        fresh = {link.key: Whole(link) for link in links if link.key not in self.wholes}
        self.wholes.update(fresh)
        for record in records:
            if record.link in fresh:
                fresh[record.link].ids[record.pos] = record.id
            if not record.link or record.link in fresh:
                self._insert(record)

    def _insert(self, record: Record) -> None:
        if record.id not in self.jobs:
            act = json.loads(codec.decode_spec(record.spec).payload)
            self.jobs[record.id] = Known(record, record.due or 0, most=act.get("most", 0))

    def on_fire(self, ticks: Sequence[Tick], fired: list[bool]) -> None:
        for tick, done in zip(ticks, fired, strict=True):
            if not done:
                continue
            if tick.at > self._now() * 1000:
                self.breach(f"tick {tick.record.id} fired early")
            if tick.record.id in self.jobs:
                self.breach(f"tick {tick.record.id} fired twice")
            self.fired[tick.schedule_id] += 1
            self._insert(tick.record)

    # -- working ------------------------------------------------------------------------------------------------------

    def on_register(self, worker: str, *_: Any) -> None:
        self.seen[worker] = self._now()

    def on_claim(self, worker: str, number: int, wants: dict[str, int], claim: Claim) -> None:
        if worker in self.ends:
            self.breach(f"{worker} was taken back at {self.ends[worker].at}, and claims")
        for lease in claim.leases:
            self._leased(worker, number, lease)

    def _leased(self, worker: str, number: int, lease: Lease) -> None:
        id, token = lease.id, (worker, number)
        known = self.jobs.get(id)
        if known is None:
            self.breach(f"{worker} was given {id}, which nobody enqueued")
            return
        held = self.holders.get(id)
        if held == token:
            return  # asked again under the same number
        if held is not None:
            self.breach(f"{id} is held by {held} and given to {token}")
        if id in self.final:
            self.breach(f"{id} has ended ({self.final[id].name}) and is given to {worker}")
        if self._now() * 1000 < known.due:
            self.breach(f"{id} is given to {worker} {known.due - self._now() * 1000:.0f} ms early")
        if lease.queue in self.paused:
            self.breach(f"{id} is given to {worker}, though {lease.queue} is paused")
        if lease.deaths != known.deaths:
            self.breach(f"{id} is said to have seen {lease.deaths} deaths, not {known.deaths}")
        if lease.asked != (id in self.cancelling):
            self.breach(f"{id} is given to {worker} with asked={lease.asked}")
        if lease.asked:
            self.doomed.add((id, token))
        self._check_turn(known)
        known.claimed = True
        self.holders[id] = token

    def _check_turn(self, known: Known) -> None:
        record = known.record
        whole = self.wholes.get(record.link)
        if whole is None or not whole.is_chain or not record.pos:
            return
        before = whole.ids[record.pos - 1]
        if self.final.get(before) is not State.SUCCESSFUL:
            self.breach(f"step {record.id} is ready before {before} has succeeded")

    def on_settle(self, worker: str, steps: Sequence[Step], accepted: list[bool]) -> None:
        for step, ok in zip(steps, accepted, strict=True):
            self._step(worker, step, ok)

    def _step(self, worker: str, step: Step, ok: bool) -> None:
        id, token = step.id, (worker, step.claim)
        known = self.jobs.get(id)
        if known is None:
            self.breach(f"{worker} settles {id}, which nobody enqueued")
            return
        if self.holders.get(id) != token:
            if not ok:
                self.stale += 1
            elif known.applied != (token, step.kind):
                self.breach(f"a stale {step.kind.name} of {id} by {token} was accepted; it is {self.holders.get(id)}'s")
            return
        if not ok:
            self.breach(f"{step.kind.name} of {id} was refused, though {token} holds it")
            return
        del self.holders[id]
        known.applied = (token, step.kind)
        if step.kind is not Kind.RELEASE:
            self.cancelling.discard(id)
        attempt = self.attempts.get((id, token))
        if attempt is not None and attempt.end is None:
            self._still_runs(step, attempt)
        how = "" if attempt is None else attempt.how
        if step.kind is Kind.END:
            self._ends(known, step, attempt, how)
        elif step.kind is Kind.RETRY:
            known.retries += 1
            known.due = int(self._now() * 1000) + step.delay
            if how not in ("error", "timeout"):
                self.breach(f"{id} is retried, but its run was {how or 'none'}")
            if known.retries > known.most:
                self.breach(f"{id} is retried for the {known.retries}. time of {known.most}")
        elif step.kind is Kind.SNOOZE:
            known.due = int(self._now() * 1000) + step.delay
            if how != "snoozed":
                self.breach(f"{id} is snoozed, but its run was {how or 'none'}")
        elif how not in ("", "drain") or step.died:
            self.breach(f"{step.kind.name} of {id}, but its run was {how} (died: {step.died})")

    def _still_runs(self, step: Step, attempt: Attempt) -> None:
        """A handler that ignores its interruption: another run may begin only when its process is about to end, or
        when somebody retries the job (the next generation)."""
        if not attempt.ctx.draining and not (step.kind is Kind.END and attempt.ctx.interrupted):
            self.breach(f"{step.kind.name} of {step.id}, and its handler still runs")
        attempt.end = self._now()

    def _ends(self, known: Known, step: Step, attempt: Attempt | None, how: str) -> None:
        id = step.id
        if step.state is State.SUCCESSFUL:
            if attempt is None or how != "done" or step.result != attempt.saved:
                self.breach(f"{id} is successful with {step.result!r}, but its run was {how or 'none'}")
        elif step.state is State.FAILED:
            if how in ("error", "timeout"):
                assert attempt is not None
                if known.retries < known.most and not attempt.fatal:
                    self.breach(f"{id} failed after {known.retries} of {known.most} retries")
            elif known.deaths < 3 or not known.last_death.endswith("!alone"):
                self.breach(f"{id} failed, but its run was {how or 'none'} and {known.deaths} died with it")
        elif id not in self.asked:
            self.breach(f"{id} is cancelled, and nobody asked for it")
        known.result = step.result
        letter = "s" if step.state is State.SUCCESSFUL else "e"
        for i, record in enumerate(step.follow):
            if record.id != derive(id, f"{letter}{i}", self.retried[id]):
                self.breach(f"{id} is followed by {record.id}, which is not derived from it")
            if record.prev != step.result:
                self.breach(f"{record.id} is told {record.prev!r}, not {step.result!r}")
            self._insert(record)
        self._end(id, step.state)

    def _end(self, id: str, state: State) -> None:
        if id in self.final:
            self.breach(f"{id} ended as {self.final[id].name}, and again as {state.name}")
        self.final[id] = state
        self.jobs[id].claimed = False
        record = self.jobs[id].record
        whole = self.wholes.get(record.link)
        if whole is None:
            return
        if whole.is_chain:
            if state is State.SUCCESSFUL:
                whole.pos = record.pos + 1
                if whole.pos < whole.link.n:
                    whole.readied = whole.pos if whole.ended is None else whole.readied
                    return
            whole.ended = whole.ended or state
            return
        whole.members[record.pos] = state
        if len(whole.members) == whole.link.n and whole.ended is None:
            good = all(one is State.SUCCESSFUL for one in whole.members.values())
            whole.ended = State.SUCCESSFUL if good else State.FAILED
            for template in whole.link.on_success if good else whole.link.on_error:
                id = callback_id(template.id, whole.generation)
                if id in self.jobs:
                    self.breach(f"{id} is called back twice")
                self._insert(replace(template, id=id))

    def on_beat(self, worker: str, *args: Any) -> None:
        reply: Beat = args[-1]
        gone = worker in self.ends or worker not in self.seen
        if reply.lost != gone:
            self.breach(f"{worker} is told lost={reply.lost}, but it {'is gone' if gone else 'lives'}")
        self.seen[worker] = self._now()

    def on_reclaim(self, name: str, _cause: str, workers: list[str]) -> None:
        for worker in workers:
            silent = self._now() - self.seen.get(worker, 0.0)
            if silent < self._lease:
                self.breach(f"{worker} was taken back, though it was heard of {silent:.3f} s ago")
            self._take_back(worker, died=True)

    def on_retire(self, worker: str, count: int) -> None:
        held = self._take_back(worker, died=False)
        if held != count:
            self.breach(f"{worker} retired and gave back {count} jobs, not {held}")

    def _take_back(self, worker: str, died: bool) -> int:
        mine = [id for id, token in self.holders.items() if token[0] == worker]
        for id in mine:
            del self.holders[id]
            self.jobs[id].applied = None
            attempt = next((run for run in reversed(self.runs) if run.id == id and run.token[0] == worker), None)
            if not died and attempt is not None and attempt.end is None and not attempt.ctx.draining:
                self.breach(f"{worker} gives back {id}, and its handler still runs")
            if died:
                self.jobs[id].deaths += 1
                self.jobs[id].last_death = worker
        if worker not in self.ends:
            self.ends[worker] = End(worker, self._now(), len(mine), died)
        return len(mine)

    # -- operating ----------------------------------------------------------------------------------------------------

    def on_cancel(self, ids: Sequence[str], _ttl: int | None, answers: list[Cancelled]) -> None:
        for id, answer in zip(ids, answers, strict=True):
            self.asked.add(id)
            if answer.done:
                self._end(id, State.CANCELLED)
            elif answer.asked:
                self.cancelling.add(id)
            if answer.asked != (id in self.holders):
                self.breach(f"cancel of {id}: asked={answer.asked}, but it is held by {self.holders.get(id)}")

    def on_cancel_link(self, key: str, _ttl: int | None, done: bool) -> None:
        if not done:
            return
        whole = self.wholes[key]
        if whole.is_chain:
            whole.ended = State.CANCELLED
        for id in whole.ids.values():
            self.asked.add(id)
            if id in self.holders:
                self.cancelling.add(id)
            elif id not in self.final and self._state(id) is State.CANCELLED:
                self._end(id, State.CANCELLED)

    def on_reopen(self, id: str, _ended_at: int, _tail: bytes, done: bool) -> None:
        if not done:
            return
        if self.final.pop(id, None) not in (State.FAILED, State.CANCELLED):
            self.breach(f"{id} was reopened, but it had not failed")
        known = self.jobs[id]
        known.retries = known.deaths = known.due = 0
        known.applied = None
        self.asked.discard(id)
        self.cancelling.discard(id)
        self.retried[id] += 1
        whole = self.wholes.get(known.record.link)
        if whole is None:
            return
        whole.generation += whole.ended is not None
        whole.ended = None
        whole.readied = max(whole.readied, whole.pos)
        known.claimed = known.record.pos <= whole.pos
        whole.members.pop(known.record.pos, None)

    def on_pause(self, queue: str, *_: Any) -> None:
        self.paused.add(queue)

    def on_resume(self, queue: str, _answer: None) -> None:
        self.paused.discard(queue)

    # -- at the end ---------------------------------------------------------------------------------------------------

    def due_to_end(self) -> Iterable[str]:
        """The jobs that have to reach a final status: all but the steps of a chain that are not its turn."""
        for id, known in self.jobs.items():
            whole = self.wholes.get(known.record.link)
            if whole is None or not whole.is_chain or known.record.pos == whole.readied or known.claimed:
                yield id

    def unfinished(self) -> list[str]:
        """Those of them that have not."""
        return [id for id in self.due_to_end() if id not in self.final]
