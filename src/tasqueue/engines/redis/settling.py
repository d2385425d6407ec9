"""Settle: all steps of a batch in one script, each decided by its token (G3)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ... import faults
from ...core.record import Kind, Step
from ...core.status import State
from .base import Base, keys, span, told
from .layout import SIZE, key, ref_of, rest_of, tells_link, written_again

END, RETRY, SUCCESSFUL = Kind.END, Kind.RETRY, State.SUCCESSFUL  # up to Python 3.11, looking one up costs 0.1 µs
OPS = {"": b"E", "c": b"C", "g": b"G"}
"""See `lua/settle.lua`."""
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
        if len({step.id for step in steps}) == len(steps):
            accepted = await self._settle(worker, steps)
        else:  # one job twice: the second answer depends on the first
            accepted = [ok for step in steps for ok in await self._settle(worker, [step])]
        if any(step.ttl == 0 for step in steps):
            self._remember(worker, steps, accepted)
        if faults.active:
            faults.point("W9.settled")
        return accepted

    async def _settle(self, worker: str, steps: Sequence[Step]) -> list[bool]:
        for step in steps:
            if step.ref is None:
                steps = await self._with_refs(worker, steps)
                break
        order, args = _arguments(worker, steps)
        reply = await self._client().run("settle", args, durable=True)
        if faults.active:
            told(reply[0], reply[1])
            if any(step.kind is RETRY for step in steps):
                faults.point("R2.rescheduled")
        if len(reply) == 2:
            return [True] * len(steps)
        accepted = [False] * len(steps)
        for i, ok in zip(order, reply[2:], strict=True):
            accepted[i] = bool(ok)
        return accepted

    async def _with_refs(self, worker: str, steps: Sequence[Step]) -> list[Step]:
        """What came without the engine's own handle gets one: while it is held, its record stays as it was claimed."""
        bare = [step for step in steps if step.ref is None]
        *records, held = await self._run("get", *keys([step.id for step in bare]))
        at = {held[i] - 1: int(held[i + 2].split(b":", 2)[1]) for i in range(0, len(held), 4)}
        refs = {
            id(step): ref_of(raw, at.get(i, 0))
            for i, (step, raw) in enumerate(zip(bare, records, strict=True))
            if raw is not None
        }
        return [step if step.ref is not None else _with_ref(step, refs.get(id(step), _NOTHING)) for step in steps]

    def _remember(self, worker: str, steps: Sequence[Step], accepted: list[bool]) -> None:
        forgotten = self._forgotten
        for i, step in enumerate(steps):
            if step.ttl == 0 and step.kind is END:
                token = (worker, step.id, step.claim)
                if accepted[i]:
                    forgotten[token] = None
                elif token in forgotten:
                    accepted[i] = True
        while len(forgotten) > REMEMBERED:
            del forgotten[next(iter(forgotten))]


_NOTHING = ref_of(bytes(SIZE), 0)
"""The record of a job that is not stored: its step is refused, whatever it says."""


def _with_ref(step: Step, ref: object) -> Step:
    return replace(step, ref=ref)


def _arguments(worker: str, steps: Sequence[Step]) -> tuple[list[int], list[object]]:
    """The arguments, and which step each id belongs to: ends without follow-ups go first, those alike together.

    What they make ready comes in that order, too; but groups are told in the order of the steps, so their callbacks
    come in it.
    """
    name = key(worker)
    alike: dict[tuple[str, int, int, int | None], list[int]] = {}
    others: list[int] = []
    for i, step in enumerate(steps):
        if (
            step.kind is END
            and not step.follow
            and step.ttl != 0
            and (not step.link or (step.state is SUCCESSFUL and tells_link(step)))
        ):
            group = (step.link[:1], step.claim, step.state, step.ttl)
            try:
                alike[group].append(i)
            except KeyError:
                alike[group] = [i]
        else:
            others.append(i)
    order: list[int] = []
    runs: list[object] = []
    if sum(run[0] == "g" for run in alike) + any(steps[i].link[:1] == "g" for i in others) > 1:
        groups = dict.fromkeys(step.link for step in steps if step.link[:1] == "g")
        runs += (b"T", len(groups), *map(key, groups))
    for (kind, claim, state, ttl), members in alike.items():
        order += members
        runs += (OPS[kind], claim, int(state), span(ttl), len(members))
        runs += [written_again(steps[i], name, worker)[0] for i in members]
    order += others
    for i in others:
        step = steps[i]
        rest, parked = written_again(step, name, worker)
        if step.kind is END:
            runs += (
                b"L",
                step.claim,
                int(step.state),
                span(step.ttl),
                rest,
                key(step.link),
                step.pos,
                len(step.follow),
            )
            for record in step.follow:
                due: object = "" if record.due is None else record.due
                runs += (key(record.queue), record.priority, due, key(record.id), rest_of(record))
        else:
            runs += (b"B", step.claim, int(step.kind), step.delay, parked, key(step.key), rest)
    return order, [name, len(order), *[steps[i].id.encode("utf-8", "surrogatepass") for i in order], *runs]
