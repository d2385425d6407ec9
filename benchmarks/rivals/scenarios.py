"""What is measured of a library: each function begins with an empty server and gives figures by name.

The clock is the machine's monotonic one, the same in all processes.
"""

from __future__ import annotations

import struct
from typing import Any

from library import OURS, Failed, Library, counted, until

LATE = 200
"""Jobs whose latency is measured."""
WARM_UP = 20
ONE_BY_ONE = 5_000
SLEEPS = 2_000
UNITS = {
    "drain_10": "jobs/s",
    "drain_100": "jobs/s",
    "enqueue": "jobs/s",
    "latency_p50": "ms",
    "latency_p99": "ms",
    "sleeps": "jobs/s",
}
TITLES = {
    "drain_10": "no-op jobs, concurrency 10",
    "drain_100": "no-op jobs, concurrency 100",
    "enqueue": "enqueue, one by one",
    "latency_p50": "latency, idle worker, p50",
    "latency_p99": "latency, idle worker, p99",
    "sleeps": "10 ms sleeps, concurrency 100 (ideal 10,000)",
}


def measure(library: Library, redis: Any, n: int) -> dict[str, float]:
    """All of its scenarios; `n` jobs in a drain."""
    has = library.scenarios or ["drain_10", "drain_100", "latency", "sleeps"]
    found: dict[str, float] = {}
    for concurrency in (10, 100):
        if f"drain_{concurrency}" in has:
            found["enqueue"], found[f"drain_{concurrency}"] = _drain(library, redis, n, concurrency, "noop")
    if library.name == OURS:
        redis.flushall()
        found["enqueue"] = float(library.call("fill", min(n, ONE_BY_ONE), "noop"))
    if "latency" in has:
        found |= _latency(library, redis)
    if "sleeps" in has:
        _, found["sleeps"] = _drain(library, redis, min(n, SLEEPS), 100, "sleep")
    return found


def _drain(library: Library, redis: Any, n: int, concurrency: int, task: str) -> tuple[float, float]:
    """The queue is filled first, one by one, but ours; then from the first start to the last stored result. Jobs/s."""
    what = f"{task} at concurrency {concurrency}"
    redis.flushall()
    library.forget()
    filled = float(library.call("fill", n, task, *(["bulk"] if library.name == OURS else [])))
    before = counted(redis, library)
    if not library.counts_done and before != n:
        raise Failed(f"{what}: {before} of {n} jobs are in the queue")
    target = before + n if library.counts_done else 0

    def ready() -> bool:
        now = counted(redis, library)
        return now >= target if library.counts_done else now <= target

    with library.worker(concurrency) as process:
        until(library.mark.exists, process, library, f"{what}: first start")
        end = until(ready, process, library, what)
        return filled, n / (end - float(library.mark.read_text(encoding="ascii")))


def _latency(library: Library, redis: Any) -> dict[str, float]:
    """From the call that enqueues to the first line of the handler, in another process."""
    redis.flushall()
    library.forget()
    with library.worker(10) as process:
        library.call("offer", LATE)
        if process.poll() is not None:
            raise Failed(f"latency: the worker has ended ({library.last_words()})")
    data = library.mark.read_bytes()
    seconds = sorted(struct.unpack(f"<{len(data) // 8}d", data)[WARM_UP:])
    return {f"latency_p{p}": seconds[max(0, -(-len(seconds) * p // 100) - 1)] * 1000 for p in (50, 99)}
