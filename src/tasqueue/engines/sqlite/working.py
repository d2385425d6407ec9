"""The verbs of producers and workers: submit, register, claim, beat, retire, reclaim, promote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import starmap

from ... import faults
from ...core.record import Lease, Link, Record
from ...interfaces import Beat, Claim, WorkerGone
from . import links as link_ops
from .base import Base
from .lane import Tx

MOST = 1_000
"""Jobs that one call makes ready."""
STOOD_STILL = 3_000
"""A gap of more than so many ms between two reclaims: the machine slept or the clock jumped; no lease can be judged."""


class Working(Base):
    """See `Engine`; here is said only what is this engine's own."""

    _empty: tuple[str, int] = ("", 0)
    """The last claim that found nothing. It is not written down: an idle worker would wake every sleeper with it."""

    async def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        if not records and not links:
            return
        await self._write(
            partial(_submit, records, links), before="E2.before_write", ids=[record.id for record in records]
        )

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        await self._write(partial(_register, worker, lease, info, tasks, version), durable=False)
        self._empty = ("", 0)  # it may be another incarnation of that name, which counts anew

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        """`Lease.ref` is the row."""
        self._open().poller.mark()
        last = self._empty[1] if self._empty[0] == worker else 0
        claim = await self._write(partial(_claim, worker, number, last, wants), durable=False)
        if not claim.leases:
            self._empty = (worker, max(last, number))
        return claim

    async def beat(self, worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]] = ()) -> Beat:
        return await self._write(partial(_beat, worker, lease, info, progress), durable=False)

    async def retire(self, worker: str) -> int:
        return await self._write(partial(_retire, worker), durable=False)

    async def reclaim(self, worker: str = "", cause: str = "") -> list[str]:
        return await self._write(partial(_reclaim, worker, cause), durable=False)

    async def promote(self) -> int | None:
        return await self._write(_promote, durable=False)

    async def wait(self, queues: Sequence[str], until: int | None) -> None:
        seconds = None if until is None else (until - self._now()) / 1000
        await self._open().poller.wait(queues, seconds)


def insert(tx: Tx, records: Sequence[Record]) -> None:
    """Those that are new by id; the ready ones take places behind all others."""
    if not records:
        return
    first = tx.place(len(records))
    if _insert(tx, records, first) < len(records):
        # An id that has outlived its retention is new again, pruned or not.
        gone = [seq for record in records if (seq := tx.value("outlived_id", record.id, tx.now)) is not None]
        if gone:
            link_ops.forget_jobs(tx, gone)
            _insert(tx, records, first)
    tx.run("ready_new", first - 1, first + len(records) - 1)
    tx.news = True


def _insert(tx: Tx, records: Sequence[Record], first: int) -> int:
    """How many were new."""
    queue, priority, task = records[0].queue, records[0].priority, records[0].task
    values: list[object] = []
    for seq, record in enumerate(records, first):
        if (
            record.due is not None
            or record.link
            or record.prev is not None
            or record.held
            or record.queue != queue
            or record.task != task
            or record.priority != priority
        ):
            break
        values += (seq, record.id, record.spec)
    else:
        return tx.bulk("insert_alike", 3, values, (queue, priority, task))
    now = tx.now
    values = []
    for seq, record in enumerate(records, first):
        due = record.due
        state = 0 if record.held else 1 if due is None or due <= now else 2
        values += (
            seq,
            record.id,
            record.queue,
            record.priority,
            seq,
            state,
            due if state != 1 else None,
            record.task,
            record.link,
            record.pos,
            record.spec,
            record.prev,
        )
    return tx.bulk("insert_jobs", 12, values)


def _submit(records: Sequence[Record], links: Sequence[Link], tx: Tx) -> None:
    if links:
        fresh = {link.key for link in links if link_ops.insert(tx, link)}
        records = [record for record in records if not record.link or record.link in fresh]
        if faults.active:
            faults.point("G1.record_written")
    elif any(record.link for record in records):
        records = [record for record in records if not record.link]
    insert(tx, records)
    tx.passed.append("E3.written")


def _register(worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int, tx: Tx) -> None:
    tx.run("register", worker, tx.now + lease, lease, info)
    for name, queue in tasks.items():
        tx.run("announce", name, queue)
    for key in tx.column("park_keys"):
        if _unparks(key, tasks, version):
            unpark(tx, tx.column("parked_under", key))


def _unparks(key: str, tasks: Mapping[str, str], version: int) -> bool:
    what, _, name = key.partition(":")
    return name in tasks if what == "task" else what == "version" and name.isdecimal() and int(name) <= version


def unpark(tx: Tx, seqs: list[int]) -> None:
    """Ready at their old places."""
    for seq in seqs:
        tx.run("unpark", seq)
    tx.run("into_line", str(seqs))
    tx.news = True


