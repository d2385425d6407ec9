"""Results in a file: values with a revision, and indexes by time.

Invariant: revisions come from one counter, so none comes back after a deletion or an expiry. What has expired is not
there for anybody, whether it was deleted yet or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from ...interfaces import Conflict
from .half import Half
from .lane import Tx
from .sql import RESULTS


class SqliteResults(Half):
    """See `Results`."""

    layout = RESULTS

    async def get(self, keys: Sequence[str]) -> Sequence[tuple[bytes, int] | None]:
        return await self._read(lambda tx: [tx.run("get", key, tx.now).fetchone() for key in keys])

    async def set(self, key: str, value: bytes, *, expect: int | None, ttl: float | None) -> int:
        return await self._write(partial(_set, key, value, expect, ttl))

    async def delete(self, keys: Sequence[str]) -> None:
        def delete(tx: Tx) -> None:
            for key in keys:
                tx.run("delete", key)

        await self._write(delete)

    async def index_add(self, index: str, ids: Sequence[str], at: float) -> None:
        def add(tx: Tx) -> None:
            values: list[object] = []
            for nr, id in enumerate(ids, tx.place(len(ids))):
                values += (index, id, at, nr)
            tx.bulk("index_add", 4, values)

        await self._write(add)

    async def index_page(self, index: str, limit: int, after: str | None) -> Sequence[str]:
        def page(tx: Tx) -> list[str]:
            place = None if after is None else tx.run("index_place", index, after).fetchone()
            return (
                tx.column("index_newest", index, limit)
                if place is None
                else tx.column("index_before", index, *place, limit)
            )

        return await self._read(page)

    async def index_remove(self, index: str, ids: Sequence[str]) -> None:
        def remove(tx: Tx) -> None:
            for id in ids:
                tx.run("index_remove", index, id)

        await self._write(remove)


def _set(key: str, value: bytes, expect: int | None, ttl: float | None, tx: Tx) -> int:
    tx.run("forget", tx.now)
    revision = tx.place(1)
    gone_at = None if ttl is None else tx.now + math.ceil(1000 * ttl)
    if expect is None:
        tx.run("delete_expired", key, tx.now)
        written = tx.run("insert", key, value, revision, gone_at).rowcount
    else:
        written = tx.run("update", value, revision, gone_at, key, expect, tx.now).rowcount
    if not written:
        raise Conflict(f"{key!r} has another revision than {expect}, or is gone")
    return revision
