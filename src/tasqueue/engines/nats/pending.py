"""The pending list: what a queue's subjects hold, read from the stream without consuming anything.

Read by direct gets, which with replicas any of them may answer: then the list may be some milliseconds old.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...interfaces import Message
from .connection import Connection
from .names import Lane, due_of, unpack
from .session import Call, timestamp

REMEMBERED = 100
"""Ends of pages whose places are remembered, so that the next page need not be searched for."""
AT_ONCE = 500
"""Messages that are looked at in a search."""


class _Stored(NamedTuple):
    sequence: int
    due: float
    """UNIX seconds; 0: at once."""
    since: float
    """Since when it could start, or from when on. By another clock than ours, so it only orders."""
    message: Message


class Pending:
    """Of one stream, for one event loop."""

    def __init__(self, connection: Connection, stream: str, subjects: str) -> None:
        self._connection = connection
        self._stream = stream
        self._subjects = subjects
        self._ends: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        """By queue and id: priority, and the sequence up to which has been seen."""

    async def page(self, queue: str, limit: int, after: str | None, now: float) -> list[Message]:
        """Also what is under way: the broker cannot tell, the records can."""
        ask = {"subjects_filter": f"{self._subjects}.q.{queue}.*"}
        state = (await self._connection.api(f"STREAM.INFO.{self._stream}", ask))["state"]
        subjects: Mapping[str, int] = state.get("subjects") or {}
        priorities = sorted((int(subject.rpartition(".")[2]) for subject in subjects), reverse=True)
        start = None if after is None else await self._find(queue, after, priorities)
        found: list[Message] = []
        for priority in priorities:
            if start is not None and priority > start[0]:
                continue
            first = start[1] + 1 if start is not None and priority == start[0] else 1
            while len(found) < limit and (part := await self._read(Lane(queue, priority), first, limit - len(found))):
                first = part[-1].sequence + 1
                found += [one.message for one in sorted(part, key=lambda one: one.since) if one.due <= now]
                if found:
                    self._remember(queue, found[-1].id, priority, first - 1)
        return found

    def _remember(self, queue: str, id: str, priority: int, sequence: int) -> None:
        self._ends[queue, id] = (priority, sequence)
        if len(self._ends) > REMEMBERED:
            self._ends.popitem(last=False)

    async def _find(self, queue: str, id: str, priorities: Sequence[int]) -> tuple[int, int] | None:
        """Priority and sequence of a message; None: it is not there."""
        known = self._ends.get((queue, id))
        if known is not None:
            return known
        for priority in priorities:
            first = 1
            while part := await self._read(Lane(queue, priority), first, AT_ONCE):
                for one in part:
                    if one.message.id == id:
                        return priority, one.sequence
                first = part[-1].sequence + 1
        return None

    async def _read(self, lane: Lane, first: int, limit: int) -> list[_Stored]:
        """Messages of one priority in the order of their places, from this one on; [] at the end, else some."""
        ask = {"seq": first, "next_by_subj": f"{self._subjects}.q.{lane.tail}", "batch": limit}
        call = Call(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(ask).encode())
        *replies, _ = await self._connection.series(call)
        return [
            _Stored(
                int(reply.headers["Nats-Sequence"]),
                due := due_of(reply.data),
                due or timestamp(reply.headers["Nats-Time-Stamp"]),
                Message(*unpack(reply.data), lane.priority),
            )
            for reply in replies
        ]
