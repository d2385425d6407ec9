"""What broker and results have in common as halves of a pair: their life, and what they say of the server.

Each is a client of its own, under a prefix of its own within the namespace, so that an engine and both halves can share
one. URLs, time limits, repetitions and errors are those of the engine.
"""

from __future__ import annotations

from typing import Self

from ...interfaces import Durability
from .base import Connected
from .durability import check, examine


class Half(Connected):
    """See the module's docstring."""

    shared = True
    durable = True

    async def open(self) -> None:
        await self._client().command("PING")

    def twin(self) -> Self:
        return type(self)(
            self._target, url=self.url, namespace=self._namespace, timeout=self._timeout, ports=self._ports
        )

    async def check(self) -> None:
        """Unsupported where the server may throw away what it keeps, or is too old."""
        await check(self._client())

    async def durability(self) -> Durability:
        return await examine(self._client(), self._target)
