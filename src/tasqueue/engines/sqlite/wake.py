"""Sleeping until something has changed: a direct call within the process, a poll of `PRAGMA data_version` beyond it.

A Poller belongs to one engine object and its loop, and runs only while somebody sleeps: every millisecond after a
change, then ever more seldom. What it reads is a number in shared memory (4 µs), on a connection of its own that
never writes.

No wake-up is lost: `mark` takes the number before a claim, `wait` looks for work itself unless the number is still
the same, and a sleeper is entered before the look that decides whether it may sleep."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence

from . import database
from .errors import FileUnusable
from .sql import Sql

FIRST = 0.001
LAST = 0.025
GROWTH = 1.1
PACE = 0.004
"""Between two questions on behalf of those who watch."""
EAGER = 40
"""Polls without a change before they become more seldom."""

_guard = threading.Lock()
_pollers: dict[str, set[Poller]] = {}
"""Of this process, by the file's real path."""


def _forked() -> None:
    global _guard
    _guard = threading.Lock()
    _pollers.clear()  # they are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def ring(real_path: str) -> None:
    """From any thread: this process has committed something that sleepers may be waiting for."""
    with _guard:
        for poller in _pollers.get(real_path, ()):
            poller.ring()


class Sleeper:
    """One sleeping coroutine: on queues, or on ids of jobs and keys of links."""

    __slots__ = ("due", "future", "ids", "keys", "queues")

    def __init__(
        self,
        future: asyncio.Future[None],
        queues: Sequence[str] = (),
        ids: frozenset[str] = frozenset(),
        keys: frozenset[str] = frozenset(),
    ) -> None:
        self.future = future
        self.queues = queues
        self.ids = ids
        self.keys = keys
        self.due: int | None = None
        """When the first job that is due later in its queues becomes ready."""

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Poller:
    """See the module's docstring. `over(ids, keys)` tells which of them have ended or do not exist."""

    def __init__(
        self,
        path: str,
        names: Sql,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], int],
        over: Callable[[list[str], list[str]], Awaitable[set[str]]],
    ) -> None:
        self._path = path
        self._real_path = os.path.realpath(path)
        self._names = names
        self._loop = loop
        self._now = now
        self._over = over
        self._connection: sqlite3.Connection | None = None
        self._file = database.File(path)
        self._identity: tuple[int, int] | None = None
        self._opened = 0
        self._sleepers: set[Sleeper] = set()
        self._marked: tuple[int, int] | None = None
        self._seen: tuple[int, int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._same = 0
        self._pause = FIRST
        self._rung = False
        self._asking: asyncio.Task[None] | None = None
        self._again = False
        with _guard:
            _pollers.setdefault(self._real_path, set()).add(self)

    # -- sleeping -----------------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """A claim is about to look: what changes from here on is news to the next `wait`."""
        self._marked = self._version()

    async def wait(self, queues: Sequence[str], seconds: float | None) -> None:
        """Until there may be work in one of these queues."""
        sleeper = Sleeper(self._loop.create_future(), queues)
        self._enter(sleeper)
        try:
            if self._seen != self._marked or self._seen is None:
                self._look(sleeper)
            else:
                sleeper.due = self._next_due(queues)
            await self._sleep(sleeper, seconds)
        finally:
            self._sleepers.discard(sleeper)

    async def watch(self, ids: frozenset[str], keys: frozenset[str], seconds: float | None) -> None:
        """Until one of these has ended or does not exist."""
        sleeper = Sleeper(self._loop.create_future(), ids=ids, keys=keys)
        self._enter(sleeper)
        try:
            if await self._over(list(ids), list(keys)):
                return
            await self._sleep(sleeper, seconds)
        finally:
            self._sleepers.discard(sleeper)

    async def _sleep(self, sleeper: Sleeper, seconds: float | None) -> None:
        timer = None if seconds is None else self._loop.call_later(max(0.0, seconds), sleeper.wake)
        try:
            await sleeper.future
        finally:
            if timer is not None:
                timer.cancel()

    def _enter(self, sleeper: Sleeper) -> None:
        self._sleepers.add(sleeper)
        if self._timer is None:
            seen, self._seen = self._seen, self._version()
            if self._seen != seen:
                self._same, self._pause = 0, FIRST
            self._schedule()

    def close(self) -> None:
        """Everybody wakes."""
        with _guard:
            _pollers.get(self._real_path, set[Poller]()).discard(self)
        for sleeper in self._sleepers:
            sleeper.wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asking is not None:
            self._asking.cancel()
        self._disconnect()

    # -- polling ------------------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """From any thread: look now."""
        if self._sleepers and not self._rung:
            self._rung = True
            try:
                self._loop.call_soon_threadsafe(self._answer_ring)
            except RuntimeError:  # the loop has been closed
                pass

    def _answer_ring(self) -> None:
        self._rung = False
        if self._timer is not None:
            self._timer.cancel()
            self._tick()

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._sleepers:
            return
        version = self._version()
        if version != self._seen or version is None:
            self._seen = version
            if self._changed():
                self._same, self._pause = 0, FIRST
        else:
            self._same += 1
            if self._same > EAGER:
                self._pause = min(self._pause * GROWTH, LAST)
        now = self._now()
        for sleeper in self._sleepers:
            if sleeper.due is not None and sleeper.due <= now:
                sleeper.wake()
        if version is None:
            self._pause = LAST
        self._schedule()

    def _changed(self) -> bool:
        """Whether it was news to anybody, as far as can be told: a beat is none, and does not make the poll eager."""
        watched = news = False
        for sleeper in self._sleepers:
            if sleeper.queues:
                self._look(sleeper)
                news = news or sleeper.future.done()
            else:
                watched = True
        if watched and self._asking is None:
            self._asking = self._loop.create_task(self._ask())
        self._again = watched
        return news or watched

    async def _ask(self) -> None:
        """One question for all who watch, and another when something has changed meanwhile, at a pace."""
        try:
            while self._again:
                self._again = False
                watching = [sleeper for sleeper in self._sleepers if not sleeper.queues and not sleeper.future.done()]
                ids = frozenset[str]().union(*(sleeper.ids for sleeper in watching))
                keys = frozenset[str]().union(*(sleeper.keys for sleeper in watching))
                over = await self._over(list(ids), list(keys))
                for sleeper in watching:
                    if not over.isdisjoint(sleeper.ids) or not over.isdisjoint(sleeper.keys):
                        sleeper.wake()
                await asyncio.sleep(PACE)
        except Exception:  # each asks for itself, and is told what is wrong
            for sleeper in tuple(self._sleepers):
                sleeper.wake()
        finally:
            self._asking = None

    def _look(self, sleeper: Sleeper) -> None:
        """Wake it if a claim would get something."""
        try:
            connection = self._connect()
            for queue in sleeper.queues:
                if connection.execute(self._names["work_in"], (queue,)).fetchone()[0]:
                    sleeper.wake()
                    return
            sleeper.due = self._next_due(sleeper.queues)
        except (sqlite3.Error, FileUnusable):
            sleeper.wake()

    def _next_due(self, queues: Sequence[str]) -> int | None:
        try:
            connection = self._connect()
            dates = [connection.execute(self._names["next_due"], (queue,)).fetchone()[0] for queue in queues]
        except (sqlite3.Error, FileUnusable):
            return None
        return min((at for at in dates if at is not None), default=None)

    # -- the connection -----------------------------------------------------------------------------------------------

    def _version(self) -> tuple[int, int] | None:
        """Changes with every commit of anybody else than this connection. None: it cannot be read now."""
        try:
            return (self._opened, self._connect().execute("PRAGMA data_version").fetchone()[0])
        except (sqlite3.Error, FileUnusable):
            self._disconnect()
            return None

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None or self._file.identity() != self._identity:
            self._disconnect()
            self._connection = database.connect(self._path, synchronous="NORMAL", readonly=True)
            self._identity = self._file.identity()
            self._opened += 1
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
