"""What is measured of the library. Each function is one measurement, run in a process of its own (`child.py`).

The clock is the monotonic one of the machine, the same for all processes: a latency may begin in one and end in
another.
"""

from __future__ import annotations

import asyncio
import importlib
import struct
from collections.abc import Sequence
from time import process_time

import msgspec

from tasqueue import Job, JobCtx, Server, pack
from tasqueue.clock import SYSTEM
from tasqueue.events import Settled

from .floors import RESULT, SUBMIT, TASK, Floor, MemoryFloor, SqliteFloor

PAYLOAD = pack(5, 4)
EVERY = 0.01
"""Seconds between two jobs when latency is measured."""
WARM_UP = 20
"""Jobs that are run, and not counted, before latency is measured."""

_moment = struct.Struct("<d")
mono = SYSTEM.mono


class Case(msgspec.Struct):
    """What to measure: `n` jobs (or `few`, one by one) in the store of this URL. `path`: the floor's SQLite file.

    The URL of a Redis has a `?namespace=` that is the benchmark's own.
    """

    what: str
    url: str = ""
    path: str = ""
    n: int = 0
    few: int = 0
    concurrency: int = 10


async def floor(case: Case) -> dict[str, float]:
    """The plain loop: all of it in one process."""
    found: dict[str, float] = {}
    for concurrency in (10, 100):
        store = await _floor(case, f"{concurrency}")
        began = mono()
        await store.enqueue_batches(case.n, PAYLOAD)
        found["enqueue_many"] = case.n / (mono() - began)
        began, used = mono(), process_time()
        await store.drain(concurrency)
        found[f"drain_{concurrency}"] = case.n / (mono() - began)
        found["cpu"] = (process_time() - used) / case.n * 1e6
        await store.close()
    store = await _floor(case, "few")
    began = mono()
    await store.enqueue_one_by_one(case.few, PAYLOAD)
    found["enqueue_one"] = case.few / (mono() - began)
    await store.close()
    return found


async def _floor(case: Case, name: str) -> Floor:
    if case.url:
        from .redis_floor import RedisFloor  # the driver need not be installed for the others

        return await RedisFloor.open(case.url, f"floor-{name}")
    return SqliteFloor(f"{case.path}-{name}") if case.path else MemoryFloor()


async def remove(case: Case) -> dict[str, float]:
    """What measurements have left on a Redis."""
    from .redis_floor import remove

    return {"removed": await remove(case.url)}


async def enqueue_one(case: Case) -> dict[str, float]:
    """One `await srv.enqueue(job)` after another."""
    async with Server(case.url) as srv:
        began = mono()
        for _ in range(case.few):
            await srv.enqueue(Job(TASK, PAYLOAD))
        return {"enqueue_one": case.few / (mono() - began)}


async def enqueue_many(case: Case) -> dict[str, float]:
    """Batches of 1,000; making the jobs counts, too."""
    async with Server(case.url) as srv:
        return await _fill(srv, case.n)


async def drain(case: Case) -> dict[str, float]:
    """What `enqueue_many` has left, by a worker in this process, and the memory that it has then."""
    async with Server(case.url) as srv:
        return await _drain(srv, case.n, case.concurrency)


async def fill_and_drain(case: Case) -> dict[str, float]:
    """Both, for a store that lives in one process."""
    async with Server(case.url) as srv:
        return await _fill(srv, case.n) | await _drain(srv, case.n, case.concurrency)


async def _fill(srv: Server, n: int) -> dict[str, float]:
    began = mono()
    for start in range(0, n, SUBMIT):
        await srv.enqueue_many([Job(TASK, PAYLOAD) for _ in range(min(SUBMIT, n - start))])
    return {"enqueue_many": n / (mono() - began)}


async def _noop(payload: bytes, ctx: JobCtx) -> None:
    ctx.save(RESULT)


async def _drain(srv: Server, n: int, concurrency: int) -> dict[str, float]:
    """From `start()` until the last finish is stored."""
    importlib.import_module("tasqueue.runtime.worker")  # loading it is no part of the work

    srv.register_task(TASK, _noop, concurrency=concurrency)
    ended, left = asyncio.Event(), n

    def settled(event: Settled) -> None:
        nonlocal left
        left -= event.steps
        if left <= 0:
            ended.set()

    srv.on(Settled, settled)
    began, used = mono(), process_time()
    working = asyncio.create_task(srv.start())
    await _or_fail(ended, working)
    seconds, used = mono() - began, process_time() - used
    found = {f"drain_{concurrency}": n / seconds, "cpu": used / n * 1e6, "rss": _rss()}
    await srv.stop()
    await working
    return found


async def latency(case: Case) -> dict[str, float]:
    """From the call of `enqueue` to the first line of the handler, in one process."""
    async with Server(case.url) as srv:
        times, working = await _idle_worker(srv, case.n)
        await _offer(srv, case.n)
        return await _all_times(srv, times, working)


async def latency_worker(case: Case) -> dict[str, float]:
    """The same with the producer in another process, told to begin by a line on stdout."""
    async with Server(case.url) as srv:
        times, working = await _idle_worker(srv, case.n)
        print("ready", flush=True)
        return await _all_times(srv, times, working)


async def latency_producer(case: Case) -> dict[str, float]:
    """That producer."""
    async with Server(case.url) as srv:
        await _offer(srv, case.n)
    return {}


class _Times:
    def __init__(self, n: int) -> None:
        self.seconds: list[float] = []
        self.n = n
        self.warm = asyncio.Event()
        self.ended = asyncio.Event()

    async def handler(self, payload: bytes, ctx: JobCtx) -> None:
        now = mono()
        if not payload:
            self.warm.set()
            return
        self.seconds.append(now - _moment.unpack(payload)[0])
        if len(self.seconds) == self.n:
            self.ended.set()


async def _idle_worker(srv: Server, n: int) -> tuple[_Times, asyncio.Task[None]]:
    times = _Times(n)
    srv.register_task(TASK, times.handler, concurrency=10)
    working = asyncio.create_task(srv.start())
    for _ in range(WARM_UP):
        times.warm.clear()
        await srv.enqueue(Job(TASK))
        await _or_fail(times.warm, working)
    return times, working


async def _offer(srv: Server, n: int) -> None:
    following = mono()
    for _ in range(n):
        following += EVERY
        await asyncio.sleep(following - mono())
        await srv.enqueue(Job(TASK, _moment.pack(mono())))


async def _all_times(srv: Server, times: _Times, working: asyncio.Task[None]) -> dict[str, float]:
    await _or_fail(times.ended, working)
    await srv.stop()
    await working
    return {f"latency_p{p}": percentile(times.seconds, p) * 1000 for p in (50, 95, 99)}


async def _or_fail(event: asyncio.Event, working: asyncio.Task[None]) -> None:
    """Wait for the event, or for the worker's untimely end."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait((waiting, working), return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        working.result()
        raise RuntimeError("the worker has stopped before the end of the measurement")


def percentile(values: Sequence[float], p: int) -> float:
    """The nearest-rank percentile."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * p // 100) - 1)]


def _rss() -> float:
    """Resident memory now, in MiB; where there is no /proc, the most it was."""
    import resource
    import sys
    from pathlib import Path

    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


MEASURES = {
    measure.__name__: measure
    for measure in (
        floor,
        enqueue_one,
        enqueue_many,
        drain,
        fill_and_drain,
        latency,
        latency_worker,
        latency_producer,
        remove,
    )
}
