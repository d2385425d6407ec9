"""Waking those who sleep in `wait` and `watch`, from whichever loop or thread the news comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from ...interfaces import Key

T = TypeVar("T")


class Sleeper:
    """One sleeping coroutine. It is woken at most once; to be woken for nothing is allowed."""

    __slots__ = ("_done", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def sleep(self, seconds: float | None) -> None:
        timer = None if seconds is None else self._loop.call_later(max(0.0, seconds), self._finish)
        try:
            await self._done
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """From any thread."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            self._finish()
            return
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:  # that loop has been closed, and its sleepers with it
            pass

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class Bells:
    """Who sleeps on what. Called with the store's lock held."""

    def __init__(self) -> None:
        self.waiting: dict[str, set[Sleeper]] = {}
        """By queue."""
        self.watched: dict[Key, set[Sleeper]] = {}

    def wait(self, queues: Iterable[str], sleeper: Sleeper) -> None:
        for name in queues:
            self.waiting.setdefault(name, set()).add(sleeper)

    def watch(self, keys: Iterable[Key], sleeper: Sleeper) -> None:
        for key in keys:
            self.watched.setdefault(key, set()).add(sleeper)

    def leave(self, sleeper: Sleeper, queues: Iterable[str] = (), keys: Iterable[Key] = ()) -> None:
        for name in queues:
            _drop(self.waiting, name, sleeper)
        for key in keys:
            _drop(self.watched, key, sleeper)

    def ring_queue(self, name: str) -> None:
        for sleeper in self.waiting.get(name, ()):
            sleeper.wake()

    def ring_key(self, key: Key) -> None:
        for sleeper in self.watched.get(key, ()):
            sleeper.wake()


def _drop(table: dict[T, set[Sleeper]], key: T, sleeper: Sleeper) -> None:
    sleepers = table.get(key)
    if sleepers is not None:
        sleepers.discard(sleeper)
        if not sleepers:
            del table[key]
