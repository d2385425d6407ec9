"""The Redis engine beside a plain loop of two batched scripts, on a server of its own.

    PYTHONPATH=src:. python benchmarks/floor_redis.py [JOBS] [ROUNDS] [URL]

The floor: claim = one script (LPOP n, one HSET of the owners, one MGET), settle = one script (one HMGET of the owners,
SET EX for each job that is still ours, one HDEL, one XADD); records are msgpack arrays, decoded and encoded; enqueue =
SET NX each and one RPUSH. No lease, no priority, no exact order, no chain, no retry, no reader that is shown the truth.

Rounds are interleaved; the best of each is told, with the CPU of this process and of the server per job.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import redis.asyncio
import uvloop
from tests import services

from tasqueue.clock import SYSTEM
from tasqueue.core import codec
from tasqueue.core.codec import Tail
from tasqueue.core.ids import uuid7
from tasqueue.core.job import DEFAULT_QUEUE, Job
from tasqueue.core.record import Kind, Lease, Record, Step
from tasqueue.core.status import State, Status
from tasqueue.engines import connect

SUBMIT, CLAIM = 1000, 300
NOW = 1_764_000_000_000
DAY = 86_400_000
SPEC = codec.encode_spec(Job("noop", b"x" * 100), NOW)
RESULT = b"0123456789"

ENQUEUE = """
local ids = {}
for i = 1, #ARGV, 2 do
    if redis.call('SET', 'f:r:' .. ARGV[i], ARGV[i + 1], 'NX') then ids[#ids + 1] = ARGV[i] end
end
if #ids > 0 then redis.call('RPUSH', 'f:q', unpack(ids)) end
return #ids
"""
TAKE = """
local ids = redis.call('LPOP', 'f:q', ARGV[2])
if not ids then return {{}, {}} end
local keys, owners = {}, {}
for i, id in ipairs(ids) do
    keys[i] = 'f:r:' .. id
    owners[2 * i - 1] = id
    owners[2 * i] = ARGV[1]
end
redis.call('HSET', 'f:owners', unpack(owners))
return {ids, redis.call('MGET', unpack(keys))}
"""
SETTLE = """
local n = (#ARGV - 1) / 2
local ids = {unpack(ARGV, 2, 1 + n)}
local owners, ok = redis.call('HMGET', 'f:owners', unpack(ids)), 0
for i = 1, n do
    if owners[i] == ARGV[1] then
        redis.call('SET', 'f:r:' .. ids[i], ARGV[1 + n + i], 'EX', 86400)
        ok = ok + 1
    end
end
redis.call('HDEL', 'f:owners', unpack(ids))
redis.call('XADD', 'f:ok', '*', 'ids', table.concat(ids, ' '))
return ok
"""


def _ids(n: int) -> list[str]:
    return [uuid7(NOW + i // 100, os.urandom(10)) for i in range(n)]


async def floor(url: str, ids: list[str], timed: Callable[[str, Awaitable[None]], Awaitable[None]]) -> None:
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    enqueue, take, settle = map(client.register_script, (ENQUEUE, TAKE, SETTLE))

    async def store() -> None:
        for start in range(0, len(ids), SUBMIT):
            args: list[Any] = []
            for id in ids[start : start + SUBMIT]:
                args += (id, codec.encode_spec(Job("noop", b"x" * 100), NOW))
            await enqueue(args=args)

    async def drain() -> None:
        while True:
            taken, records = await take(args=["w:1", CLAIM])
            if not taken:
                break
            done: list[Any] = []
            for record in records:
                codec.decode_spec(record)
                done.append(record + _tail() + RESULT)
            await settle(args=["w:1", *taken, *done])

    await timed("floor enqueue", store())
    await timed("floor drain", drain())
    await client.flushdb()
    await client.aclose()


def _tail() -> bytes:
    return codec.encode_tail(Tail(1, Status.SUCCESSFUL, 0, NOW, NOW + 1, "host-1234-abcdef"))


def _step(lease: Lease) -> Step:
    codec.decode_spec(lease.spec)
    return Step(lease.id, lease.claim, Kind.END, State.SUCCESSFUL, _tail(), RESULT, ttl=DAY, ref=lease.ref)


async def engine(url: str, ids: list[str], timed: Callable[[str, Awaitable[None]], Awaitable[None]]) -> None:
    one = connect(url, namespace="bench", timeout=10.0, ports=SYSTEM)
    await one.open()

    async def store() -> None:
        for start in range(0, len(ids), SUBMIT):
            await one.submit(
                [
                    Record(id, DEFAULT_QUEUE, "noop", codec.encode_spec(Job("noop", b"x" * 100), NOW))
                    for id in ids[start : start + SUBMIT]
                ]
            )

    async def drain() -> None:
        await one.register("w", 60_000, b"", {}, 1)
        number = 0
        while True:
            number += 1
            claim = await one.claim("w", number, {DEFAULT_QUEUE: CLAIM})
            if not claim.leases:
                break
            await one.settle("w", [_step(lease) for lease in claim.leases])

    await timed("engine enqueue", store())
    await timed("engine drain", drain())
    await one.close()
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    await client.flushdb()
    await client.aclose()


async def main(n: int, rounds: int, url: str, server_cpu: Callable[[], float]) -> None:
    best: dict[str, tuple[float, float, float]] = {}

    async def timed(name: str, work: Awaitable[None]) -> None:
        cpu, theirs, began = time.process_time(), server_cpu(), time.perf_counter()
        await work
        took = time.perf_counter() - began
        figure = (n / took, (time.process_time() - cpu) / n * 1e6, (server_cpu() - theirs) / n * 1e6)
        best[name] = max(best.get(name, figure), figure)

    for _ in range(rounds):
        await floor(url, _ids(n), timed)
        await engine(url, _ids(n), timed)
    for name, (speed, cpu, theirs) in best.items():
        print(f"{name:16} {speed:>10,.0f} jobs/s   {cpu:5.2f} us/job here   {theirs:5.2f} us/job in the server")
    for what in ("enqueue", "drain"):
        print(f"{what:16} {best[f'engine {what}'][0] / best[f'floor {what}'][0]:10.2f} of the floor")


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with nullcontext() if len(sys.argv) > 3 else services.server() as server:
        where = sys.argv[3] if server is None else server.url
        uvloop.run(main(jobs, turns, where, (lambda: 0.0) if server is None else lambda: _cpu_of(server.pid)))