def make_ready(tx: Tx, seqs: list[int]) -> None:
    """Ready at new places, in this order."""
    first = tx.place(len(seqs))
    for ord, seq in enumerate(seqs, first):
        tx.run("make_ready", ord, seq)
    tx.run("into_line", str(seqs))
    tx.news = True


def _claim(worker: str, number: int, last_empty: int, wants: Mapping[str, int], tx: Tx) -> Claim:
    row = tx.run("worker", worker).fetchone()
    if row is None:
        raise WorkerGone(f"worker {worker!r} was reclaimed, retired or never registered")
    nr, last = row[:2]
    paused = set(tx.column("paused_queues"))
    open = {queue: limit for queue, limit in wants.items() if queue not in paused}
    if number <= last or number <= last_empty:
        leases = list(starmap(Lease, tx.run("read_held", number, nr, number)))
    else:
        leases = list[Lease]()
        for queue, limit in open.items():
            _ripen(tx, queue)
            if limit > 0:
                leases += _take(tx, nr, number, queue, limit)
        if leases:
            tx.run("claimed", number, nr)
    if leases and tx.value("asked_any"):
        asked = set(tx.column("asked_among", str([lease.ref for lease in leases])))
        for lease in leases:
            lease.asked = lease.ref in asked
    dates = [at for queue in open if (at := tx.value("next_due", queue)) is not None]
    tx.passed.append("W2.claimed")
    return Claim(leases, min(dates, default=None))


def _ripen(tx: Tx, queue: str) -> None:
    seqs = tx.column("due_in", queue, tx.now, MOST)
    if seqs:
        faults.point("M1.due_read")
        make_ready(tx, seqs)
        tx.passed.append("M2.moved")


def _take(tx: Tx, nr: int, number: int, queue: str, limit: int) -> list[Lease]:
    """The first `limit` of the line: read, noted as running, and taken out as one range of places."""
    leases = list(starmap(Lease, tx.run("read_ready", number, queue, limit)))
    if not leases:
        return leases
    tx.run("take_ready", nr, number, tx.now, queue, limit)
    if len(leases) < limit:
        tx.run("leave_line_all", queue)
    else:
        prio, ord = tx.run("last_ready", queue, limit - 1).fetchone()
        tx.run("leave_line_above", queue, prio)
        tx.run("leave_line", queue, prio, ord)
    return leases


def _beat(worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]], tx: Tx) -> Beat:
    paused = sorted(tx.column("paused_queues"))
    row = tx.run("worker", worker).fetchone()
    if row is None:
        return Beat(lost=True, paused=paused)
    nr = row[0]
    tx.run("beat", tx.now + lease, lease, info, nr)
    for id, claim, note in progress:
        tx.run("progress", note, id, nr, claim)
    return Beat(False, tx.column("asked_of", nr), paused, bool(tx.value("draining", nr)))


def _retire(worker: str, tx: Tx) -> int:
    row = tx.run("worker", worker).fetchone()
    return 0 if row is None else len(_offer_again(tx, row[0]))


def _offer_again(tx: Tx, nr: int) -> list[int]:
    """What a worker held goes back to its old places, and all its tokens are worth nothing from now on."""
    seqs: list[int] = tx.column("held_by", nr)
    if seqs:
        text = str(seqs)
        tx.run("forget_tokens", text)
        tx.run("let_go", text)
        tx.run("into_line", text)
        tx.news = True
    tx.run("worker_gone", nr)
    return seqs


def _reclaim(worker: str, cause: str, tx: Tx) -> list[str]:
    now = tx.now
    if worker:
        row = tx.run("worker", worker).fetchone()
        dead = [] if row is None else [(row[0], worker, row[2])]
    else:
        last = tx.value("last_reclaim")
        tx.run("reclaim_now", now)
        if last is None or now - last > STOOD_STILL:
            tx.run("extend_all", now)
            return []
        dead = tx.run("expired", now).fetchall()
    if dead:
        faults.point("P1.expired_read")
        for nr, id, deadline in dead:
            seqs = _offer_again(tx, nr)
            tx.run("count_deaths", id, cause or f"its lease ended {now - deadline} ms ago", str(seqs))
        tx.passed.append("P2.offered")
    return [id for _, id, _ in dead]


def _promote(tx: Tx) -> int | None:
    found = tx.run("due_anywhere", tx.now, MOST).fetchall()
    if found:
        faults.point("M1.due_read")
        parked = [seq for seq, state in found if state == 7]
        due = [seq for seq, state in found if state == 2]
        if parked:
            unpark(tx, parked)
        if due:
            make_ready(tx, due)
        tx.passed.append("M2.moved")
    dates: tuple[int | None, int | None] = tx.run("next_due_anywhere").fetchone()
    return min((at for at in dates if at is not None), default=None)
