"""The floor on Redis: a hand-written worker over two batched scripts, by the same client as the library.

Claim takes up to 300 ids, notes their owner and returns their records; settle checks the owner of each and writes
record, status and result with their retention. Slot coroutines on one deque run what was claimed, while the next claim
and the last settle are under way. No lease, no priority, no exact order, no chain, no retry, no reader that is told the
truth.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tasqueue.core.codec import Spec
from tasqueue.engines import redact
from tasqueue.engines.redis.client import Client
from tasqueue.engines.redis.target import parse

from .floors import CLAIM, SUBMIT, TASK, decode_spec, new_ids, new_spec, noop, now_ms, tail

SETTLE = 500
"""Jobs of one settle, at most: what has gathered."""
TOKEN = b"floor:1"
TIMEOUT, NAP = 30.0, 10
"""Seconds that a call may take, and that an idle worker waits in one."""

_SUBMIT = """
local ids = {}
for i = 1, #ARGV, 2 do
    if redis.call('SET', KEYS[1] .. 'r:' .. ARGV[i], ARGV[i + 1], 'NX') then ids[#ids + 1] = ARGV[i] end
end
if #ids > 0 then
    redis.call('RPUSH', KEYS[1] .. 'q', unpack(ids))
    if redis.call('LLEN', KEYS[1] .. 'wake') == 0 then redis.call('RPUSH', KEYS[1] .. 'wake', 1) end
end
return #ids
"""
_CLAIM = """
local ids = redis.call('LPOP', KEYS[1] .. 'q', ARGV[2])
if not ids then return {{}, {}} end
local records, owners = {}, {}
for i, id in ipairs(ids) do
    records[i] = KEYS[1] .. 'r:' .. id
    owners[2 * i - 1] = id
    owners[2 * i] = ARGV[1]
end
redis.call('HSET', KEYS[1] .. 'owners', unpack(owners))
return {ids, redis.call('MGET', unpack(records))}
"""
_SETTLE = """
local n = (#ARGV - 1) / 2
local ids = {unpack(ARGV, 2, 1 + n)}
local owners, ended = redis.call('HMGET', KEYS[1] .. 'owners', unpack(ids)), 0
for i = 1, n do
    if owners[i] == ARGV[1] then
        redis.call('SET', KEYS[1] .. 'r:' .. ids[i], ARGV[1 + n + i], 'EX', 86400)
        ended = ended + 1
    end
end
redis.call('HDEL', KEYS[1] .. 'owners', unpack(ids))
redis.call('XADD', KEYS[1] .. 'ended', '*', 'ids', table.concat(ids, ' '))
return ended
"""


def client_of(url: str, timeout: float = TIMEOUT) -> tuple[Client, bytes]:
    """For a URL that has a `?namespace=`; and what its keys begin with."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    prefix = b"{%b}:" % options.pop("namespace").encode()
    return Client(parse(parts, options, redact(url)), redact(url), prefix, timeout), prefix


async def remove(url: str) -> int:
    """Every key of the URL's namespace; how many there were."""
    client, prefix = client_of(url)
    cursor, removed = b"0", 0
    while True:
        cursor, keys = await client.command("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", 1000)
        if keys:
            removed += await client.command("UNLINK", *keys)
        if cursor == b"0":
            await client.close()
            return removed


async def version_of(url: str) -> str:
    """As `Valkey 9.1.2`. EngineUnavailable, soon: it is the first call."""
    client, _ = client_of(url, 2.0)
    said: bytes = await client.command("INFO", "server")
    await client.close()
    info = dict(line.split(":", 1) for line in said.decode().splitlines() if ":" in line)
    return f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"


class RedisFloor:
    """One worker or producer; `close()` leaves the keys to `remove`."""

    def __init__(self, client: Client, prefix: bytes) -> None:
        self._client = client
        self._prefix = prefix
        self._shas: dict[str, bytes] = {}
        self.stored = 0

    @classmethod
    async def open(cls, url: str, name: str = "floor") -> RedisFloor:
        """In the namespace of the URL, under this name."""
        client, prefix = client_of(url)
        floor = cls(client, b"%b%b:" % (prefix, name.encode()))
        for source in (_SUBMIT, _CLAIM, _SETTLE):
            floor._shas[source] = await client.command("SCRIPT", "LOAD", source)
        return floor

    async def _run(self, script: str, *args: object) -> Any:
        return await self._client.command("EVALSHA", self._shas[script], 1, self._prefix, *args)

    async def enqueue_one_by_one(self, n: int, payload: bytes) -> None:
        """A call each."""
        for _ in range(n):
            await self.enqueue(TASK, payload)

    async def enqueue(self, task: str, payload: bytes) -> None:
        """One job."""
        now = now_ms()
        (id,) = new_ids(1, now)
        await self._run(_SUBMIT, id, new_spec(payload, now, task))
        self.stored += 1

    async def enqueue_batches(self, n: int, payload: bytes, task: str = TASK) -> None:
        """A call for each batch."""
        for start in range(0, n, SUBMIT):
            now = now_ms()
            args: list[object] = []
            for id in new_ids(min(SUBMIT, n - start), now):
                args += (id, new_spec(payload, now, task))
            self.stored += await self._run(_SUBMIT, *args)

    async def drain(self, concurrency: int) -> None:
        """What was stored here, by so many slots."""

        async def run(spec: Spec) -> bytes:
            return await noop(spec.payload)

        await self.work(concurrency, run, self.stored)

    async def work(self, concurrency: int, run: Callable[[Spec], Awaitable[bytes]], n: float = math.inf) -> None:
        """Until so many have been settled."""
        ready: deque[tuple[bytes, bytes]] = deque()
        ids: list[bytes] = []
        records: list[bytes] = []
        arrived, ran, room = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slot() -> None:
            while True:
                while ready:
                    id, record = ready.popleft()
                    result = await run(decode_spec(record))
                    ids.append(id)
                    records.append(record + tail(now_ms()) + result)
                    ran.set()
                room.set()
                arrived.clear()
                await arrived.wait()

        async def claim() -> None:
            while True:
                taken, found = await self._run(_CLAIM, TOKEN, CLAIM)
                if not taken:
                    await self._client.command("BLPOP", self._prefix + b"wake", NAP)
                    continue
                ready.extend(zip(taken, found, strict=True))
                arrived.set()
                while len(ready) > CLAIM:  # one batch ahead, no more
                    room.clear()
                    await room.wait()

        async def settle() -> None:
            ended = 0
            while ended < n:
                await ran.wait()
                ran.clear()
                batch, written = ids[:SETTLE], records[:SETTLE]
                del ids[:SETTLE], records[:SETTLE]
                if ids:
                    ran.set()
                accepted = await self._run(_SETTLE, TOKEN, *batch, *written)
                if accepted != len(batch):
                    raise RuntimeError(f"the floor has settled {accepted:,} of {len(batch):,} jobs")
                ended += accepted

        async with asyncio.TaskGroup() as group:
            others = [group.create_task(slot()) for _ in range(concurrency)] + [group.create_task(claim())]
            await settle()
            for other in others:
                other.cancel()

    async def close(self) -> None:
        """The connections."""
        await self._client.close()
