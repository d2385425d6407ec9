"""Tasqueue: a distributed job and worker library that loses nothing. See `docs/` and the README.

The names below are the public ones. Importing this loads no engine, no driver and no worker code; what needs asyncio
is loaded when it is first asked for (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .client import __version__
from .core.job import DEFAULT_QUEUE, Chain, Group, Job
from .core.message import ChainMessage, GroupMessage, JobError, JobMessage, Meta, ScheduleMessage
from .core.retry import Fail, Retry, Snooze
from .core.status import Status
from .errors import (
    EngineUnavailable,
    InvalidJob,
    InvalidSchedule,
    JobCancelled,
    JobFailed,
    NotFound,
    PayloadTooLarge,
    QueueConflict,
    TasqueueError,
    Unsupported,
)

if TYPE_CHECKING:
    from .client.context import JobCtx
    from .client.explain import Explanation
    from .client.handle import Handle
    from .client.signature import pack
    from .client.typed import Task
    from .server import Server

__all__ = [
    "DEFAULT_QUEUE",
    "Chain",
    "ChainMessage",
    "EngineUnavailable",
    "Explanation",
    "Fail",
    "Group",
    "GroupMessage",
    "Handle",
    "InvalidJob",
    "InvalidSchedule",
    "Job",
    "JobCancelled",
    "JobCtx",
    "JobError",
    "JobFailed",
    "JobMessage",
    "Meta",
    "NotFound",
    "PayloadTooLarge",
    "QueueConflict",
    "Retry",
    "ScheduleMessage",
    "Server",
    "Snooze",
    "Status",
    "Task",
    "TasqueueError",
    "Unsupported",
    "__version__",
    "pack",
]

_LATER = {
    "Explanation": "client.explain",
    "Handle": "client.handle",
    "JobCtx": "client.context",
    "Server": "server",
    "Task": "client.typed",
    "pack": "client.signature",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return value
