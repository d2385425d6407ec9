"""A TCP proxy that misbehaves on demand: cuts after so many bytes, gives no answer, swallows replies. With a
certificate, it is the TLS in front of a server that has none.

It lives in a thread with a loop of its own, so that a blocked test cannot hold it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class Proxy:
    """Listens on `port` of the loopback and passes everything on to `target`. To be used as a context."""

    def __init__(self, target: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._connections: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._server: asyncio.Server | None = None
        self._speaking = asyncio.Event()
        self._speaking.set()
        self._up: int | None = None
        """Bytes to the server that still pass; then everything is cut. None: all."""
        self._down: int | None = None
        """The same of its answers."""
        self._swallow = False
        self.cuts = 0
        self.sent = 0
        """Bytes passed on to the server."""
        self.port = 0

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- misbehaving --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Within it nothing passes and nothing is refused; what was sent meanwhile is lost, with its connections."""
        self._call(self._hush)
        try:
            yield
        finally:
            self._call(self._speak)

    def cut_after(self, up: int | None = None, down: int | None = None) -> None:
        """Cut every connection once that many more bytes have passed in that direction, once."""
        self._call(self._set, "_up", up)
        self._call(self._set, "_down", down)

    def swallow_reply(self) -> None:
        """The next answer is not passed on: its connection is cut instead, once."""
        self._call(self._set, "_swallow", True)

    def cut(self) -> None:
        """Cut all connections now."""
        self._call(self._cut_all)

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _call(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        async def run() -> T:
            return await fn(*args)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _set(self, name: str, value: object) -> None:
        setattr(self, name, value)

    async def _speak(self) -> None:
        await self._cut_all()
        self._speaking.set()

    async def _hush(self) -> None:
        self._speaking.clear()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self._speaking.set()
        await self._cut_all()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut_all(self) -> None:
        for pair in list(self._connections):
            self._cut(pair)

    def _cut(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._connections.discard(pair)
        for writer in pair:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, server)
        self._connections.add(pair)
        try:
            await asyncio.gather(self._pump(reader, server, pair, True), self._pump(upstream, writer, pair, False))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._cut(pair)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        up: bool,
    ) -> None:
        while data := await reader.read(1 << 16):
            await self._speaking.wait()
            if pair not in self._connections:
                return
            if not up and self._swallow:
                self._swallow = False
                self._cut(pair)
                self.cuts += 1
                return
            left = self._up if up else self._down
            if left is not None:
                if len(data) >= left:
                    writer.write(data[:left])
                    await writer.drain()
                    self._up = self._down = None
                    self.cuts += 1
                    for other in pair:
                        other.close()
                    self._connections.discard(pair)
                    return
                if up:
                    self._up = left - len(data)
                else:
                    self._down = left - len(data)
            if up:
                self.sent += len(data)
            writer.write(data)
            await writer.drain()
        self._cut(pair)
