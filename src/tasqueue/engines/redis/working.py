"""The verbs of producers and workers: submit, register, claim, beat, retire, reclaim, promote, wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ... import faults
from ...core.record import Lease, Link, Record
from ...interfaces import Beat, Claim, WorkerGone
from .base import Base, keys, span
from .layout import groups_of, key, lease_of, rest_of, template, text

MOST = 1_000
"""Jobs that one call makes ready."""
AT_ONCE = 500
"""Jobs that `submit_ready` takes."""
STOOD_STILL = 3_000
"""A gap of more than so many ms between two reclaims: the server slept or its clock jumped; no lease can be judged."""
NAP = 5_000
"""ms: `wait` returns of itself after that, so that a job whose wake-up went to a frozen engine is found."""


class Working(Base):
    """See `Engine`; here is said only what is this engine's own."""

    _next_due: int | None = None

    async def submit(self, records: Sequence[Record], links: Sequence[Link] = ()) -> None:
        """What meets a full memory is refused whole."""
        if faults.active:
            faults.point("E2.before_write")
        ids = [record.id for record in records]
        plain = None if links or len(records) > AT_ONCE else plain_submission(records)
        if plain is None or not await self._client().run("submit_ready", plain, durable=True, ids=ids):
            args = submission(records, links)
            if len(args) > 1:
                await self._client().run("submit", args, durable=True, ids=ids)
        if faults.active:
            if links:
                faults.point("G1.record_written")
            faults.point("E3.written")

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        args: list[object] = [key(worker), lease, info, version]
        for name, queue in tasks.items():
            args += (key(name), key(queue))
        await self._run("register", *args)

    async def claim(self, worker: str, number: int, wants: Mapping[str, int]) -> Claim:
        """`Lease.ref` is the record as stored, and when it was claimed."""
        listener = self._listener()
        if not listener.stands:
            await listener.ready()
        listener.news.difference_update(wants)
        args: list[object] = [key(worker), number, listener.name]
        for queue, limit in wants.items():
            args += (key(queue), limit)
        reply = await self._run("claim", *args)
        if reply is None:
            raise WorkerGone(f"worker {worker!r} was reclaimed, retired or never registered")
        now, due, moved, short, asked = reply[:5]
        listener.note(map(text, short))
        self._next_due = due
        if faults.active:
            if moved:
                faults.point("M1.due_read")
                faults.point("M2.moved")
            faults.point("W2.claimed")
        leases = _leases(number, now, reply)
        if asked:
            told = set(map(text, asked))
            for lease in leases:
                lease.asked = lease.id in told
        return Claim(leases, due)

    async def beat(self, worker: str, lease: int, info: bytes, progress: Sequence[tuple[str, int, bytes]] = ()) -> Beat:
        args: list[object] = [key(worker), lease, info]
        for id, claim, note in progress:
            args += (key(id), claim, note)
        lost, drain, cancels, paused = await self._run("beat", *args)
        return Beat(bool(lost), list(map(text, cancels)), sorted(map(text, paused)), bool(drain))

    async def retire(self, worker: str) -> int:
        return (await self._run("reclaim", "retire", key(worker), "", 0, again=False))[0]

    async def reclaim(self, worker: str = "", cause: str = "") -> list[str]:
        mode = "one" if worker else "expired"
        _, *dead = await self._run("reclaim", mode, key(worker), key(cause), STOOD_STILL, again=False)
        if dead and faults.active:
            faults.point("P1.expired_read")
            faults.point("P2.offered")
        return list(map(text, dead))

    async def promote(self) -> int | None:
        moved, earliest, now = await self._run("promote", MOST)
        self._moment = (self._ports.mono(), now)
        if moved and faults.active:
            faults.point("M1.due_read")
            faults.point("M2.moved")
        return earliest

    async def wait(self, queues: Sequence[str], until: int | None) -> None:
        listener = self._listener()
        if listener.news.intersection(queues):
            return
        if not listener.stands:
            await listener.ready()
        due = self._next_due
        if not listener.idle.issuperset(queues):
            ready, now, due = await self._run("idle", listener.name, *keys(queues))
            self._moment = (self._ports.mono(), now)
            if ready:
                return
            listener.note(queues)
        until = min((at for at in (until, due) if at is not None), default=None)
        span = NAP if until is None else min(NAP, until - await self.now())
        await listener.sleep_for_work(queues, span / 1000)

    async def now(self) -> int:
        return await self._time()


def plain_submission(records: Sequence[Record]) -> list[object] | None:
    """The arguments of `submit_ready`; None when these are not all for it."""
    if not records:
        return None
    queue, priority = records[0].queue, records[0].priority
    args: list[object] = [key(queue), priority]
    for record in records:
        if record.queue != queue or record.priority != priority or record.link or record.held or record.due is not None:
            return None
        args += (key(record.id), rest_of(record))
    return args if len({record.id for record in records}) == len(records) else None


def submission(records: Sequence[Record], links: Sequence[Link]) -> list[object]:
    """The arguments of a submit; a single one when there is nothing to store."""
    args: list[object] = [len(links)]
    if links or any(record.link for record in records):
        mine: dict[str, list[object]] = {link.key: [] for link in links}
        for record in records:
            if record.link in mine:
                mine[record.link] += (record.pos, key(record.id))
        records = [record for record in records if not record.link or record.link in mine]
        for link in links:
            args += (key(link.key), link.n, span(link.result_ttl), span(link.failed_ttl), link.max_prev)
            args += (b"".join(map(template, link.on_success)), b"".join(map(template, link.on_error)))
            args.append(len(mine[link.key]) // 2)
            args += mine[link.key]
    unique: dict[str, Record] = {}
    for record in records:
        unique.setdefault(record.id, record)
    for run in groups_of(unique.values()):
        one = run[0]
        due: object = "" if one.due is None else one.due
        args += (key(one.queue), one.priority, key(one.link), f"held{due}" if one.held else due, len(run))
        for record in run:
            args.append(record.id.encode("utf-8", "surrogatepass"))
            args.append(rest_of(record))
    return args


def _leases(number: int, now: int, reply: Sequence[list[bytes | None]]) -> list[Lease]:
    leases: list[Lease] = []
    for i in range(5, len(reply), 2):
        taken, records = reply[i], reply[i + 1]
        ids, tokens = taken[::2], taken[1::2]
        for id, token, raw in zip(ids, tokens, records, strict=True):
            if raw is None or id is None or token is None:
                continue
            # Of a claim that is repeated the whole token is told, with the time of the first one.
            at = int(token.split(b":", 2)[1]) if b":" in token else now
            leases.append(lease_of(id.decode("utf-8", "surrogatepass"), raw, number, at))
    return leases
