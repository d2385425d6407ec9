"""Which queue a task's jobs go to: as registered here, else as workers announced it in the store, else the default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..clock import Ports
from ..core.job import Job
from .connection import Connection
from .registry import Registry

KEPT = 60.0
"""Seconds that what the store said is kept."""


class Routes:
    """Task -> queue. The store is asked only about tasks that this process has not registered, and once in 60 s."""

    __slots__ = ("_announced", "_connection", "_known", "_ports", "_read_at", "_registered", "_registry")

    def __init__(self, connection: Connection, registry: Registry, ports: Ports) -> None:
        self._connection = connection
        self._registry = registry
        self._ports = ports
        self._announced: dict[str, str] = {}
        self._known: dict[str, str] = {}
        self._registered = 0
        self._read_at = float("-inf")

    async def find(self, jobs: Iterable[Job[Any]]) -> Mapping[str, str]:
        """The queues of these jobs' tasks and of their follow-ups', where they are known. EngineUnavailable."""
        if self._registered != len(self._registry.tasks):
            self._merge()
        known = self._known
        for job in jobs:
            plain = job.on_success == () and job.on_error == ()
            if plain and (job.queue is not None or job.task in known):
                continue
            if self._ports.mono() - self._read_at >= KEPT and _unknown(job, known):
                await self._read()
                break
        return self._known

    async def _read(self) -> None:
        engine = await self._connection.engine()
        self._announced = await engine.tasks()
        self._read_at = self._ports.mono()
        self._merge()

    def _merge(self) -> None:
        tasks = dict(self._registry.tasks)
        self._known = {**self._announced, **{name: task.queue for name, task in tasks.items()}}
        self._registered = len(tasks)


def _unknown(job: Job[Any], known: Mapping[str, str]) -> bool:
    if job.queue is None and job.task not in known:
        return True
    return any(_unknown(follow, known) for follow in (*job.follow_ups("on_success"), *job.follow_ups("on_error")))
