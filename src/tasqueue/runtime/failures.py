"""An error as bounded text, whatever its author has done to it: what is stored of a failed run, and what a child
process tells.

Invariant: nothing here raises, and every text can be encoded.
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any

MAX_TRACEBACK = 8 << 10
MAX_MESSAGE = 2 << 10
_PLAIN = (str, bytes, int, float, bool, type(None))


class ChildError(Exception):
    """An error in a child process, told as text; `original` is made anew when it is a built-in one, else this one."""

    def __init__(self, type: str, message: str, trace: str, args: tuple[Any, ...] | None) -> None:
        super().__init__(message)
        self.type = type
        self.trace = trace
        self.original: BaseException = self if args is None else getattr(builtins, type)(*args)


def message_of(error: BaseException) -> str:
    """`str(error)`, at most 2 KiB of it."""
    try:
        return str(error)[:MAX_MESSAGE].encode(errors="replace").decode()
    except Exception:
        return "(no message: its __str__ raises)"


def trace_of(error: BaseException) -> str:
    """A traceback of at most 8 KiB: its end says most."""
    try:
        data = "".join(traceback.format_exception(error)).encode(errors="replace")
    except Exception as broken:
        return f"(no traceback: {type(broken).__qualname__})"
    return (data if len(data) <= MAX_TRACEBACK else "…".encode() + data[3 - MAX_TRACEBACK :]).decode(errors="ignore")


def told(error: BaseException) -> tuple[str, str, str, tuple[Any, ...] | None]:
    """What `ChildError` takes: pickling the error itself fails, in the parent, when its class takes other arguments."""
    kind = type(error)
    plain = (
        kind.__module__ == "builtins" and isinstance(error, Exception) and all(type(a) in _PLAIN for a in error.args)
    )
    return kind.__qualname__, message_of(error), trace_of(error), error.args if plain else None
