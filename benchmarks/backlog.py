"""A backlog on Valkey or Redis: a million jobs wait, one worker process drains them, on a server of its own.

    PYTHONPATH=src:. python benchmarks/backlog.py [--jobs N] [--out STEM] [--note TEXT]

Told are how long a claim of 100 takes with the full backlog and with a short queue, the memory of the worker over the
drain and of the server, and whether the keys are those of before once all has expired. STEM.json and STEM.md are
written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop
from floor_redis import finish, submit
from redis import Redis
from tests import services

from tasqueue import Job, JobCtx, Server, pack
from tasqueue.clock import SYSTEM
from tasqueue.core.job import DEFAULT_QUEUE
from tasqueue.engines import connect
from tasqueue.interfaces import Engine

NAMESPACE = "backlog"
CLAIM, CLAIMS = 100, 1_000
SHORT = 1_000
"""Jobs of a short queue."""
TTL = 30
"""Seconds that the results are kept."""
EVERY = 0.1
"""Seconds between two looks at the memory."""
PATIENCE = 300.0
PAYLOAD = pack(5, 4)


def make(url: str) -> Server:
    srv = Server(url, namespace=NAMESPACE, result_ttl=TTL)

    async def noop(payload: bytes, ctx: JobCtx) -> None:
        ctx.save(b"9")

    srv.register_task("noop", noop, concurrency=100)
    return srv


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process, told to stop at the end."""
    with subprocess.Popen([sys.executable, __file__, "--work", url]) as process:
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            if process.wait(PATIENCE):
                raise RuntimeError(f"the worker has ended with {process.returncode}")
        finally:
            process.kill()


async def enqueue(url: str, n: int) -> float:
    """Jobs/s."""
    async with make(url) as srv:
        began = time.monotonic()
        for start in range(0, n, 1000):
            await srv.enqueue_many([Job("noop", PAYLOAD) for _ in range(min(1000, n - start))])
        return n / (time.monotonic() - began)


@asynccontextmanager
async def engine(url: str) -> AsyncIterator[Engine]:
    """One that is registered as the worker `probe`."""
    one = connect(url, namespace=NAMESPACE, timeout=30.0, ports=SYSTEM)
    await one.open()
    await one.register("probe", 60_000, b"", {}, 1)
    try:
        yield one
    finally:
        await one.retire("probe")
        await one.close()


async def claims(url: str, waiting: int = 0) -> list[float]:
    """What each claim took, in ms; the jobs are finished. With so many waiting each time, or those that there are."""
    took: list[float] = []
    async with engine(url) as one:
        await submit(one, max(0, waiting - CLAIM))
        for number in range(1, CLAIMS + 1):
            if waiting:
                await submit(one, CLAIM)
            began = time.perf_counter()
            claim = await one.claim("probe", number, {DEFAULT_QUEUE: CLAIM})
            took.append((time.perf_counter() - began) * 1000)
            assert len(claim.leases) == CLAIM, f"claim {number} gave {len(claim.leases)} jobs"
            await one.settle("probe", [finish(lease, TTL * 1000) for lease in claim.leases])
    return took


