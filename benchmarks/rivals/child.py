"""A process of a library's own environment, which has nothing but that library: worker or producer.

`python child.py ROLE NAME [NUMBER …]`; the roles are at the end. An adapter is a module with

    SETTINGS    variant ("" or "fastest") -> how it is set up
    SCENARIOS   those of scenarios.py that it can do
    JOBS        of a drain
    LEFT, DONE  commands whose sum says how many jobs are left, or have ended; without one, the handlers are counted
    work(n)     be a worker of n jobs at once, for ever
    producer()  a context manager, async where the library is; gives `put(task, *args)`
    bulk()      the same; gives `put_many(task, [args, …])`
    links()     the same; gives `put_ten("chain" or "group")`
    bare()      the same; gives a call that is the least the enqueueing of a job could be
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

import mark

WARM_UP = 20
EVERY = 0.01
"""Seconds between two jobs when latency is measured."""
PATIENCE = 10.0
BATCH = 1000
ARGS = {"noop": (5, 4), "sleep": (0.01,)}

Calls = Iterable[tuple[Any, ...]]


def about(adapter: Any) -> dict[str, Any]:
    """What `run.py` has to know of it."""
    return {
        "settings": adapter.SETTINGS["fastest" if mark.FASTEST else ""],
        "jobs": adapter.JOBS,
        "scenarios": adapter.SCENARIOS,
        "left": getattr(adapter, "LEFT", None),
        "done": getattr(adapter, "DONE", None),
        "bulk": hasattr(adapter, "bulk"),
        "acknowledges": getattr(adapter, "ACKNOWLEDGES", True) and not mark.FASTEST,
        "versions": {one.metadata["Name"]: one.version for one in metadata.distributions()}
        | getattr(adapter, "VERSIONS", {}),
    }


def fill(adapter: Any, way: str, n: int, task: str) -> float:
    """Enqueue so many jobs in one of the ways; jobs/s."""
    args = ARGS[task]
    match way:
        case "one" | "hundred":
            seconds = _put(adapter.producer(), ((task, *args) for _ in range(n)), 1 if way == "one" else 100)
        case "bare":
            seconds = _put(adapter.bare(), ((task, *args) for _ in range(n)))
        case "bulk":
            sizes = (min(BATCH, n - start) for start in range(0, n, BATCH))
            seconds = _put(adapter.bulk(), ((task, [args] * size) for size in sizes))
        case _:
            seconds = _put(adapter.links(), ((way,) for _ in range(n // 10)))
    return n / seconds


def _put(producer: Any, calls: Calls, coroutines: int = 1) -> float:
    """The seconds that these calls take."""
    if isinstance(producer, AbstractAsyncContextManager):
        return run(_put_async(producer, calls, coroutines))
    with producer as put:
        start = time.monotonic()
        for call in calls:
            put(*call)
        return time.monotonic() - start


async def _put_async(producer: AbstractAsyncContextManager[Any], calls: Calls, coroutines: int) -> float:
    async with producer as put:

        async def some() -> None:
            for call in calls:  # all take from the same
                await put(*call)

        start = time.monotonic()
        if coroutines == 1:
            await some()
        else:
            await asyncio.gather(*(some() for _ in range(coroutines)))
        return time.monotonic() - start


def offer(adapter: Any, n: int) -> None:
    """Enqueue to an idle worker: some jobs of which each waits for the one before, then `n`, so far apart."""
    producer = adapter.producer()
    if isinstance(producer, AbstractAsyncContextManager):
        return run(_offer(producer, n))
    with producer as put:
        for k in range(WARM_UP):
            put("stamp", time.monotonic())
            _arrived(k + 1, time.sleep)
        following = time.monotonic()
        for _ in range(n):
            following += EVERY
            time.sleep(max(0.0, following - time.monotonic()))
            put("stamp", time.monotonic())
        _arrived(WARM_UP + n, time.sleep)
    return None


async def _offer(producer: AbstractAsyncContextManager[Any], n: int) -> None:
    async with producer as put:
        for k in range(WARM_UP):
            await put("stamp", time.monotonic())
            await asyncio.to_thread(_arrived, k + 1, time.sleep)
        following = time.monotonic()
        for _ in range(n):
            following += EVERY
            await asyncio.sleep(max(0.0, following - time.monotonic()))
            await put("stamp", time.monotonic())
        await asyncio.to_thread(_arrived, WARM_UP + n, time.sleep)


def _arrived(n: int, sleep: Callable[[float], None]) -> None:
    until = time.monotonic() + PATIENCE
    while not mark.FILE.exists() or mark.FILE.stat().st_size < n * mark.MOMENT.size:
        if time.monotonic() > until:
            raise TimeoutError(f"{n} jobs have not begun within {PATIENCE:.0f} s")
        sleep(0.001)


def run(main: Any) -> Any:
    """With uvloop where it is installed."""
    with new_runner() as runner:
        return runner.run(main)


def new_runner() -> asyncio.Runner:
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def main(role: str, name: str, *rest: str) -> None:
    adapter = importlib.import_module(f"adapters.{name}")
    match role:
        case "about":
            print(json.dumps(about(adapter)))
        case "work":
            adapter.work(int(rest[0]))
        case "fill":
            way, n, task = rest
            print(fill(adapter, way, int(n), task))
        case "offer":
            offer(adapter, int(rest[0]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
