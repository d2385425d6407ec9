"""What a worker tells of itself, as the commands need it; one of another version may lack some of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from ..client.inspector import WorkerMessage

LATE = timedelta(seconds=0.5)
"""What this machine's clock and the store's may differ by."""


class Report(msgspec.Struct):
    """The part of a worker's report that is shown; see `runtime.info`."""

    host: str = ""
    pid: int = 0
    at: int = 0
    queues: dict[str, int] = {}
    tasks: list[str] = []
    busy: int = 0
    done: int = 0
    failed: int = 0
    rss: int = 0
    draining: bool = False

    @classmethod
    def of(cls, worker: WorkerMessage) -> Report:
        """Empty when it cannot be read."""
        try:
            return msgspec.convert(worker.info, cls)
        except msgspec.ValidationError:
            return cls()


def alive(worker: WorkerMessage, now: datetime) -> bool:
    """Whether its lease still runs."""
    return worker.lease_until is not None and worker.lease_until > now - LATE


def known_tasks(workers: Iterable[WorkerMessage], now: datetime) -> set[str]:
    """The tasks that some living worker can run."""
    return {task for worker in workers if alive(worker, now) for task in Report.of(worker).tasks}