def percentiles(took: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def rss(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def until(ready: Callable[[], bool], what: str) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(what)
        time.sleep(EVERY)
    return time.monotonic() - began


def memory(redis: Any) -> float:
    """Of the server, in MiB."""
    return redis.info("memory")["used_memory"] / 2**20


def keys(redis: Any) -> list[str]:
    return sorted(key.decode() for key in redis.scan_iter(count=1000))


def settled_keys(redis: Any, url: str) -> list[str]:
    """Those of a worker that has had work, when all of it has expired and the worker is gone."""
    with worker(url):
        uvloop.run(enqueue(url, SHORT))
        until(lambda: redis.zcard(_key("q:" + DEFAULT_QUEUE)) == 0, "a first drain")
        time.sleep(1)  # the last are running
        until(lambda: redis.exists(_key("exp")) == 0, "a first expiry")
    return keys(redis)


def _key(name: str) -> str:
    return f"{{{NAMESPACE}}}:{name}"


def measure(redis: Any, url: str, n: int) -> dict[str, Any]:
    tell("the keys of a queue that had work")
    before, empty = settled_keys(redis, url), memory(redis)
    tell("claims of a short queue")
    with_short = percentiles(uvloop.run(claims(url, SHORT)))
    with worker(url):  # what it has left
        until(lambda: redis.exists(_key("exp")) == 0, "the expiry of a short queue")
    tell(f"enqueueing {n:,}")
    enqueued = uvloop.run(enqueue(url, n))
    full = memory(redis)
    tell("claims of the backlog")
    with_backlog = percentiles(uvloop.run(claims(url)))
    left = redis.zcard(_key("q:" + DEFAULT_QUEUE))
    tell(f"draining {left:,}")
    samples: list[float] = []
    waiting: list[tuple[float, int]] = []
    peak = full
    with worker(url) as process:
        until(lambda: redis.zcard(_key("q:" + DEFAULT_QUEUE)) < left, "a first claim")
        began = time.monotonic()

        def drained() -> bool:
            nonlocal peak
            samples.append(rss(process.pid))
            peak = max(peak, memory(redis))
            waiting.append((time.monotonic(), redis.zcard(_key("q:" + DEFAULT_QUEUE))))
            return waiting[-1][1] == 0

        until(drained, "the drain")
        seconds = time.monotonic() - began
        at_end = rss(process.pid)
        tell("expiry")
        expired = until(lambda: redis.exists(_key("exp")) == 0, "the expiry")
        idle = rss(process.pid)
    after = keys(redis)
    early = samples[len(samples) // 20]
    return {
        "enqueue": {"jobs": n, "jobs/s": enqueued},
        "claim of 100, ms": {
            "short queue": with_short,
            "backlog": with_backlog,
            "p50 ratio": with_backlog["p50"] / with_short["p50"],
            "p99 ratio": with_backlog["p99"] / with_short["p99"],
        },
        "drain": {"jobs": left, "jobs/s": left / seconds, "seconds": seconds, "jobs/s by tenths": tenths(waiting)},
        "worker, MiB": {
            "after 5 %": early,
            "most": max(samples),
            "at the end": at_end,
            "after the expiry": idle,
            "most / after 5 %": max(samples) / early,
            "samples": samples[:: max(1, len(samples) // 50)],
        },
        "server, MiB": {
            "empty": empty,
            "backlog": full,
            "most": peak,
            "after the expiry": memory(redis),
            "bytes/job waiting": (full - empty) * 2**20 / n,
        },
        "expiry": {
            "result_ttl, s": TTL,
            "seconds after the drain": expired,
            "keys before": before,
            "keys after": after,
            "same keys": before == after,
        },
    }


def tenths(waiting: list[tuple[float, int]]) -> list[int]:
    """The speed over the drain: whether it depends on how many wait."""
    step = max(1, len(waiting) // 10)
    marks = waiting[::step]
    return [round((more - less) / (later - sooner)) for (sooner, more), (later, less) in pairwise(marks)]


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def markdown(report: dict[str, Any]) -> str:
    found, machine = report["found"], report["machine"]
    claim, drain, mine, server, expiry = (
        found[key] for key in ("claim of 100, ms", "drain", "worker, MiB", "server, MiB", "expiry")
    )
    few, many = claim["short queue"], claim["backlog"]
    n = found["enqueue"]["jobs"]
    rows = [
        (
            f"a claim of {CLAIM} with {SHORT:,} jobs waiting, p50 / p99",
            f"{few['p50']:.2f} / {few['p99']:.2f} ms",
            "",
        ),
        (
            f"the same with {n:,}",
            f"{many['p50']:.2f} / {many['p99']:.2f} ms",
            f"{claim['p50 ratio']:.2f} / {claim['p99 ratio']:.2f} times; aim: p99 ≤ 2",
        ),
        ("enqueued, 1,000 at a time", f"{found['enqueue']['jobs/s']:,.0f} jobs/s", ""),
        (f"drained, {drain['jobs']:,} jobs", f"{drain['jobs/s']:,.0f} jobs/s", f"{drain['seconds']:.1f} s"),
        (
            "worker, after 5 % / most / at the end",
            f"{mine['after 5 %']:.1f} / {mine['most']:.1f} / {mine['at the end']:.1f} MiB",
            f"{mine['most / after 5 %']:.2f} times; aim: flat",
        ),
        (
            "server, empty / with the backlog / most / after the expiry",
            f"{server['empty']:.1f} / {server['backlog']:.0f} / {server['most']:.0f} / "
            f"{server['after the expiry']:.1f} MiB",
            f"{server['bytes/job waiting']:.0f} bytes for a job that waits",
        ),
        (
            "keys before / after drain and expiry",
            f"{len(expiry['keys before'])} / {len(expiry['keys after'])}",
            f"the same: {'yes' if expiry['same keys'] else 'NO'}; {expiry['seconds after the drain']:.0f} s after the "
            f"drain, results kept for {expiry['result_ttl, s']} s",
        ),
    ]
    lines = [
        "# A backlog",
        "",
        f"{report['at']}. {machine}; {report['python']}; {report['server']}, appendonly no, save no; load before "
        f"{report['load'][0]}, after {report['load'][1]}.",
        *(["", report["note"]] if report["note"] else []),
        "",
        "| figure | value | |",
        "|---|--:|---|",
        *(f"| {name} | {value} | {more} |" for name, value, more in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="One worker and a million jobs.")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "backlog")
    parser.add_argument("--note", default="", help="what a reader should know, as what else was running")
    parser.add_argument("--work", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        make(options.work).run()
        return
    with services.server() as server, Redis(port=server.port) as redis:
        load = os.getloadavg()[0]
        info = redis.info("server")
        found = measure(redis, server.url, options.jobs)
        report = {
            "format": 1,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()} {platform.machine()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "server": f"Valkey {info['valkey_version']}"
            if "valkey_version" in info
            else f"Redis {info['redis_version']}",
            "load": [round(load, 2), round(os.getloadavg()[0], 2)],
            "note": options.note,
            "found": found,
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
