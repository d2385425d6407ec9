"""The floor, `tasqueue.cli.bench.redis_floor`: two batched scripts, slot coroutines, the token checked, nothing else.

Its handlers get what everybody's get: arguments are decoded, what they return is encoded and stored for a day. An idle
worker is woken by a blocking pop on a wake list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from child import run
from mark import URL, began, late

from tasqueue import __version__, pack
from tasqueue.cli.bench.redis_floor import RedisFloor
from tasqueue.core.codec import Spec

SETTINGS = {"": "claims of 300, settles of at most 500, token checked, slot coroutines on one deque, uvloop; no lease"}
VERSIONS = {"floor": __version__}
SCENARIOS = ["drain_10", "drain_100", "enqueue", "enqueue_many", "latency", "sleeps"]
JOBS = 200_000
LEFT = [("LLEN", "{floor}:floor:q"), ("HLEN", "{floor}:floor:owners")]

_WHERE = f"{URL}?namespace=floor"
_arguments = msgspec.msgpack.Decoder(tuple[list[Any], dict[str, Any]]).decode
_encode = msgspec.msgpack.Encoder().encode


async def noop(a: int, b: int) -> int:
    began()
    return a + b


async def sleep(seconds: float) -> float:
    began()
    await asyncio.sleep(seconds)
    return seconds


async def stamp(sent: float) -> None:
    late(sent)


HANDLERS: dict[str, Any] = {"noop": noop, "sleep": sleep, "stamp": stamp}


async def _handle(spec: Spec) -> bytes:
    args, options = _arguments(spec.payload)
    return _encode(await HANDLERS[spec.task](*args, **options))


def work(concurrency: int) -> None:
    async def start() -> None:
        floor = await RedisFloor.open(_WHERE)
        await floor.work(concurrency, _handle)

    run(start())


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    floor = await RedisFloor.open(_WHERE)
    yield lambda task, *args: floor.enqueue(task, pack(*args))
    await floor.close()


@asynccontextmanager
async def bulk() -> AsyncIterator[Any]:
    floor = await RedisFloor.open(_WHERE)
    yield lambda task, many: floor.enqueue_batches(len(many), pack(*many[0]), task)
    await floor.close()
