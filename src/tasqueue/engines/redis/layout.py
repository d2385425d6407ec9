"""The bytes of a record, as `lua/record.lua` describes them. What a worker writes is assembled here, since it holds all
that it was given; the scripts only put the date, the number of the end and the state in front.

Invariant: while a job is held, nobody but its holder writes its record. So what came with the claim is what is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ...core.record import Kind, Lease, Record, Row, Step
from ...core.status import State

VERSION = 1
_HEAD = struct.Struct("<BdddBIbHBIIHHHIdIII")
_REST = struct.Struct("<BIbHBIIHHHIdIII")  # of a new record: from the flags on
_ENDED = struct.Struct("<dBIbHBIIHHHIdIII")  # of one that is written again: from its seq on
_EXTRA = struct.Struct("<HHHHI")
_TEMPLATE = struct.Struct("<HHIbd")
SIZE = _HEAD.size
NO_DATE = -1.0
PREV, RESULT, DERIVED = 1, 2, 4
"""Flags: it has a previous result; a result of its own; a link that is not written, since the id tells it."""

_unpack = _HEAD.unpack_from
_pack_rest = _REST.pack
_pack_ended = _ENDED.pack
_STATES = {int(state): state for state in State}
_PARK, _RELEASE, _END = Kind.PARK, Kind.RELEASE, Kind.END


def key(text: str) -> bytes:
    """A name as a part of a key. Surrogates are kept: an engine takes any str."""
    return text.encode("utf-8", "surrogatepass")


def text(data: bytes) -> str:
    """The reverse of `key`."""
    return data.decode("utf-8", "surrogatepass")


def rest_of(record: Record) -> bytes:
    """A new record, from its flags on."""
    queue, task, link, prev = key(record.queue), key(record.task), record.link, record.prev
    flags, where = 0, b""
    if link:
        if record.id == f"{link[2:]}~{link[0]}{record.pos}":
            flags = DERIVED
        else:
            where = key(link)
    if prev is None:
        prev = b""
    else:
        flags |= PREV
    return (
        _pack_rest(
            flags, len(prev), record.priority, len(queue), VERSION, record.pos, 0, len(task), len(where), 0, 0, 0.0, 0,
            len(record.spec), 0,
        )
        + queue + task + where + record.spec + prev
    )  # fmt: skip


def template(record: Record) -> bytes:
    """A group's callback, to be inserted by a script."""
    id, queue, rest = key(record.id), key(record.queue), rest_of(record)
    due = NO_DATE if record.due is None else float(record.due)
    return _TEMPLATE.pack(len(id), len(queue), len(rest), record.priority, due) + id + queue + rest


def lease_of(id: str, raw: bytes, claim: int, at: int) -> Lease:
    """A claimed job. Its `ref` is what it takes to write the record again."""
    head = _unpack(raw)
    _, _, num, _, flags, p, _, q, _, pos, _, t, n, w, _, _, x, s, e = head
    start = SIZE
    queue = raw[start : start + q].decode("utf-8", "surrogatepass")
    start += q + t
    link = ""
    if n or flags & DERIVED:
        link = _link(id, flags, raw[start : start + n])
    start += n + w
    deaths, died_with, cause = 0, "", ""
    if x:
        deaths, died_with, _, _, cause = _extra(raw[start : start + x])
        start += x
    end = start + s
    prev = raw[end + e : end + e + p] if flags & PREV else None
    return Lease(
        id, queue, claim, raw[start:end], raw[end : end + e] if e else b"", prev, deaths, died_with, cause,
        int(num) if num else None, link, pos, (raw, head, at),
    )  # fmt: skip


def _link(id: str, flags: int, part: bytes) -> str:
    if flags & DERIVED:
        of, _, place = id.rpartition("~")
        return f"{place[0]}:{of}"
    return text(part)


def tells_link(step: Step) -> bool:
    """Whether the id of a claimed job tells the chain or group that it belongs to."""
    return bool(step.ref[1][4] & DERIVED)


