"""Schedules. A tick's job is stored first and the schedule moved second, so no tick is lost; its id is derived, so
none is doubled.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from ... import faults
from ...core.codec import same_job
from ...core.record import Schedule, Tick
from .base import Base
from .docs import VERSION, decoder, encode, new_job
from .store import Entry


class Stored(msgspec.Struct, array_like=True):
    """A schedule's record."""

    version: int
    entry: Schedule


_decode = decoder(Stored)


class Scheduling(Base):
    """See `Engine`."""

    async def put_schedule(self, entry: Schedule) -> bool:
        while True:
            stored = (await self._stored([entry.id]))[0]
            old = stored.doc.entry if stored is not None and stored.doc is not None else None
            if (
                old is not None
                and (old.schedule, old.task, old.queue) == (entry.schedule, entry.task, entry.queue)
                and same_job(old.job, entry.job)
            ):
                return False
            await self._store.add("schedules", [entry.id], 0)
            if await self._write(entry, stored):
                return True

    async def delete_schedule(self, id: str) -> bool:
        found = (await self._stored([id]))[0] is not None
        await self._store.delete([f"s:{id}"])
        await self._store.remove("schedules", [id])
        return found

    async def schedules(self, due: bool = False, limit: int = 1000) -> list[Schedule]:
        entries = await self._entries()
        if not due:
            return sorted(entries, key=lambda entry: entry.id)[:limit]
        now = await self.now()
        come = [entry for entry in entries if entry.next_at <= now and not entry.paused]
        return sorted(come, key=lambda entry: entry.next_at)[:limit]

    async def fire(self, ticks: Sequence[Tick]) -> list[bool]:
        now = await self.now()
        fired: list[bool] = []
        for tick in ticks:
            stored = (await self._stored([tick.schedule_id]))[0]
            entry = stored.doc.entry if stored is not None and stored.doc is not None else None
            if entry is None or entry.next_at != tick.expect:
                fired.append(False)
                continue
            await self._insert([new_job(tick.record, now)], now)
            if faults.active:
                faults.point("S2.tick_inserted")
            fired.append(await self._write(replace(entry, next_at=tick.next_at, last_at=tick.at), stored))
        return fired

    async def _entries(self) -> list[Schedule]:
        stored = await self._stored(await self._store.all("schedules"))
        return [one.doc.entry for one in stored if one is not None and one.doc is not None]

    async def _stored(self, ids: Sequence[str]) -> list[Entry[Stored] | None]:
        return await self._store.read([f"s:{id}" for id in ids], _decode)

    async def _write(self, entry: Schedule, over: Entry[Stored] | None) -> bool:
        return await self._store.set(f"s:{entry.id}", encode(Stored(VERSION, entry)), over and over.revision)
