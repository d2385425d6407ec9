"""What the engine and the halves start from: a client, an ear, the server's clock, and the names of the keys."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ... import faults
from ...clock import Ports
from ...errors import TasqueueError
from ...interfaces import Engine
from .client import Client
from .layout import key
from .listener import Listener, name_of
from .target import Target

GOODBYE = 0.5
"""Seconds that the last call may take."""


class Connected:
    """What talks to a namespace of keys, on one event loop; `within` sets its keys apart from others' there."""

    within = b""

    def __init__(self, target: Target, *, url: str, namespace: str, timeout: float, ports: Ports) -> None:
        self.url = url
        self._target = target
        self._namespace = namespace
        self._timeout = timeout
        self._ports = ports
        tag = key(quote(namespace, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`|~"))  # only braces and % are quoted
        self._prefix = b"{%b}:%b" % (tag, self.within)
        self._open_client: Client | None = None
        self._open_listener: Listener | None = None
        self._moment: tuple[float, int] = (0.0, 0)
        """When the server last told its time, by the monotonic clock, and what it said."""

    def _client(self) -> Client:
        """Made on first use, and anew after a fork or on another loop."""
        client = self._open_client
        if client is not None:
            if client.loop is asyncio.get_running_loop() and client.pid == os.getpid():
                return client
            if client.pid == os.getpid() and not client.loop.is_closed():
                raise RuntimeError(
                    "this engine belongs to another event loop that is still running; use twin() for this one"
                )
            self._open_listener = None
        client = self._open_client = Client(self._target, self.url, self._prefix, self._timeout)
        return client

    def _listener(self) -> Listener:
        client = self._client()
        listener = self._open_listener
        if listener is None:
            name = name_of(int(self._ports.now() * 1000), self._ports.bits(10))
            listener = self._open_listener = Listener(client, self._prefix, name)
        return listener

    async def _run(self, name: str, *args: object, again: bool = True) -> Any:
        return await self._client().run(name, args, again=again)

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode()

    async def _read(self, command: str, name: str, *args: object) -> Any:
        return await self._client().command(command, self._key(name), *args)

    async def _time(self) -> int:
        """Asked of the server (ms), unless it has just said so."""
        at, said = self._moment
        passed = self._ports.mono() - at
        if 0 <= passed < 0.005:
            return said + int(passed * 1000)
        seconds, micros = await self._client().command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def close(self) -> None:
        client, listener = self._open_client, self._open_listener
        self._open_client = self._open_listener = None
        if client is None or not client.is_here:
            return
        if listener is not None:
            await listener.close()
            await _leave(client, listener)
        await client.close()


class Base(Connected, Engine):
    """The state of one engine object; the verbs are in `working`, `settling`, `operating` and `reading`."""


async def _leave(client: Client, listener: Listener) -> None:
    """Not worth waiting for: what is noted there expires, and a sleeper without a subscription is passed over."""
    if listener.noted:
        try:
            async with asyncio.timeout(GOODBYE):
                await client.run("leave", (listener.name, *keys(sorted(listener.noted))))
        except (TimeoutError, TasqueueError):
            pass


def told(groups: int, callbacks: int) -> None:
    """Hit the fault points that a script has passed."""
    if groups:
        faults.point("G3.last_member")
    if callbacks:
        faults.point("G4.callback_enqueued")


def keys(names: Sequence[str]) -> list[bytes]:
    """Ids as the server knows them."""
    return [name.encode("utf-8", "surrogatepass") for name in names]


def span(ms: int | None) -> object:
    """A span for a script; "" is for ever."""
    return "" if ms is None else ms
