"""The Redis engine, for Redis and Valkey: scripts that are one step each, over keys that share a slot.

To read it: `lua/base.lua` (the keys), `lua/record.lua` and `layout` (a job's record), then `working` with
`lua/submit.lua` and `lua/claim.lua`, `settling` with `lua/settle.lua`, `lua/links.lua`, `operating`, `reading`;
`client` (the one place that touches the driver), `target` (who is the master), `listener` (how sleepers are woken),
`durability`, `errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import SplitResult

from ...clock import Ports
from ...errors import TasqueueError
from ...interfaces import Capabilities
from .base import keys
from .client import Client
from .durability import check
from .errors import ServerUnusable
from .listener import Listener
from .operating import Operating
from .reading import Reading
from .settling import Settling
from .target import Target, parse
from .working import Working

__all__ = ["RedisEngine", "ServerUnusable", "engine"]

GOODBYE = 0.5
"""Seconds that the last call may take."""


class RedisEngine(Working, Settling, Operating, Reading):
    """A namespace of keys in one slot of a server, of what Sentinel says is the master, or of a cluster."""

    capabilities = Capabilities()

    def __init__(self, target: Target, *, url: str, namespace: str, timeout: float, ports: Ports) -> None:
        super().__init__(target, url=url, namespace=namespace, timeout=timeout, ports=ports)
        self._forgotten = {}

    async def open(self) -> None:
        await self._client().command("PING")

    async def register(self, worker: str, lease: int, info: bytes, tasks: Mapping[str, str], version: int) -> None:
        """Unsupported where the server may throw away what waits, or is too old."""
        await check(self._client())
        await super().register(worker, lease, info, tasks, version)

    async def close(self) -> None:
        client, listener = self._open_client, self._open_listener
        self._open_client = self._open_listener = None
        if client is None or not client.is_here:
            return
        if listener is not None:
            await listener.close()
            await _leave(client, listener)
        await client.close()

    def twin(self) -> RedisEngine:
        return RedisEngine(
            self._target, url=self.url, namespace=self._namespace, timeout=self._timeout, ports=self._ports
        )


async def _leave(client: Client, listener: Listener) -> None:
    """Not worth waiting for: what is noted there expires, and a sleeper without a subscription is passed over."""
    if listener.noted:
        try:
            async with asyncio.timeout(GOODBYE):
                await client.run("leave", (listener.name, *keys(sorted(listener.noted))))
        except (TimeoutError, TasqueueError):
            pass


def engine(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> RedisEngine:
    """For `tasqueue.engines.connect`."""
    return RedisEngine(parse(parts, options, shown), url=shown, namespace=namespace, timeout=timeout, ports=ports)
