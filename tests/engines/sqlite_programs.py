"""What the processes of `test_sqlite_processes` run: `python -m tests.engines.sqlite_programs PROGRAM FILE ARGUMENTS…`.

Each says on standard output what the engine told it, a line at a time: so the test knows, even when it is killed.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable

from tasqueue.clock import SYSTEM
from tasqueue.core.record import Kind, Record, Step
from tasqueue.core.status import State
from tasqueue.engines.sqlite import SqliteEngine, database
from tasqueue.errors import EngineUnavailable


def engine(path: str, timeout: float = 10) -> SqliteEngine:
    return SqliteEngine(path, namespace="tasqueue", timeout=timeout, ports=SYSTEM)


def record(id: str, spec: bytes = b"spec") -> Record:
    return Record(id, "q", "t", spec)


def say(*words: object) -> None:
    print(*words, flush=True)


async def same_ids(path: str, n: str, batch: str) -> None:
    """Submit ids 0 to n - 1, so many at a time."""
    one = engine(path)
    for start in range(0, int(n), int(batch)):
        await one.submit([record(str(i)) for i in range(start, min(int(n), start + int(batch)))])
    await one.close()


async def submit_forever(path: str, name: str, wal_limit: str = "8000000") -> None:
    """Batches of ten, each told when it is acknowledged; with a small limit nearly each is followed by a checkpoint."""
    database.WAL_LIMIT = int(wal_limit)
    one = engine(path)
    for batch in range(1_000_000):
        await one.submit([record(f"{name}-{batch}-{i}", b"s" * 200) for i in range(10)])
        say(batch)


async def work_forever(path: str, name: str) -> None:
    """Claim and end what there is, each told when its end is acknowledged."""
    one = engine(path)
    await one.register(name, 60_000, b"", {}, 1)
    for number in range(1, 1_000_000):
        claim = await one.claim(name, number, {"q": 5})
        steps = [Step(lease.id, lease.claim, Kind.END, State.SUCCESSFUL, b"t", ref=lease.ref) for lease in claim.leases]
        if steps and all(await one.settle(name, steps)):
            say(*(step.id for step in steps))
        if not steps:
            break
    say("empty")


async def wait_for_jobs(path: str, n: str) -> None:
    """Claim n jobs as they come; a spec is the time (monotonic, ns) of its submit. Tells the delays in ms."""
    one = engine(path)
    await one.register("waiter", 60_000, b"", {}, 1)
    number, delays = 0, list[float]()
    say("waiting")
    while len(delays) < int(n):
        number += 1
        claim = await one.claim("waiter", number, {"q": 10})
        delays += [(time.monotonic_ns() - int(lease.spec)) / 1e6 for lease in claim.leases]
        if not claim.leases:
            await one.wait(["q"], await one.now() + 20_000)
    say(*delays)
    await one.close()


async def watch_job(path: str, id: str) -> None:
    """Tells when it has ended."""
    one = engine(path)
    await one.open()
    say("watching")
    await one.watch([("job", id)], None)
    rows = await one.get([id])
    say(rows[0].state.name if rows[0] else "gone", time.monotonic_ns())
    await one.close()


async def full_disk(path: str) -> None:
    """No file may grow beyond 200 kB, for a while."""
    one = engine(path, timeout=3)
    await one.open()
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
    stored = 0
    try:
        while True:
            await one.submit([record(f"{stored}-{i}", b"s" * 1_000) for i in range(10)])
            stored += 1
    except EngineUnavailable as error:
        say(stored, len(error.ids), error)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await one.submit([record(f"{stored}-{i}", b"s" * 1_000) for i in range(10)])
    say("healed", (await one.counts()).queues["q"][State.READY])
    await one.close()


async def locked_for(path: str, seconds: str) -> None:
    """Hold the write lock."""
    import sqlite3

    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    say("locked")
    await asyncio.sleep(float(seconds))
    other.execute("ROLLBACK")
    other.close()


def forked(path: str) -> None:
    """An engine that was in use goes on in parent and child."""
    import os

    one = engine(path)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(one.submit([record("before")]))
    child = os.fork()
    if child == 0:
        asyncio.run(one.submit([record("child")]))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    loop.run_until_complete(one.submit([record("parent")]))
    rows = loop.run_until_complete(one.get(["before", "child", "parent"]))
    loop.run_until_complete(one.close())
    loop.close()
    say(*(row.id for row in rows if row))


PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    program.__name__: program
    for program in (same_ids, submit_forever, work_forever, wait_for_jobs, watch_job, full_disk, locked_for)
}

if __name__ == "__main__":
    if sys.argv[1] == "forked":
        forked(sys.argv[2])
    else:
        asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))  # type: ignore[arg-type]
