"""What the engine and the halves start from: lanes, a poller, and the one way to post a call and wait for its
answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ...clock import Ports
from ...errors import EngineUnavailable
from ...interfaces import Durability, Engine
from . import database, errors
from .durability import examine
from .lane import Lane, Op, Tx
from .sql import ENGINE, Layout, Sql
from .wake import Poller, ring

T = TypeVar("T")

_abandoned: list[object] = []
"""What a fork has copied into this process. It is never closed nor collected: that would drop the parent's locks."""


class _Open:
    """The connections of one engine object, on one loop of one process."""

    __slots__ = ("loop", "pid", "poller", "reader", "writer")

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: Lane, reader: Lane | None, poller: Poller) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.writer = writer
        self.reader = reader
        self.poller = poller

    def abandon(self) -> None:
        """The loop has been closed: nobody waits any more."""
        self.poller.close()
        for lane in (self.writer, self.reader):
            if lane is not None:
                lane.abandon()


class Connected:
    """What works with a set of tables in a file, on one event loop."""

    layout: Layout = ENGINE

    def __init__(self, path: str, *, namespace: str, timeout: float, ports: Ports, synchronous: str = "FULL") -> None:
        self.url = f"sqlite:///{path}" + ("" if namespace == "tasqueue" else f"?namespace={namespace}")
        self._path = path
        self._namespace = namespace
        self._timeout = timeout
        self._ports = ports
        self._synchronous = database.check_synchronous(synchronous)
        self._sql = Sql(namespace, self.layout)
        self._now_open: _Open | None = None

    def _now(self) -> int:
        return int(self._ports.now() * 1000)

    def _open(self) -> _Open:
        """Connect on first use, and anew after a fork or on another loop."""
        loop = asyncio.get_running_loop()
        open = self._now_open
        if open is not None:
            if open.loop is loop and open.pid == os.getpid():
                return open
            if open.pid != os.getpid():
                _abandoned.append(open)
            elif not open.loop.is_closed():
                raise RuntimeError(
                    "this engine belongs to another event loop that is still running; use twin() for this one"
                )
            else:
                open.abandon()
        writer = self._lane(loop, writes=True)
        self._now_open = open = _Open(loop, writer, None, Poller(self._path, self._sql, loop, self._now, self._over))
        return open

    def _lane(self, loop: asyncio.AbstractEventLoop, *, writes: bool) -> Lane:
        rang = partial(ring, os.path.realpath(self._path)) if writes else None
        return Lane(self._path, self._sql, self._ports, loop, synchronous=self._synchronous, rang=rang)

    async def _write(
        self, fn: Callable[[Tx], T], *, durable: bool = True, before: str = "", ids: Sequence[str] = ()
    ) -> T:
        """Run it in the writing lane. `durable`: the answer means that it is on the disk."""
        return await self._call(self._open().writer, fn, durable, before, tuple(ids))

    async def _read(self, fn: Callable[[Tx], T]) -> T:
        """Run it in the reading lane, beside whatever is being written."""
        open = self._open()
        if open.reader is None:
            open.reader = self._lane(open.loop, writes=False)
        return await self._call(open.reader, fn, False, "", ())

    async def _call(self, lane: Lane, fn: Callable[[Tx], T], durable: bool, before: str, ids: tuple[str, ...]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        lane.post(Op(fn, future, durable, before, ids))
        timer = loop.call_later(self._timeout, self._late, lane, future, ids)
        try:
            return await future
        finally:
            timer.cancel()

    def _late(self, lane: Lane, future: asyncio.Future[Any], ids: tuple[str, ...]) -> None:
        if not future.done():
            message = (
                errors.locked(self._path, self._timeout)
                if lane.blocked
                else f"{self._path}: no answer from the disk within {self._timeout:g} s"
            )
            future.set_exception(EngineUnavailable(message, ids=ids))

    async def close(self) -> None:
        open, self._now_open = self._now_open, None
        if open is None:
            return
        open.poller.close()
        for lane in (open.writer, open.reader):
            if lane is not None and open.loop is asyncio.get_running_loop():
                await lane.stop(self._timeout + 1)

    async def open(self) -> None:
        await self._write(lambda tx: None, durable=False)

    async def durability(self) -> Durability:
        return await self._read(lambda tx: examine(tx.connection, self._path, self._synchronous))

    async def _over(self, ids: list[str], keys: list[str]) -> set[str]:
        """Which of these jobs and links have ended or do not exist."""
        raise NotImplementedError


class Base(Connected, Engine):
    """The state of one engine object; the verbs are in `working`, `operating` and `reading`."""
