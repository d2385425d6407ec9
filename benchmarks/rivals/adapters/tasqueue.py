"""Ours: `srv.run()`, one process, typed coroutines, everything else by default.

A job is acknowledged by the finish, which stores status and result in the same atomic step, if the worker's token still
holds it. Results are kept for a day. There is one setting. `bare`: what its enqueueing could cost at the least is a
call of a script that does nothing, with the same arguments, by the same client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import Any
from urllib.parse import urlsplit

import hiredis
from mark import URL, began, late

from tasqueue import Chain, Group, Server, __version__
from tasqueue.cli.bench.redis_floor import client_of

SETTINGS = {
    "": "srv.run(), one process, coroutines; finish, acknowledgement and result are one atomic step (the only setting)"
}
VERSIONS = {"tasqueue": __version__}  # which need not be installed
SCENARIOS = [
    "drain_10",
    "drain_100",
    "enqueue",
    "enqueue_100",
    "enqueue_many",
    "latency",
    "sleeps",
    "chains",
    "groups",
]
JOBS = 100_000
DONE = [("HGET", "{tasqueue}:n", "4")]


def _server(concurrency: int, url: str = URL) -> tuple[Server, dict[str, Any]]:
    srv = Server(url, default_concurrency=concurrency)

    @srv.task
    async def noop(a: int, b: int) -> int:
        began()
        return a + b

    @srv.task
    async def sleep(seconds: float) -> float:
        began()
        await asyncio.sleep(seconds)
        return seconds

    @srv.task
    async def stamp(sent: float) -> None:
        late(sent)

    return srv, {"noop": noop, "sleep": sleep, "stamp": stamp}


def work(concurrency: int) -> None:
    _server(concurrency)[0].run()


@asynccontextmanager
async def producer() -> AsyncIterator[Any]:
    srv, tasks = _server(1)
    async with srv:
        yield lambda task, *args: tasks[task].enqueue(*args)


@asynccontextmanager
async def bulk() -> AsyncIterator[Any]:
    srv, tasks = _server(1)
    async with srv:
        yield lambda task, many: srv.enqueue_many([tasks[task].job(*args) for args in many])


@asynccontextmanager
async def links() -> AsyncIterator[Any]:
    srv, tasks = _server(1)
    noop = tasks["noop"]
    async with srv:

        async def put_ten(kind: str) -> None:
            jobs = [noop.job(5, 4) for _ in range(10)]
            await (srv.enqueue_chain(Chain(jobs)) if kind == "chain" else srv.enqueue_group(Group(jobs)))

        yield put_ten


@asynccontextmanager
async def bare() -> AsyncIterator[Any]:
    args = await _arguments_of_an_enqueue()
    nothing = "return 1"
    client, _ = client_of(f"{URL}?namespace=bare")
    await client.command("SCRIPT", "LOAD", nothing)
    sha = sha1(nothing.encode(), usedforsecurity=False).hexdigest()
    yield lambda task, *_: client.command("EVALSHA", sha, *args)
    await client.close()


async def _arguments_of_an_enqueue() -> list[bytes]:
    """Those of its one call, as they pass by on their way to the server."""
    calls: list[list[bytes]] = []
    parts = urlsplit(URL)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, server = await asyncio.open_connection(parts.hostname, parts.port)
        back = asyncio.create_task(_copy(answers, writer))
        parser = hiredis.Reader()
        while data := await reader.read(1 << 16):
            parser.feed(data)
            while (call := parser.gets()) is not False:
                calls.append(call)
            server.write(data)
        server.close()
        await back

    async with await asyncio.start_server(pass_on, "127.0.0.1") as tap:
        srv, tasks = _server(1, f"redis://127.0.0.1:{tap.sockets[0].getsockname()[1]}/0")
        async with srv:
            await tasks["noop"].enqueue(5, 4)  # the server may not know the script yet
            await tasks["noop"].enqueue(5, 4)
    return next(call[2:] for call in reversed(calls) if call[0] == b"EVALSHA")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()
