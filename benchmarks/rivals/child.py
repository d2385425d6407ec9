"""A process of a library's own environment, which has nothing but that library: worker or producer.

`python child.py ROLE NAME [NUMBER …]`; the roles are at the end.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

import mark

WARM_UP = 20
EVERY = 0.01
"""Seconds between two jobs when latency is measured."""
PATIENCE = 10.0


def about(adapter: Any) -> dict[str, Any]:
    """What `run.py` has to know of it."""
    return {
        "settings": adapter.SETTINGS,
        "jobs": adapter.JOBS,
        "scenarios": getattr(adapter, "SCENARIOS", None),
        "left": getattr(adapter, "LEFT", None),
        "done": getattr(adapter, "DONE", None),
        "versions": {one.metadata["Name"]: one.version for one in metadata.distributions()}
        | getattr(adapter, "VERSIONS", {}),
    }


def fill(adapter: Any, n: int, task: str, *args: Any) -> float:
    """Enqueue one by one; jobs/s."""
    producer = adapter.producer()
    if isinstance(producer, AbstractAsyncContextManager):
        return run(_fill(producer, n, task, args))
    with producer as put:
        start = time.monotonic()
        for _ in range(n):
            put(task, *args)
        return n / (time.monotonic() - start)


async def _fill(producer: AbstractAsyncContextManager[Any], n: int, task: str, args: tuple[Any, ...]) -> float:
    async with producer as put:
        start = time.monotonic()
        for _ in range(n):
            await put(task, *args)
        return n / (time.monotonic() - start)


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
            task, args = ("noop", (5, 4)) if rest[1] == "noop" else ("sleep", (0.01,))
            bulk = getattr(adapter, "fill", None)
            if bulk is not None and rest[2:] == ("bulk",):
                print(run(bulk(int(rest[0]), task, *args)))
            else:
                print(fill(adapter, int(rest[0]), task, *args))
        case "offer":
            offer(adapter, int(rest[0]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(*sys.argv[1:])
