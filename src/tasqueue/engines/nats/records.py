"""The stream of the results: one message per subject, the last one is the record.

Reads must not be stale: whoever finds a record absent, or in another state than its message speaks of, drops the
message. With one replica a direct get is answered by the server that stored the record, so many subjects are asked for
in one request. With more, any replica may answer a direct get, and one that lags would show the past: then each is
asked of the leader. Only a leader that was cut off from the others, and does not know it yet, can still be behind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from . import errors
from .connection import FIRST_PAUSE, LAST_PAUSE, PATIENCE, Connection
from .errors import ApiError
from .names import token
from .session import Call
from .streams import ensure

FEW = 3
"""As many subjects are asked for one by one."""
AT_ONCE = 500
"""Subjects asked for in one request; the server answers 1,024 at most."""
MOST_BYTES = 200_000
"""Of subjects in one request."""
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
TTL = "Nats-TTL"
NO_MESSAGE = 10037


class Stored(NamedTuple):
    """A message as the stream keeps it."""

    data: bytes
    revision: int
    """Its sequence in the stream."""
    at: str
    """When it was stored (RFC 3339, by the server)."""


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Config(msgspec.Struct):
    num_replicas: int = 1
    allow_direct: bool = False


class _State(msgspec.Struct):
    subjects: dict[str, int] = {}


class _Message(msgspec.Struct):
    seq: int
    time: str
    data: bytes = b""


class Answer(msgspec.Struct):
    """What JetStream answers, as far as somebody here reads it."""

    error: _Error | None = None
    seq: int = 0
    total: int = 0
    config: _Config | None = None
    state: _State | None = None
    message: _Message | None = None


_decode = msgspec.json.Decoder(Answer).decode


class Records:
    """The stream, and its messages by subject."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._connection = connection
        self._namespace = namespace
        self._root = token(namespace)
        self._stream = f"{self._root}_R"
        self._direct = False
        connection.setups.append(self._ensure)

    async def _ensure(self) -> None:
        wanted = {
            "name": self._stream,
            "subjects": [f"{self._root}.{kind}.>" for kind in "kbichf"],
            "max_msgs_per_subject": 1,
            "discard": "new",  # a full stream refuses; it never throws records away
            "allow_direct": True,
            "allow_msg_ttl": True,
            "storage": "file",
        }
        info = await ensure(self._connection, wanted)
        self._direct = info["config"]["num_replicas"] == 1

    async def _ask(self, calls: Sequence[Call], *known: int) -> list[Answer]:
        """What JetStream answers, in one flight, and again where it can give no answer just now. An error of a `known`
        code is an answer. EngineUnavailable, ServerUnusable.
        """
        answers: dict[int, Answer] = {}
        open_, pause = list(range(len(calls))), FIRST_PAUSE
        until = self._connection.ports.mono() + self._connection.timeout
        while True:
            replies = await self._connection.requests([calls[i] for i in open_], patience=PATIENCE)
            answers.update(zip(open_, (_decode(reply.data) for reply in replies), strict=True))
            failed = {i: error for i in open_ if (error := answers[i].error) and error.err_code not in known}
            if not failed:
                return [answers[i] for i in range(len(calls))]
            for error in failed.values():
                heals = error.err_code in errors.AGAIN or error.err_code == errors.NO_STREAM
                if not heals or self._connection.ports.mono() > until:
                    raise errors.refused(self._connection.url, ApiError(error.err_code, error.description))
            if any(error.err_code == errors.NO_STREAM for error in failed.values()):
                await self._ensure()
            await asyncio.sleep(pause)
            open_, pause = list(failed), min(2 * pause, LAST_PAUSE)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def _write(self, calls: Sequence[Call]) -> list[int | None]:
        """Store messages in one flight; their sequences, None where the expected sequence was another."""
        return [None if answer.error else answer.seq for answer in await self._ask(calls, errors.WRONG_SEQUENCE)]

    async def _purge(self, ends: Mapping[str, int | None]) -> None:
        """Forget what is stored under each subject, up to a sequence if one is given."""
        verb = f"$JS.API.STREAM.PURGE.{self._stream}"
        bodies = [{"filter": subject} | ({"seq": end + 1} if end else {}) for subject, end in ends.items()]
        await self._ask([Call(verb, json.dumps(body).encode()) for body in bodies])

    # -- reading ------------------------------------------------------------------------------------------------------

    async def _last(self, names: Sequence[str]) -> list[Stored | None]:
        """What is stored under each subject."""
        if not self._direct:
            return await self._of_leader(names)
        if len(names) <= FEW:
            return await self._one_by_one(names)
        found: dict[str, Stored] = {}
        for part in parts(names):
            await self._many(part, found)
        return [found.get(name) for name in names]

    async def _many(self, names: Sequence[str], found: dict[str, Stored]) -> None:
        left: list[str] = list(names)
        while left:
            request = Call(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps({"multi_last": left}).encode())
            *stored, end = await self._connection.series(request)
            for one in stored:
                found[one.headers["Nats-Subject"]] = _stored(one.data, one.headers)
            if end.status == "404" or end.headers.get("Nats-Num-Pending") == "0":
                return
            left = [name for name in left if name not in found]
            if not stored:  # nobody is there: asked like this, it waits, and creates what is missing
                some = await self._one_by_one(left)
                found.update((name, one) for name, one in zip(left, some, strict=True) if one is not None)
                return

    async def _one_by_one(self, names: Sequence[str]) -> list[Stored | None]:
        calls = [Call(f"$JS.API.DIRECT.GET.{self._stream}.{name}") for name in names]
        replies = await self._connection.requests(calls, patience=PATIENCE)
        return [None if reply.status else _stored(reply.data, reply.headers) for reply in replies]

    async def _of_leader(self, names: Sequence[str]) -> list[Stored | None]:
        verb = f"$JS.API.STREAM.MSG.GET.{self._stream}"
        calls = [Call(verb, json.dumps({"last_by_subj": name}).encode()) for name in names]
        found = [answer.message for answer in await self._ask(calls, NO_MESSAGE)]
        return [one and Stored(one.data, one.seq, one.time) for one in found]

    async def _names(self, filters: Sequence[str]) -> list[list[str]]:
        """The subjects in use that match each filter. The leader answers, from memory: a microsecond for each."""
        verb = f"$JS.API.STREAM.INFO.{self._stream}"
        found: list[list[str]] = [[] for _ in filters]
        open_ = list(range(len(filters)))
        while open_:
            bodies = [{"subjects_filter": filters[i], "offset": len(found[i])} for i in open_]
            answers = await self._ask([Call(verb, json.dumps(body).encode()) for body in bodies])
            more: list[int] = []
            for i, answer in zip(open_, answers, strict=True):
                page = answer.state.subjects if answer.state else {}
                found[i].extend(page)
                if page and len(found[i]) < answer.total:
                    more.append(i)
                self._direct = answer.config is not None and answer.config.num_replicas == 1
            open_ = more
        return found


def _stored(data: bytes, headers: Mapping[str, str]) -> Stored:
    return Stored(data, int(headers["Nats-Sequence"]), headers["Nats-Time-Stamp"])


def parts(names: Sequence[str]) -> Iterator[list[str]]:
    """What is asked for, or stored, together: so many names, so many bytes."""
    part: list[str] = []
    size = 0
    for name in names:
        size += len(name) if name.isascii() else len(name.encode(errors="surrogatepass"))
        if part and (len(part) == AT_ONCE or size > MOST_BYTES):
            yield part
            part, size = [], len(name)
        part.append(name)
    if part:
        yield part
