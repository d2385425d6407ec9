"""The ear: one subscription for an engine object, by which the server says that there may be work, or that something
has ended.

Invariant: no news is lost in silence. While the subscription is not known to stand, nobody sleeps on it for long; when
it stands (again), everybody who sleeps is woken once, to look for himself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from ...core.ids import uuid7
from ...errors import TasqueueError
from .client import Client
from .layout import key, text
from .wire import LOST, OutOfTime, Refusal, Wire, pack

log = logging.getLogger("tasqueue.redis")

CONNECT = 5.0
"""Seconds that connecting may take."""
PULSE = 10.0
"""Seconds of silence after which the server is asked whether it is still there."""
PASS_ON = 0.02
"""Seconds that a wake-up nobody slept for may take to become a claim."""
BLIND_NAP = 0.5
"""Seconds that anybody sleeps on while the subscription does not stand."""
PAUSES = (0.05, 0.2, 0.5, 1.0)
"""Seconds between attempts to subscribe again."""


class Listener:
    """Subscribes with the first `ready`; `heard` is told of every piece of news."""

    def __init__(self, client: Client, prefix: bytes, name: str) -> None:
        self.name = name
        self._client = client
        self._channel = prefix + b"e:" + name.encode()
        self._task: asyncio.Task[None] | None = None
        self._up: asyncio.Future[None] | None = None
        self._connection: Wire | None = None
        self._sleepers: dict[asyncio.Future[None], frozenset[str]] = {}
        self.news: set[str] = set()
        """Queues that have been heard of since the last claim."""
        self.idle: set[str] = set()
        """Queues for which the server knows that this engine sleeps."""
        self._passing: set[asyncio.Task[None]] = set()
        self.noted: set[str] = set()
        """Queues for which it ever knew."""
        client.moved = self._drop

    def note(self, queues: Iterable[str]) -> None:
        """The server knows that this engine sleeps on these."""
        names = set(queues)
        self.idle |= names
        self.noted |= names

    @property
    def stands(self) -> bool:
        """Whether the subscription is known to stand."""
        return self._up is not None and self._up.done()

    async def ready(self) -> None:
        """Until the subscription stands; given up after a while, which is then the caller's to poll."""
        if self.stands:
            return
        if self._task is None or self._task.done():
            self._up = self._client.loop.create_future()
            self._task = self._client.loop.create_task(self._run(), name="tasqueue-redis-listener")
        assert self._up is not None
        await asyncio.wait((self._up,), timeout=2.0)

    def expect(self, names: Iterable[str]) -> asyncio.Future[None]:
        """From now on one of these ("q<queue>", "k<key>") is not missed. To be given to `sleep_on`, and to `leave` in
        any case.
        """
        over: asyncio.Future[None] = self._client.loop.create_future()
        self._sleepers[over] = frozenset(names)
        return over

    async def sleep_on(self, over: asyncio.Future[None], seconds: float) -> None:
        """Until what was expected is heard of, or the time is over."""
        timer = self._client.loop.call_later(max(0.0, seconds), _finish, over)
        try:
            await over
        finally:
            timer.cancel()

    async def sleep_for_work(self, queues: Sequence[str], seconds: float) -> None:
        """Until there may be work in one of these, on which the server knows that we sleep, or the time is over."""
        over = self.expect(f"q{queue}" for queue in queues)
        try:
            if not self.news.intersection(queues):
                await self.sleep_on(over, seconds if self.stands else min(seconds, BLIND_NAP))
        finally:
            self.leave(over)
            # Noted again before the next sleep: the server forgets who has been silent for long.
            self.idle.difference_update(queues)

    def leave(self, over: asyncio.Future[None]) -> None:
        """Nobody sleeps on it any more."""
        self._sleepers.pop(over, None)

    def wake_all(self) -> None:
        """Everybody looks for himself."""
        self.idle.clear()
        for sleeper in list(self._sleepers):
            _finish(sleeper)

    async def close(self) -> None:
        """Wakes who sleeps."""
        task, self._task, self._up = self._task, None, None
        self.wake_all()
        tasks = [*self._passing, *([task] if task is not None else ())]
        for one in tasks:
            one.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()  # `listen` ends with an error, and the loop of `_run` goes round

    async def _run(self) -> None:
        subscribe = pack(("SUBSCRIBE", self._channel))
        attempt = 0
        while True:
            try:
                connection = self._connection = await self._client.connect(self._client.loop.time() + CONNECT)
                try:
                    await connection.listen(subscribe, self._told, PULSE)
                finally:
                    self._connection = None
                    connection.close()
            except (*LOST, OutOfTime, Refusal, TasqueueError) as error:
                log.debug("%s: the subscription broke: %s", self._client.url, error)
            if self._up is not None and self._up.done():
                self._up = self._client.loop.create_future()
                attempt = 0
            self.wake_all()
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1

    def _told(self, message: Any) -> None:
        if isinstance(message, Refusal):
            log.debug("%s: the subscription was refused: %s", self._client.url, message)
            self._drop()
        elif message[0] == b"message":
            self._heard(text(message[2]))
        elif message[0] == b"subscribe":
            self.wake_all()
            if self._up is not None and not self._up.done():
                self._up.set_result(None)

    def _heard(self, name: str) -> None:
        slept = False
        for sleeper, names in list(self._sleepers.items()):
            if name in names:
                slept = True
                _finish(sleeper)
        if name[0] == "q":
            queue = name[1:]
            self.news.add(queue)
            self.idle.discard(queue)
            if not slept:
                self._client.loop.call_later(PASS_ON, self._pass_on, queue)

    def _pass_on(self, queue: str) -> None:
        """Nobody here wants that work (any more): the next sleeper is to have it."""
        if queue in self.news and self._task is not None:
            task = self._client.loop.create_task(self._wake_next(queue))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _wake_next(self, queue: str) -> None:
        try:
            await self._client.run("wake", (key(queue),))
        except TasqueueError as error:  # then they find it when they look of themselves
            log.debug("%s: passing on: %s", self._client.url, error)


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def name_of(ms: int, noise: bytes) -> str:
    """An engine object's name: hexadecimal, never used twice."""
    return uuid7(ms, noise).replace("-", "")
