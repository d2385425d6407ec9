"""Settle: the usual end of a whole batch in three statements, and everything else, each in the transaction of its
batch (G3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...core.record import Kind, Record, Step
from ...core.status import State
from . import links
from .base import Base
from .lane import Tx
from .working import insert

END, RETRY, RELEASE = Kind.END, Kind.RETRY, Kind.RELEASE  # up to Python 3.11, looking up a member costs 0.1 µs
REMEMBERED = 1_000
"""Jobs forgotten at their end that are remembered here, for a settle that is repeated."""


class Settling(Base):
    """See `Engine`."""

    _forgotten: dict[tuple[str, str, int], None]
    """Worker, id and claim, the oldest first."""

    async def settle(self, worker: str, steps: Sequence[Step]) -> list[bool]:
        """A repeated END with a `ttl` of 0 is accepted if among the last 1,000 of this engine object, else refused."""
        if not steps:
            return []
        accepted = await self._write(partial(_settle, worker, steps))
        for i, step in enumerate(steps):
            if step.ttl == 0 and step.kind is END:
                token = (worker, step.id, step.claim)
                if accepted[i]:
                    self._forgotten[token] = None
                elif token in self._forgotten:
                    accepted[i] = True
        while len(self._forgotten) > REMEMBERED:
            del self._forgotten[next(iter(self._forgotten))]
        return accepted


def _settle(worker: str, steps: Sequence[Step], tx: Tx) -> list[bool]:
    if len({step.id for step in steps}) != len(steps):  # one job twice: the second answer depends on the first
        return [_settle(worker, [step], tx)[0] for step in steps]
    row = tx.run("worker", worker).fetchone() or tx.run("gone_worker", worker).fetchone()
    if row is None:
        return [False] * len(steps)
    nr = row[0]
    seqs: list[int] = [step.ref if step.ref is not None else tx.value("seq_of", step.id) or 0 for step in steps]
    lasting = all(step.kind is END and step.ttl != 0 and not step.died for step in steps)
    mine, held = steps, seqs
    if not lasting or _store(tx, nr, steps, seqs) < len(steps):
        holds = dict(tx.run("holds", str(seqs), nr).fetchall())
        pairs = [(step, seq) for step, seq in zip(steps, seqs, strict=True) if holds.get(seq) == step.claim]
        mine, held = [step for step, _ in pairs], [seq for _, seq in pairs]
        if not lasting:
            _each(tx, nr, worker, pairs)
    if held:
        tx.run("let_go", str(held))
        tx.news = True
    if any(step.follow or step.link for step in mine):
        _what_follows(tx, mine)
    if tx.value("asked_any"):
        answered = [seq for step, seq in zip(mine, held, strict=True) if step.kind is not RELEASE]
        tx.run("answered", str(answered))
    tx.passed.append("W9.settled")
    if len(held) == len(steps):
        return [True] * len(steps)
    good = set(held)
    return [seq in good or _applied_before(tx, nr, step, seq) for step, seq in zip(steps, seqs, strict=True)]


def _store(tx: Tx, nr: int, ends: Sequence[Step], seqs: Sequence[int]) -> int:
    """The outcomes of those jobs that their token holds. How many there were."""
    # Grouped by what they have in common, which is bound once: most batches are one or two groups.
    groups: dict[tuple[int, State, int | None], list[object]] = {}
    for step, seq in zip(ends, seqs, strict=True):
        key = (step.claim, step.state, step.ttl)
        values = groups.get(key)
        if values is None:
            values = groups[key] = []
        values += (seq, step.tail, step.result)
    now, num = tx.now, tx.place(1)
    return sum(
        tx.bulk("end", 3, values, (state, num, now, None if ttl is None else now + ttl), (nr, claim))
        for (claim, state, ttl), values in groups.items()
    )


def _each(tx: Tx, nr: int, worker: str, pairs: Sequence[tuple[Step, int]]) -> None:
    """Steps that are good, of any kind."""
    ends = [(step, seq) for step, seq in pairs if step.kind is END and step.ttl != 0]
    if ends:
        _store(tx, nr, [step for step, _ in ends], [seq for _, seq in ends])
    forgotten = [seq for step, seq in pairs if step.kind is END and step.ttl == 0]
    place = tx.place(len(pairs))
    back: list[int] = []
    for step, seq in pairs:
        if step.died:
            tx.run("died", worker, step.reason, seq)
        if step.kind is not END and _put_back(tx, nr, step, seq, place):
            back.append(seq)
        place += 1
    if back:
        tx.run("into_line", str(back))
    if forgotten:
        links.forget_jobs(tx, forgotten)


def _put_back(tx: Tx, nr: int, step: Step, seq: int, place: int) -> bool:
    """Every step but END. Whether the job is ready."""
    if step.kind is RELEASE:
        tx.run("put_back", State.READY, None, None, None, nr, step.claim, seq)
        return True
    if step.kind is Kind.PARK:
        tx.run("park", tx.now, step.delay, step.key, step.reason, step.tail, nr, step.claim, seq)
        return False
    if step.kind is RETRY:
        tx.passed.append("R2.rescheduled")
    if step.delay > 0:
        tx.run("put_back", State.DUE, tx.now + step.delay, None, step.tail, nr, step.claim, seq)
        return False
    tx.run("put_back", State.READY, None, place, step.tail, nr, step.claim, seq)
    return True


def _what_follows(tx: Tx, steps: Sequence[Step]) -> None:
    follow: list[Record] = []
    ended: list[links.Ended] = []
    for step in steps:
        if step.kind is END:
            follow += step.follow
            if step.link:
                ended.append(links.Ended(step.link, step.pos, step.state, step.result))
    insert(tx, follow)
    links.jobs_ended(tx, ended, insert)


def _applied_before(tx: Tx, nr: int, step: Step, seq: int) -> bool:
    """Whether this very token's last act was such a step, so that the answer to it was lost (G14)."""
    row = tx.run("token_of", seq).fetchone()
    if row is None or row[1:] != (nr, step.claim):
        return False
    if step.kind is END:
        return row[0] == step.state
    return row[0] in (State.READY, State.DUE, State.PARKED)
