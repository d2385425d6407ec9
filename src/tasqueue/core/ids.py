"""Ids and names: what is accepted from users, and how ids of follow-ups are derived from their cause (G5), never
random.

Users' ids have no `~`, so a derived id can never meet one of theirs.
"""

from __future__ import annotations

import hashlib
import re

from ..errors import InvalidJob

MAX_ID = 128
MAX_DERIVED = 200
MAX_NAME = 200

KNOWN_NAMES = 1_000
_good_names: set[str] = set()
"""Names that were checked before: a program has few of them, and makes many jobs of each."""

_plain = re.compile(r"[!-~]+\Z").match  # the printable ASCII without the space: by far the most common


def _printable(text: str) -> bool:
    return _plain(text) is not None or (text.isprintable() and not any(map(str.isspace, text)))


def check_id(id: object, what: str = "id") -> str:
    """Return a user's id; InvalidJob unless it is 1 to 128 printable characters without white space or `~`."""
    if not isinstance(id, str):
        raise InvalidJob(f"{what} must be a str, not {type(id).__name__} ({id!r})")
    if not 0 < len(id) <= MAX_ID or not _printable(id):
        raise InvalidJob(f"{what} {id[:200]!r}: 1 to {MAX_ID} printable characters without white space, please")
    if "~" in id:
        raise InvalidJob(f"{what} {id!r}: `~` marks derived ids (follow-ups, steps, members); use another character")
    return id


def check_name(name: object, what: str) -> str:
    """Return a queue's or task's name; InvalidJob unless it is 1 to 200 printable characters without white space."""
    if type(name) is str and name in _good_names:
        return name
    if not isinstance(name, str):
        raise InvalidJob(f"{what} must be a str, not {type(name).__name__} ({name!r})")
    if not 0 < len(name) <= MAX_NAME or not _printable(name):
        raise InvalidJob(f"{what} {name[:200]!r}: 1 to {MAX_NAME} printable characters without white space, please")
    if len(_good_names) < KNOWN_NAMES:
        _good_names.add(name)
    return name


def derive(cause: str, suffix: str, generation: int = 0) -> str:
    """The id of what follows from `cause`: `<cause>~<suffix>`, with `.k` for generation k > 0.

    Over 200 characters the front is replaced by its hash (SHA-256, 32 hex digits), so that deep nesting keeps ids
    bounded.
    """
    tail = f"~{suffix}.{generation}" if generation else f"~{suffix}"
    if len(cause) + len(tail) > MAX_DERIVED:
        cause = hashlib.sha256(cause.encode()).hexdigest()[:32]
    return cause + tail


def uuid7(ms: int, noise: bytes) -> str:
    """A UUID version 7 (RFC 9562) from UNIX milliseconds and 10 random bytes: sorts by time, so that indexes stay
    local.
    """
    head, tail = f"{ms:012x}", noise.hex()
    return f"{head[:8]}-{head[8:]}-7{tail[:3]}-{_VARIANT[tail[3]]}{tail[4:7]}-{tail[7:19]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
