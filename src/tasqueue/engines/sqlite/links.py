"""Chains and groups: what the end, the cancel and the reopening of one job mean to the whole.

A chain is where its `pos` says. Only the step there is ever ready or running, all later ones are held back. A group
is the set of its members that have ended (ns_member), never a counter, so that nothing told twice can count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ... import faults
from ...core.codec import pack_results
from ...core.record import Link, Record, callback_id
from ...core.status import ENDED, State, Status
from .lane import Tx

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


class Ended(NamedTuple):
    """A job of a chain or group that has ended."""

    link: str
    pos: int
    state: State
    result: bytes | None


class Stored(NamedTuple):
    """A row of ns_link."""

    n: int
    status: str
    pos: int
    generation: int
    on_success: bytes
    on_error: bytes
    result_ttl: int | None
    failed_ttl: int | None
    max_prev: int

    @property
    def open(self) -> bool:
        return self.status == Status.PROCESSING


def load(tx: Tx, key: str) -> Stored | None:
    row = tx.run("link", key, tx.now).fetchone()
    return None if row is None else Stored(*row)


def insert(tx: Tx, link: Link) -> bool:
    """Whether it is new. What an earlier link of that name has left behind makes room: otherwise the new one could
    never end."""
    on_success, on_error = _encode(list(link.on_success)), _encode(list(link.on_error))
    values = (link.key, link.n, on_success, on_error, link.result_ttl, link.failed_ttl, link.max_prev)
    if tx.value("link_outlived", link.key, tx.now):
        forget(tx, link.key)
    if not tx.run("insert_link", *values).rowcount:
        return False
    if left := tx.column("jobs_of_link", link.key):
        forget_jobs(tx, left)
    return True


def forget_jobs(tx: Tx, seqs: list[int]) -> None:
    """As if they had never been."""
    text = str(seqs)
    tx.run("forget_places", text)
    tx.run("let_go", text)
    tx.run("forget_outcomes", text)
    tx.run("answered", text)
    tx.run("forget_jobs", text)
    tx.news = True


def jobs_ended(tx: Tx, ended: Sequence[Ended], insert_jobs: Callable[[Tx, Sequence[Record]], None]) -> None:
    """Jobs have ended, in whatever way: chains go on or end, groups count their members, and the callbacks that are
    due are inserted."""
    ready: list[tuple[int, bytes | None]] = []
    members: dict[str, list[Ended]] = {}
    for job in ended:
        if not job.link.startswith("c:"):
            members.setdefault(job.link, []).append(job)
        elif (seq := _step_ended(tx, job)) is not None:
            ready.append((seq, job.result))
    if ready:
        for ord, (seq, prev) in enumerate(ready, tx.place(len(ready))):
            tx.run("step_ready", prev, ord, seq)
        tx.run("into_line", str([seq for seq, _ in ready]))
        tx.news = True
    if members:
        insert_jobs(tx, _members_ended(tx, members))


def _step_ended(tx: Tx, job: Ended) -> int | None:
    """The step of the chain that is to be ready now, with what this one has saved."""
    chain = load(tx, job.link)
    if chain is None:
        return None
    if job.state is not State.SUCCESSFUL:
        if chain.open:
            end(tx, job.link, chain, ENDED[job.state])
        return None
    pos = job.pos + 1
    tx.run("chain_moved", pos, job.link)
    if pos == chain.n:
        if chain.open:
            end(tx, job.link, chain, Status.SUCCESSFUL)
        return None
    step = tx.run("step", job.link, pos).fetchone()
    if step is None:
        return None
    seq, state, due = step
    if chain.open and state == State.HELD and not _start_later(tx, seq, due):
        return seq
    tx.run("step_prev", job.result, seq)
    return None


def _start_later(tx: Tx, seq: int, due: int | None) -> bool:
    """Whether a step that its chain has got to has a date that is still to come."""
    if due is None or due <= tx.now:
        return False
    tx.run("start_later", due, seq)
    tx.news = True
    return True


def _members_ended(tx: Tx, ended: dict[str, list[Ended]]) -> list[Record]:
    """The callbacks of the groups that have ended with these."""
    groups = {key: group for key in ended if (group := load(tx, key)) is not None}  # a group may have been forgotten
    values: list[object] = []
    for key in groups:
        for job in ended[key]:
            values += (key, job.pos, ENDED[job.state], job.result)
    tx.bulk("member_ended", 4, values)
    callbacks: list[Record] = []
    for key, group in groups.items():
        done, good, size = tx.run("members_ended", key).fetchone()
        if done >= group.n:
            if faults.active:
                faults.point("G3.last_member")
            callbacks += _group_ended(tx, key, group, good == group.n, size)
    return callbacks


def _group_ended(tx: Tx, key: str, group: Stored, good: bool, size: int) -> list[Record]:
    templates = _decode(group.on_success if good else group.on_error)
    prev: bytes | None = None
    if templates and size <= group.max_prev:
        saved: dict[int, bytes | None] = dict(tx.run("member_results", key, 0, group.n).fetchall())
        prev = pack_results([saved.get(i) for i in range(group.n)])
        if len(prev) > group.max_prev:
            prev = None
    end(tx, key, group, Status.SUCCESSFUL if good else Status.FAILED)
    if templates:
        tx.passed.append("G4.callback_enqueued")
    return [replace(template, id=callback_id(template.id, group.generation), prev=prev) for template in templates]


def end(tx: Tx, key: str, link: Stored, status: Status) -> None:
    """The whole has ended."""
    ttl = link.failed_ttl if status is Status.FAILED else link.result_ttl
    if ttl == 0:
        forget(tx, key)
    else:
        tx.run("link_ended", status, tx.now, None if ttl is None else tx.now + ttl, key)
    tx.news = True


def forget(tx: Tx, key: str) -> None:
    """The link, and the jobs that it still holds back."""
    if held := tx.column("held_of_link", key):
        forget_jobs(tx, held)
    tx.run("delete_link", key)
    tx.run("delete_members", key)
    tx.news = True


def reopened(tx: Tx, key: str, pos: int) -> bool:
    """A job that had ended is put back: whether it is ready; otherwise its chain is not there yet, and it is held
    back."""
    link = load(tx, key) if key else None
    if link is None:
        return True
    if not link.open:
        tx.run("link_revived", key)
    if not key.startswith("c:"):
        tx.run("member_reopened", key, pos)
        return True
    if pos == link.pos:
        return True
    step = tx.run("step", key, link.pos).fetchone()
    if step is not None and step[1] == State.HELD and not _start_later(tx, step[0], step[2]):
        tx.run("make_ready", tx.place(1), step[0])
        tx.run("into_line", str([step[0]]))
    return False
