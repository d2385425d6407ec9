"""The floor in memory by itself, the loop of `tasqueue bench`: `python benchmarks/floor_memory.py [JOBS]`."""

from __future__ import annotations

import asyncio
import sys
import time

from tasqueue.cli.bench.floors import MemoryFloor
from tasqueue.cli.bench.measures import PAYLOAD


async def main(n: int) -> None:
    for concurrency in (10, 100):
        store = MemoryFloor()
        began = time.perf_counter()
        await store.enqueue_batches(n, PAYLOAD)
        enqueued = time.perf_counter()
        await store.drain(concurrency)
        drained = time.perf_counter()
        rates = f"{n / (enqueued - began):,.0f} jobs/s enqueued, {n / (drained - enqueued):,.0f} drained"
        print(f"concurrency {concurrency}: {rates}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