def _extra(extra: bytes) -> tuple[int, str, str, str, str]:
    """Deaths, died with, what it is parked for, why, the cause of the last death."""
    deaths, d, k, y, c = _EXTRA.unpack_from(extra)
    at, parts = _EXTRA.size, list[str]()
    for n in (d, k, y, c):
        parts.append(text(extra[at : at + n]))
        at += n
    return deaths, parts[0], parts[1], parts[2], parts[3]


def _write_extra(deaths: int, *texts: str) -> bytes:
    parts = [key(one) for one in texts]
    return _EXTRA.pack(deaths, *map(len, parts)) + b"".join(parts)


def ref_of(raw: bytes, at: int) -> object:
    """What a Lease carries to make the next record of: the record, its head, and when it was claimed."""
    return raw, _unpack(raw), at


def written_again(step: Step, worker: bytes, name: str) -> tuple[bytes, int]:
    """What a settle stores, from its seq on, and when the job was first parked (0: never). `step.ref`: see `ref_of`."""
    raw, stored, at = step.ref
    _, _, num, seq, flags, p, priority, q, version, pos, _, t, n, w, _, _, x, s, e = stored
    kind = step.kind
    names_end = SIZE + q + t + n
    spec_at = names_end + w + x
    tail_at = spec_at + s
    extra = b""
    if x:
        extra = raw[spec_at - x : spec_at]
    if kind is not _END or step.died:
        extra = _extra_after(step, name, extra)
    tail = step.tail
    if tail is None or kind is _RELEASE:
        tail = raw[tail_at : tail_at + e]
    result = step.result if kind is _END else None
    flags &= PREV | DERIVED
    if result is None:
        result = b""
    else:
        flags |= RESULT
    prev = raw[tail_at + e : tail_at + e + p] if p else b""
    sizes = (len(extra), s, len(tail))
    head = _pack_ended(seq, flags, p, priority, q, version, pos, len(result), t, n, len(worker), step.claim, at, *sizes)
    return b"".join((head, raw[SIZE:names_end], worker, extra, raw[spec_at:tail_at], tail, prev, result)), int(num)


def _extra_after(step: Step, name: str, extra: bytes) -> bytes:
    deaths, died_with, _, _, cause = _extra(extra) if extra else (0, "", "", "", "")
    if step.died:
        return _write_extra(deaths + 1, name, "", "", step.reason)
    if step.kind is _PARK:
        return _write_extra(deaths, died_with, step.key, step.reason, cause)
    return _write_extra(deaths, died_with, "", "", cause) if deaths else b""


def row_of(id: str, raw: bytes, held: tuple[bytes, bytes, bytes | None] | None) -> Row:
    """A stored job; `held`: worker, token and progress of one that runs."""
    state, when, _, _, flags, p, priority, q, _, pos, r, t, n, w, _, claimed, x, s, e = _unpack(raw)
    at, parts = SIZE, list[bytes]()
    for size in (q, t, n, w, x, s, e, p, r):
        parts.append(raw[at : at + size])
        at += size
    queue, task, link, worker, extra, spec, tail, prev, result = parts
    deaths, died_with, _, reason, _ = _extra(extra) if extra else (0, "", "", "", "")
    shown = _STATES[state]
    progress: bytes | None = raw[at:] or None
    holder, claimed_at = text(worker) or died_with, int(claimed) if claimed else None
    ended = 4 <= state <= 6
    if held is not None:
        shown, holder, progress = State.RUNNING, text(held[0]), held[2]
        claimed_at = int(held[1].split(b":", 2)[1])
    return Row(
        id, text(queue), shown, spec, tail, prev if flags & PREV else None, result if flags & RESULT else None,
        priority, int(when) if when and not ended else None, holder, claimed_at, int(when) if ended else None, deaths,
        reason if shown is State.PARKED else "", progress, text(task), _link(id, flags, link), pos,
    )  # fmt: skip


def seq_of(raw: bytes) -> float:
    """In the order of submission."""
    return _unpack(raw)[3]


def groups_of(records: Iterable[Record]) -> list[list[Record]]:
    """Runs of records that differ only in id and content, in their order."""
    runs: list[list[Record]] = []
    last: tuple[object, ...] | None = None
    for record in records:
        alike = (record.queue, record.priority, record.link, record.due, record.held)
        if alike == last:
            runs[-1].append(record)
        else:
            runs.append([record])
            last = alike
    return runs
