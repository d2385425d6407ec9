"""The Lua scripts: each a file with a header that names its arguments, result and cost, after the parts that it
includes.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files


class Script:
    """`sha` is what EVALSHA takes, `source` what EVAL does."""

    __slots__ = ("sha", "source")

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()


@cache
def script(name: str) -> Script:
    """The script of that file."""
    folder = files("tasqueue.engines.redis") / "lua"
    body = (folder / f"{name}.lua").read_text("utf-8")
    included = next(line for line in body.splitlines() if line.startswith("-- include: ")).split()[2:]
    parts = [(folder / f"{part}.lua").read_text("utf-8") for part in included]
    return Script("\n".join(map(_bare, [*parts, body])).encode())


def _bare(source: str) -> str:
    """Without the lines that are only comment: the server keeps the text, and hashes it."""
    return "\n".join(
        line.strip() for line in source.splitlines() if line.strip() and not line.lstrip().startswith("--")
    )
