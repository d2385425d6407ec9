"""Words for the tests of the halves: a broker and results of each kind on a fresh store, and a way to let time pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests.services import Server

from tasqueue.clock import SYSTEM, Ports
from tasqueue.engines import memory, redact, redis, sqlite
from tasqueue.interfaces import Delivery, Message
from tasqueue.testing.clock import ManualClock

KINDS = ["memory", "sqlite", "redis"]


def half(role: str, url: str, namespace: str = "tasqueue", timeout: float = 2.0, ports: Ports = SYSTEM) -> Any:
    """A broker or results by URL, as `connect_pair` makes them."""
    package = {"memory": memory, "sqlite": sqlite}.get(urlsplit(url).scheme, redis)
    make = getattr(package, role)
    return make(urlsplit(url), {}, shown=redact(url), namespace=namespace, timeout=timeout, ports=ports)


class World:
    """One fresh store of a kind. `advance` lets time pass, in the store's own sense."""

    def __init__(self, kind: str, server: Server | None, folder: Path) -> None:
        self.kind = kind
        self._server = server
        self._folder = folder
        self._namespace = f"test-{uuid4().hex}"
        self._clock = ManualClock()
        self._open: list[Any] = []

    @property
    def url(self) -> str:
        if self.kind == "redis":
            assert self._server is not None
            return self._server.url
        return {"memory": f"memory://{self._namespace}", "sqlite": f"sqlite:///{self._folder}/half.db"}[self.kind]

    async def broker(self, namespace: str = "") -> Any:
        """Another object on the same store."""
        return await self._opened("broker", namespace)

    async def results(self, namespace: str = "") -> Any:
        return await self._opened("results", namespace)

    async def _opened(self, role: str, namespace: str) -> Any:
        ports = SYSTEM if self.kind == "redis" else self._clock.ports
        one = half(role, self.url, namespace or self._namespace, ports=ports)
        if hasattr(one, "open"):
            await one.open()
            self._open.append(one)
        return one

    async def close(self) -> None:
        for one in self._open:
            await one.close()

    async def now(self, broker: Any) -> int:
        """ms"""
        return int(1000 * (await broker.now() if hasattr(broker, "now") else self._clock.ports.now()))

    async def advance(self, seconds: float) -> None:
        if self.kind == "redis":
            await asyncio.sleep(seconds + 0.01)
        else:
            self._clock.advance(seconds + 0.001)  # its float is cut to ms


async def put(broker: Any, *ids: str, queue: str = "q", **fields: Any) -> None:
    await broker.enqueue(queue, [Message(id, b"body of " + id.encode("utf-8", "replace"), **fields) for id in ids])


async def taken(broker: Any, limit: int = 100, queue: str = "q", lease: float = 60) -> list[Delivery]:
    return list(await broker.consume(queue, limit, lease))


def ids(found: Any) -> list[str]:
    return [one.id for one in found]


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What the awaitable gave at last that is true."""
    async with asyncio.timeout(seconds):
        while True:
            found = await condition()
            if found:
                return found
            await asyncio.sleep(0.01)
