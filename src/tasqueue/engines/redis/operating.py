"""The verbs of operators and of the scheduler: schedules, cancel, reopen, delete, pause, drain, prune."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from ... import faults
from ...core.codec import same_job
from ...core.record import Schedule, Tick
from ...errors import EngineUnavailable
from ...interfaces import Cancelled, PauseRow
from .base import Base, keys, span, told
from .layout import key, rest_of, text

MOST = 1_000
"""What one call forgets."""
ATTEMPTS = 20
_DATES = struct.Struct("<dd")
_NEVER = -1.0


class _Entry(msgspec.Struct, array_like=True):
    """A schedule without its id and dates."""

    schedule: bytes
    task: bytes
    queue: bytes
    priority: int
    job: bytes
    anchor: int
    paused: bool


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode
_texts = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode


class Operating(Base):
    """See `Engine`."""

    async def put_schedule(self, entry: Schedule) -> bool:
        next_tick: object = "" if entry.paused else entry.next_at
        for _ in range(ATTEMPTS):
            stored = await self._read("HGET", "scheds", key(entry.id))
            if stored is not None:
                old = _schedule(entry.id, stored)
                alike = (old.schedule, old.task, old.queue) == (entry.schedule, entry.task, entry.queue)
                if alike and same_job(old.job, entry.job):
                    return False
            if await self._run("put_schedule", key(entry.id), stored or b"", _stored(entry), next_tick, again=False):
                return True
        raise EngineUnavailable(f"{self.url}: schedule {entry.id!r} is written by others all the time; try again")

    async def delete_schedule(self, id: str) -> bool:
        return bool(await self._run("delete_schedule", key(id), again=False))

    async def schedules(self, due: bool = False, limit: int = 1000) -> list[Schedule]:
        now = 0
        if due:
            now = await self.now()
            found = await self._read("ZRANGEBYSCORE", "ticks", "-inf", now, "LIMIT", 0, limit)
        else:
            found = sorted(await self._read("HKEYS", "scheds"), key=text)[:limit]
        if not found:
            return []
        stored = await self._read("HMGET", "scheds", *found)
        entries = [_schedule(text(id), data) for id, data in zip(found, stored, strict=True) if data is not None]
        # Between the two reads somebody else may have fired a tick.
        return [entry for entry in entries if entry.next_at <= now and not entry.paused] if due else entries

    async def fire(self, ticks: Sequence[Tick]) -> list[bool]:
        if not ticks:
            return []
        args: list[object] = []
        for tick in ticks:
            record = tick.record
            due: object = "" if record.due is None else record.due
            args += (key(tick.schedule_id), tick.expect, tick.at, tick.next_at)
            args += (key(record.queue), record.priority, due, key(record.id), rest_of(record))
        fired = [bool(one) for one in await self._run("fire", *args, again=False)]
        if any(fired):
            faults.point("S2.tick_inserted")
        return fired

    async def cancel(self, ids: Sequence[str], ttl: int | None) -> list[Cancelled]:
        if not ids:
            return []
        groups, callbacks, *answers = await self._run("cancel", span(ttl), *keys(ids), again=False)
        told(groups, callbacks)
        return [Cancelled(done=answer == 2, asked=answer == 1) for answer in answers]

    async def cancel_link(self, key: str, ttl: int | None) -> bool:
        groups, callbacks, done = await self._run("cancel_link", *keys([key]), span(ttl), again=False)
        told(groups, callbacks)
        return bool(done)

    async def reopen(self, id: str, ended_at: int, tail: bytes) -> bool:
        return bool(await self._run("reopen", key(id), ended_at, tail, again=False))

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        return [bool(one) for one in await self._run("delete", *keys(ids), again=False)] if ids else []

    async def pause(self, queue: str, reason: str, by: str) -> None:
        await self._run("pause", key(queue), _encode((key(reason), key(by))))

    async def resume(self, queue: str) -> None:
        await self._run("pause", key(queue), b"")

    async def paused(self) -> list[PauseRow]:
        found = await self._read("HGETALL", "paused")
        rows: list[PauseRow] = []
        for queue, entry in zip(found[::2], found[1::2], strict=True):
            reason, by = _texts(entry[8:])
            (at,) = struct.unpack_from("<d", entry)
            rows.append(PauseRow(text(queue), text(reason), text(by), int(at)))
        return sorted(rows, key=lambda row: row.queue)

    async def drain(self, worker: str) -> bool:
        return bool(await self._run("drain", key(worker)))

    async def prune(self) -> int:
        return await self._run("prune", MOST, again=False)


def _stored(entry: Schedule) -> bytes:
    last = _NEVER if entry.last_at is None else float(entry.last_at)
    rest = _Entry(
        key(entry.schedule), key(entry.task), key(entry.queue), entry.priority, entry.job, entry.anchor, entry.paused
    )
    return _DATES.pack(entry.next_at, last) + _encode(rest)


def _schedule(id: str, stored: bytes) -> Schedule:
    next_at, last_at = _DATES.unpack_from(stored)
    rest = _decode(stored[_DATES.size :])
    return Schedule(
        id, text(rest.schedule), text(rest.task), text(rest.queue), rest.priority, rest.job, rest.anchor, int(next_at),
        None if last_at == _NEVER else int(last_at), rest.paused,
    )  # fmt: skip
