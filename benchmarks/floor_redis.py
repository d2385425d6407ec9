"""The Redis engine's own verbs beside the floor of `tasqueue bench`, without a runtime, on a server of its own.

    PYTHONPATH=src:. python benchmarks/floor_redis.py [JOBS] [ROUNDS] [URL]

Engine: submit 1,000 at a time; claim 300, decode, settle, one after the other. Floor: its submit and its drain. Rounds
are interleaved; the best of each is told, with the CPU of this process and of the server per job.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path

import uvloop
from tests import services

from tasqueue import pack
from tasqueue.cli.bench.floors import CLAIM, DAY, RESULT, SUBMIT, decode_spec, new_ids, new_spec, now_ms, tail
from tasqueue.cli.bench.redis_floor import RedisFloor, remove
from tasqueue.clock import SYSTEM
from tasqueue.core.job import DEFAULT_QUEUE
from tasqueue.core.record import Kind, Lease, Record, Step
from tasqueue.core.status import State
from tasqueue.engines import connect
from tasqueue.interfaces import Engine

PAYLOAD = pack(5, 4)
NAMESPACE = "floor-redis"

Timed = Callable[[str, Awaitable[None]], Awaitable[None]]


async def floor(url: str, n: int, timed: Timed) -> None:
    one = await RedisFloor.open(url)
    await timed("floor enqueue", one.enqueue_batches(n, PAYLOAD))
    await timed("floor drain", one.drain(10))
    await one.close()


async def submit(engine: Engine, n: int) -> None:
    """No-op jobs."""
    for start in range(0, n, SUBMIT):
        now = now_ms()
        ids = new_ids(min(SUBMIT, n - start), now)
        await engine.submit([Record(id, DEFAULT_QUEUE, "noop", new_spec(PAYLOAD, now)) for id in ids])


def finish(lease: Lease, ttl: int = DAY) -> Step:
    """It has run and ended well."""
    decode_spec(lease.spec)
    now = now_ms()
    return Step(lease.id, lease.claim, Kind.END, State.SUCCESSFUL, tail(now), RESULT, ttl=ttl, ref=lease.ref)


async def drain(engine: Engine) -> None:
    await engine.register("w", 60_000, b"", {}, 1)
    number = 0
    while True:
        number += 1
        claim = await engine.claim("w", number, {DEFAULT_QUEUE: CLAIM})
        if not claim.leases:
            break
        await engine.settle("w", [finish(lease) for lease in claim.leases])


async def engine(url: str, n: int, timed: Timed) -> None:
    one = connect(url, namespace=NAMESPACE, timeout=10.0, ports=SYSTEM)
    await one.open()
    await timed("engine enqueue", submit(one, n))
    await timed("engine drain", drain(one))
    await one.close()


async def main(n: int, rounds: int, url: str, server_cpu: Callable[[], float]) -> None:
    best: dict[str, tuple[float, float, float]] = {}
    url = f"{url}?namespace={NAMESPACE}"

    async def timed(name: str, work: Awaitable[None]) -> None:
        cpu, theirs, began = time.process_time(), server_cpu(), time.perf_counter()
        await work
        took = time.perf_counter() - began
        figure = (n / took, (time.process_time() - cpu) / n * 1e6, (server_cpu() - theirs) / n * 1e6)
        best[name] = max(best.get(name, figure), figure)

    for _ in range(rounds):
        for way in (floor, engine):
            await way(url, n, timed)
            await remove(url)
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
