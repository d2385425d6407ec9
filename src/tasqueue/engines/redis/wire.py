"""One connection: bytes out, replies in. What asyncio and hiredis give, and nothing between them.

Invariants: replies belong to the one exchange that is under way, or, when there is none, to the listener. A connection
that was lost, or whose exchange was not finished, is never used again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

import hiredis

T = TypeVar("T")

pack: Callable[[tuple[object, ...]], bytes] = cast("Any", hiredis).pack_command
"""A command (bytes, str, numbers) as it is sent. hiredis' own type says that it takes tuples of one."""
PING = pack(("PING",))


class Refusal(Exception):
    """The server's error reply, as it said it."""


class OutOfTime(Exception):
    """The time limit of a call has passed."""


LOST = (OSError, LookupError, hiredis.ProtocolError)
"""What a connection fails with: it may help to connect anew."""


class Wire(asyncio.Protocol):
    """See `connect`."""

    __slots__ = (
        "_got", "_listener", "_loop", "_over", "_parser", "_timer", "_transport", "_until", "_waiting", "_wanted",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = hiredis.Reader(replyError=Refusal)
        self._transport: Any = None
        self._waiting: asyncio.Future[None] | None = None
        self._wanted = 0
        self._got: list[Any] = []
        self._listener: Callable[[Any], None] | None = None
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """One for many exchanges: it looks whether the one that is under way by then is late."""
        self._over: Exception | None = None
        """Why it is of no use any more."""

    @property
    def is_lost(self) -> bool:
        return self._over is not None

    async def exchange(self, packed: bytes, replies: int, until: float) -> list[Any]:
        """Send, and take that many replies by `until` of the loop's clock; a refusal is one of them, not raised. LOST,
        OutOfTime.
        """
        if self._over is not None:
            raise self._over
        self._until = until
        if self._timer is None:
            self._timer = self._loop.call_at(until, self._look)
        waiting = self._waiting = self._loop.create_future()
        self._wanted, self._got = replies, []
        self._transport.write(packed)
        try:
            await waiting
        except BaseException:
            self.close()  # what comes now belongs to nobody
            raise
        return self._got

    async def listen(self, packed: bytes, heard: Callable[[Any], None], pulse: float) -> None:
        """Send, and give every reply to `heard`, until the connection is lost: raises then, LOST.

        After `pulse` seconds of silence the server is asked whether it is still there.
        """
        silent = False

        def take(reply: Any) -> None:
            nonlocal silent
            silent = False
            heard(reply)

        self._listener = take
        if self._over is not None:
            raise self._over
        self._transport.write(packed)
        over = self._waiting = self._loop.create_future()
        while True:
            done, _ = await asyncio.wait((over,), timeout=pulse)
            if done:
                return over.result()
            if silent:
                raise ConnectionError("no answer to PING")
            silent = True
            self._transport.write(PING)

    def close(self) -> None:
        """At once; who waits for something is told that it is lost."""
        self._lose(ConnectionError("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not False:
                if self._wanted:
                    self._got.append(reply)
                    self._wanted -= 1
                    if not self._wanted and self._waiting is not None and not self._waiting.done():
                        self._waiting.set_result(None)
                elif self._listener is not None:
                    self._listener(reply)
        except hiredis.ProtocolError as error:
            self._lose(error)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc if isinstance(exc, OSError) else ConnectionError("connection closed by the server"))

    def _look(self) -> None:
        self._timer = None
        if self._wanted and self._over is None:
            if self._loop.time() < self._until - 0.001:  # a later exchange
                self._timer = self._loop.call_at(self._until, self._look)
            else:
                self._lose(OutOfTime())
                self._transport.abort()

    def _lose(self, why: Exception) -> None:
        if self._over is None:
            self._over = why
            if self._timer is not None:
                self._timer.cancel()
            waiting = self._waiting
            if waiting is not None and not waiting.done():
                waiting.set_exception(why)
                waiting.exception()  # somebody may have been cancelled, and never look


async def before(until: float, call: Awaitable[T]) -> T:
    """Its result, by then. OutOfTime."""
    limit = asyncio.timeout_at(until)
    try:
        async with limit:
            return await call
    except TimeoutError:
        if not limit.expired():
            raise
        raise OutOfTime from None


async def connect(
    loop: asyncio.AbstractEventLoop,
    *,
    host: str = "",
    port: int = 0,
    path: str = "",
    tls: ssl.SSLContext | None = None,
    username: str | None = None,
    password: str | None = None,
    db: int = 0,
    until: float,
) -> Wire:
    """A connection that is ready for commands by `until`. LOST, OutOfTime; Refusal when the server does not let this
    user in.
    """
    return await before(until, _connect(loop, host, port, path, tls, username, password, db, until))


async def _connect(
    loop: asyncio.AbstractEventLoop,
    host: str,
    port: int,
    path: str,
    tls: ssl.SSLContext | None,
    username: str | None,
    password: str | None,
    db: int,
    until: float,
) -> Wire:
    if path:
        _, wire = await loop.create_unix_connection(lambda: Wire(loop), path)
    else:
        _, wire = await loop.create_connection(lambda: Wire(loop), host, port, ssl=tls)
    hello: list[tuple[object, ...]] = []
    if password is not None or username is not None:
        hello.append(("AUTH", *((username,) if username is not None else ()), password or ""))
    if db:
        hello.append(("SELECT", db))
    try:
        if hello:
            for reply in await wire.exchange(b"".join(map(pack, hello)), len(hello), until):
                if isinstance(reply, Refusal):
                    raise reply
    except BaseException:
        wire.close()
        raise
    return wire


def trust(files: Mapping[str, str]) -> ssl.SSLContext:
    """By the system's authorities, or by `ssl_ca_certs`; with `ssl_certfile` and `ssl_keyfile` it shows a certificate
    itself. OSError when one cannot be read.
    """
    context = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
    if "ssl_certfile" in files:
        context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    return context
