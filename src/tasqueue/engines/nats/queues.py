"""Which priorities a queue has, and their consumers. Invariant: a priority that somebody has begun to use is known here
before the messages that were sent with it can be overlooked.

Whoever uses one for the first time stores a mark before. The server passes that on to all that listen, so a worker has
it before any reply that comes later; whoever was away finds it in the stream.
"""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg

from .connection import Connection
from .lanes import Consumer, create
from .names import Lane
from .session import Session

AGAIN = 1.0
"""Seconds after which a queue's priorities are read anew: in a cluster a mark may come later than what follows it."""


class Queue:
    """What one session knows of a queue."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.lanes: dict[Lane, Consumer] = {}
        self.told: set[int] = set()
        """Priorities that we were told of, by the stream or by whoever used them first."""
        self.read_at: float | None = None
        self.lock = asyncio.Lock()

    def consumers(self) -> list[Consumer]:
        """Of the highest priority first."""
        return [self.lanes[lane] for lane in sorted(self.lanes, key=lambda lane: -lane.priority)]


class Queues:
    """Of one stream, for one event loop."""

    def __init__(self, connection: Connection, stream: str, subjects: str) -> None:
        self.leases: dict[Lane, float] = {}
        """Seconds: the consumers' own."""
        self.woken = asyncio.Event()
        """There may be something to consume."""
        self._connection = connection
        self._stream = stream
        self._subjects = subjects
        self._known: dict[str, Queue] = {}

    async def end(self) -> None:
        """Watch nothing any more."""
        known, self._known = self._known, {}
        for queue in known.values():
            for consumer in queue.lanes.values():
                await consumer.end()

    async def known(self, name: str, lease: float) -> Queue:
        """The queue, with a consumer for each of its priorities whose lease is at least this. Lost."""
        session = await self._connection.session()
        queue = self._known.get(name)
        if queue is None or queue.session is not session:
            queue = self._known[name] = Queue(session)
            await self._connection.subscribe(f"{self._subjects}.p.{name}.*", self._told)
        async with queue.lock:
            mono = self._connection.ports.mono()
            if queue.read_at is None or mono - queue.read_at > AGAIN:
                ask = {"subjects_filter": f"{self._subjects}.*.{name}.*"}
                state = (await self._connection.api(f"STREAM.INFO.{self._stream}", ask))["state"]
                queue.told |= {int(subject.rpartition(".")[2]) for subject in state.get("subjects") or ()}
                queue.read_at = mono
            for lane in {Lane(name, priority) for priority in queue.told} | queue.lanes.keys():
                if lane not in queue.lanes or self.leases[lane] < lease:
                    self.leases[lane] = await create(self._connection, self._stream, self._subjects, lane, lease)
                if lane not in queue.lanes:
                    consumer = Consumer(session, self._stream, lane)
                    await consumer.begin()
                    queue.lanes[lane] = consumer
        return queue

    async def _told(self, message: Msg) -> None:
        """Somebody has used a priority for the first time, or says so."""
        *_, name, priority = message.subject.split(".")
        queue = self._known.get(name)
        if queue is not None and int(priority) not in queue.told:
            queue.told.add(int(priority))
            self.woken.set()
