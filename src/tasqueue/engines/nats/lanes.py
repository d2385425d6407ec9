"""Consumers of one event loop: created where they are missing, pulled from, and watched while they are empty.

Invariants: a pull hands out at most what was asked for; what arrives when nobody waits for it any more (the caller was
cancelled, or ran out of time) goes back at once. A watch hands out nothing: it asks for at most one byte, which no
message fits in, so that the server only says that there is one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from nats.aio.msg import Msg

from . import errors
from .connection import PATIENCE, Connection
from .errors import ApiError, ServerUnusable
from .names import Lane, place
from .session import Call, Lost, Reply, Session

ROOM = 8 << 20
"""Bytes that one pull may bring, or one message, if that is larger."""
MOMENT = 0.001
"""Seconds, the server's least: what was stored just before shows to a consumer some 0.1 ms later."""
BUSY = "408 Requests Pending"
"""Others have asked before, and may get it all."""
LATE = "late"
WATCH = 30
"""Seconds that a watch stands in the server."""
PENDING = -1
"""`max_ack_pending`: deliveries of the whole fleet that are not acknowledged; no limit (the server's default is 1,000,
parked jobs count).
"""


class _Pull:
    """A pull on its way: messages (handle, data) until the server says that there are no more."""

    def __init__(self, inbox: str, limit: int) -> None:
        self.inbox = inbox
        self.limit = limit
        self.got: list[tuple[str, bytes]] = []
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def finish(self, status: str) -> None:
        if not self.done.done():
            self.done.set_result(status)


class Consumer:
    """The consumer of one lane, as one session sees it."""

    def __init__(self, session: Session, stream: str, lane: Lane) -> None:
        self.session = session
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{lane.consumer}"
        self._lock = asyncio.Lock()
        self._pull: _Pull | None = None
        self._number = 0
        self._prefix = session.client.new_inbox()
        self._watch: asyncio.Task[None] | None = None
        self.said = False
        """It was said that there is something, and nobody has looked since."""
        self.heard = False
        """Whoever waited was told so."""

    async def begin(self) -> None:
        """Listen for what is handed out."""
        await self.session.listen(f"{self._prefix}.*", self._landed)

    async def _landed(self, message: Msg) -> None:
        pull = self._pull
        if message.reply:
            if pull is not None and len(pull.got) < pull.limit:
                pull.got.append((message.reply, message.data))
                if len(pull.got) == pull.limit:
                    pull.finish("")
            else:
                await self._give_back([message.reply])
        elif pull is not None and message.subject == pull.inbox:
            headers = message.headers or {}
            pull.finish(f"{headers.get('Status')} {headers.get('Description')}")

    async def pull(self, limit: int) -> list[tuple[str, bytes]] | None:
        """At most so many (handle, data), at once; None: the consumer is not there. Lost."""
        async with self._lock:
            moment = 0.0
            while True:
                pull = await self._pulled(limit, moment)
                status = pull.done.result()
                if status.startswith("503"):
                    return None
                if pull.got or (moment and status not in (BUSY, LATE)):
                    return pull.got
                moment = MOMENT

    async def _pulled(self, limit: int, moment: float) -> _Pull:
        self._number += 1
        pull = self._pull = _Pull(f"{self._prefix}.{self._number}", limit)
        room = max(ROOM, self.session.client.max_payload + 4096)
        self.session.waiting.add(pull.done)
        taken = False
        try:
            ask = {"batch": limit, "no_wait": True, "max_bytes": room}
            if moment:
                ask["expires"] = int(moment * 1e9)
            await self.session.publish(self._next, json.dumps(ask).encode(), pull.inbox)
            await asyncio.wait((pull.done,), timeout=PATIENCE)
            pull.finish(LATE)
            await pull.done
            taken = True
            return pull
        finally:
            self._pull = None
            self.session.waiting.discard(pull.done)
            if not taken and pull.got:
                await self._give_back([handle for handle, _ in pull.got])

    async def _give_back(self, handles: list[str]) -> None:
        """Nobody waits for these: they come again at once, or when their lease ends."""
        try:
            for handle in sorted(handles, key=lambda one: place(one).sequence):
                await self.session.publish(handle, b"-NAK")
        except Lost:
            pass

    def peek(self, seconds: float = 0.0) -> Call:
        """A question for whether there is something (status 409), or not (404, 408); `seconds`: until there is."""
        ask: dict[str, Any] = {"batch": 1, "max_bytes": 1}
        ask |= {"expires": int(seconds * 1e9)} if seconds else {"no_wait": True}
        return Call(self._next, json.dumps(ask).encode())

    def look(self) -> None:
        """Somebody is about to look."""
        self.said = self.heard = False

    def watch(self, woken: asyncio.Event) -> None:
        """Set the event when there is something, or may be; not when that was said and nobody has looked."""
        if not self.said and (self._watch is None or self._watch.done()):
            self._watch = asyncio.ensure_future(self._watching(woken))

    async def _watching(self, woken: asyncio.Event) -> None:
        try:
            status = "408"  # its time is over
            while status == "408":
                replies: list[Reply | None] = [None]
                await self.session.flight([self.peek(WATCH)], replies)
                status = replies[0].status if replies[0] else ""
            self.said = True
        except Lost:
            pass
        woken.set()

    async def end(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)


async def create(
    connection: Connection, stream: str, prefix: str, lane: Lane, lease: float, *, setup: bool = False
) -> float:
    """The consumer of a lane, if it is missing; its lease in seconds, raised to at least this one. ServerUnusable."""
    name, subject = lane.consumer, f"{prefix}.q.{lane.tail}"
    try:
        has: Mapping[str, Any] = (await connection.api(f"CONSUMER.INFO.{stream}.{name}", setup=setup))["config"]
    except ApiError as error:
        if error.code != errors.NO_CONSUMER:
            raise errors.refused(connection.url, error) from None
        has = {}
    wanted: dict[str, Any] = {
        "durable_name": name,
        "name": name,
        "ack_policy": "explicit",
        "ack_wait": max(int(lease * 1e9), has.get("ack_wait", 0)),
        "max_deliver": -1,
        "max_ack_pending": PENDING,
        "filter_subject": subject,
    }
    if any(has.get(key) != value for key, value in wanted.items()):
        body = {"stream_name": stream, "action": "", "config": {**has, **wanted}}
        try:
            has = (await connection.api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", body, setup=setup))["config"]
        except ApiError as error:
            raise errors.refused(connection.url, error) from None
        if has["max_ack_pending"] != PENDING:
            raise ServerUnusable(
                f"{connection.url}: consumer {name!r} may have only {has['max_ack_pending']} messages under way"
                " (max_ack_pending); lift the limit in the server's or the account's configuration"
            )
    return has["ack_wait"] / 1e9
