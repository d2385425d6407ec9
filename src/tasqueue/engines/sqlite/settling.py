"""Settle: the usual end of a whole batch in three statements, and everything else, each in the transaction of its batch (G3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ... import faults
from ...core.record import Kind, Record, Step
from ...core.status import State
from . import links
from .base import Base
from .lane import Tx
from .working import insert

END, RETRY, SNOOZE, RELEASE = Kind.END, Kind.RETRY, Kind.SNOOZE, Kind.RELEASE
REMEMBERED = 1_000
"""Jobs forgotten at their end that are remembered here, for a settle that is repeated."""


class Settling(Base):
    """See `Engine`."""

    _forgotten: dict[tuple[str, str, int], None]

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
    nr = _number(tx, worker)
    seqs: list[int] = [step.ref if step.ref is not None else tx.value("seq_of", step.id) or 0 for step in steps]
    if nr is None:
        return [False] * len(steps)
    if all(step.kind is END and step.ttl != 0 for step in steps) and len(set(seqs)) == len(seqs):
        accepted = _end_all(tx, nr, steps, seqs)
    else:
        accepted = _settle_each(tx, nr, worker, steps, seqs)
    tx.passed.append("W9.settled")
    return accepted


def _number(tx: Tx, worker: str) -> int | None:
    """Of a living worker, or of the last that had that name."""
    return tx.value("number_of", worker)


def _end_all(tx: Tx, nr: int, steps: Sequence[Step], seqs: list[int]) -> list[bool]:
    """Nothing but ends: the outcomes are inserted where the token holds; the count tells whether all were."""
    now, num = tx.now, tx.place(len(steps))
    values: list[object] = []
    plain = True
    for step, seq in zip(steps, seqs, strict=True):
        ttl = step.ttl
        values += (seq, step.claim, num, step.state, None if ttl is None else now + ttl, step.tail, step.result)
        num += 1
        if step.follow or step.link:
            plain = False
    count = tx.bulk("end", 7, values, nr, now)
    if count == len(steps):
        accepted = [True] * count
        ended = seqs
    else:
        holds = dict(tx.run("holds", nr, str(seqs)).fetchall())
        accepted = [holds.get(seq) == step.claim for step, seq in zip(steps, seqs, strict=True)]
        ended = [seq for seq, yes in zip(seqs, accepted, strict=True) if yes]
    if ended:
        _leave(tx, ended, ended)
    if not plain:
        done = [step for step, yes in zip(steps, accepted, strict=True) if yes]
        _what_follows(tx, done)
    if count != len(steps):
        accepted = [yes or _applied_before(tx, nr, step, seq) for step, seq, yes in zip(steps, seqs, accepted, strict=True)]
    return accepted
