"""One connection to a server, from its making to its loss: calls in one flight, and the replies to them.

Invariant: when the connection is lost, whoever waits for a reply is told (`Lost`), and nothing that was not sent by
then is ever sent.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import count
from typing import Any, NamedTuple, cast

from nats import errors as driver
from nats.aio.client import Client
from nats.aio.msg import Msg

from .errors import ApiError

CLOSING = 0.5
"""Seconds that closing a connection may take."""


class Call(NamedTuple):
    """A request to a subject."""

    subject: str
    payload: bytes = b""
    headers: dict[str, str] | None = None


class Reply(NamedTuple):
    """Its answer. `status`: of an answer that is only one ("404"), else ""."""

    data: bytes
    headers: Mapping[str, str]
    status: str

    def document(self) -> dict[str, Any]:
        """Of a call to JetStream. ApiError."""
        found: dict[str, Any] = json.loads(self.data)
        if "error" in found:
            raise refusal(self)
        return found


def refusal(reply: Reply) -> ApiError:
    """What JetStream said in a reply that has an error."""
    error = json.loads(reply.data)["error"]
    return ApiError(error.get("err_code", 0), error.get("description", f"status {error.get('code')}"))


class Lost(Exception):
    """The connection is gone."""


class _Flight:
    """Calls whose replies are still to come, by the index of the call."""

    def __init__(self, replies: list[Reply | None]) -> None:
        self.replies = replies
        self.missing = replies.count(None)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def land(self, index: int, reply: Reply) -> None:
        if self.replies[index] is None:
            self.replies[index] = reply
            self.missing -= 1
            if not self.missing and not self.done.done():
                self.done.set_result(None)

    def fail(self, error: Lost) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def over(self) -> None:
        """Nobody waits for it any more, and nobody is to hear of its error."""
        if self.done.done() and not self.done.cancelled():
            self.done.exception()


class _Series(_Flight):
    """One call with many replies."""

    def __init__(self) -> None:
        super().__init__([None])
        self.got: list[Reply] = []

    def land(self, index: int, reply: Reply) -> None:
        self.got.append(reply)
        if reply.status and not self.done.done():
            self.done.set_result(None)


class Session:
    """One connection, from its making to its loss."""

    def __init__(self, client: Driver) -> None:
        self.client = client
        self.pid = os.getpid()
        self.waiting: set[asyncio.Future[Any]] = set()
        """Fail with Lost when the connection is lost."""
        self.prefix = client.new_inbox()
        self.clock: tuple[float, float] | None = None
        """How far the server's clock is ahead of the monotonic one, and when that was measured."""
        self._numbers = count()
        self._flights: dict[str, tuple[_Flight, int]] = {}

    async def begin(self) -> None:
        """Listen for replies."""
        await self.listen(f"{self.prefix}.*", self._landed)

    async def listen(self, subject: str, call: Callable[[Msg], Awaitable[None]]) -> None:
        """From now on, with no limit for what has not been looked at yet: the driver would drop the rest. Lost."""
        driven = cast("Any", self.client)
        try:
            await driven.subscribe(subject, cb=call, pending_bytes_limit=0, pending_msgs_limit=0)
        except (driver.ConnectionClosedError, OSError) as error:
            raise Lost(str(error)) from None

    async def _landed(self, message: Msg) -> None:
        found = self._flights.get(message.subject)
        if found is not None:
            headers = message.headers or {}
            found[0].land(found[1], Reply(message.data, headers, "" if message.data else headers.get("Status", "")))

    async def flight(self, calls: Sequence[Call], replies: list[Reply | None], patience: float | None = None) -> None:
        """Fill in the replies that are None; those that have come when `patience` (seconds) is over. Lost."""
        flight = _Flight(replies)
        inboxes: list[str] = []
        try:
            for index, call in enumerate(calls):
                if replies[index] is None:
                    inbox = self._inbox(flight, index)
                    inboxes.append(inbox)
                    await self.publish(call.subject, call.payload, inbox, call.headers)
            if flight.missing:
                await asyncio.wait((flight.done,), timeout=patience)
                if flight.done.done():
                    await flight.done
        finally:
            for inbox in inboxes:
                self._flights.pop(inbox, None)
            flight.over()

    async def series(self, call: Call) -> list[Reply]:
        """All replies to a call that is answered by many; the last of them has a status. Lost."""
        series = _Series()
        inbox = self._inbox(series, 0)
        try:
            await self.publish(call.subject, call.payload, inbox, call.headers)
            await series.done
        finally:
            self._flights.pop(inbox, None)
            series.over()
        return series.got

    def _inbox(self, flight: _Flight, index: int) -> str:
        inbox = f"{self.prefix}.{next(self._numbers)}"
        self._flights[inbox] = (flight, index)
        return inbox

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Hand it to the connection. Lost."""
        try:
            await self.client.publish(subject, payload, reply, headers)
        except (driver.ConnectionClosedError, driver.OutboundBufferLimitError, OSError) as error:
            raise Lost(str(error)) from None

    async def settled(self) -> None:
        """The server has read all that was published here: what it reads comes back in order. Lost."""
        flight = _Flight([None])
        inbox = self._inbox(flight, 0)
        try:
            await self.publish(inbox)
            await flight.done
        finally:
            self._flights.pop(inbox, None)
            flight.over()

    def forget(self, why: str) -> None:
        """It is lost: whoever waits for a reply is told."""
        for future in self.waiting:
            if not future.done():
                future.set_exception(Lost(why))
        flights, self._flights = self._flights, {}
        for flight, _ in flights.values():
            flight.fail(Lost(why))


class Driver(Client):
    """The driver's, which would also speak in clear to a server that offers no TLS, and tells of a loss only once the
    old connection has been wound up.
    """

    wants_tls = False
    has_certificate = False
    lost: Callable[[Exception], None] | None = None

    def _connect_command(self) -> bytes:
        if self.wants_tls and not self._server_info.get("tls_required"):
            raise driver.SecureConnWantedError
        if self._server_info.get("tls_verify") and not self.has_certificate:
            raise driver.Error("certificate required")  # it will hang up, and may not say why
        return super()._connect_command()

    async def _process_op_err(self, e: Exception) -> None:
        if self.lost is not None:
            self.lost(e)
        await super()._process_op_err(e)

    async def end(self) -> None:
        """Close it. The driver would wait for a peer that does not answer, or for a failed TLS handshake."""
        try:
            async with asyncio.timeout(CLOSING):
                await self.close()
        except TimeoutError:
            pass
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_bare_io_writer", None)
        if writer is not None:
            writer.transport.abort()
            await asyncio.sleep(0)  # it goes with the next turn of the loop


def timestamp(text: str) -> float:
    """UNIX seconds of a time as the server writes it (RFC 3339 with up to nine digits)."""
    head, _, rest = text.partition(".")
    digits = rest.rstrip("Z").partition("+")[0]
    whole = datetime.fromisoformat(f"{head.rstrip('Z')}+00:00").timestamp()
    return whole + (int(digits) / 10 ** len(digits) if digits else 0.0)
