"""The Redis engine, for Redis and Valkey: scripts that are one step each, over keys that share a slot.

To read it: `lua/base.lua` (the keys), `lua/record.lua` and `layout` (a job's record), then `working` with
`lua/submit.lua` and `lua/claim.lua`, `settling` with `lua/settle.lua`, `lua/links.lua`, `operating`, `reading`;
`wire` (a connection), `client` (calls, time limits, repetitions), `target` (who is the master), `listener` (how
sleepers are woken), `durability`, `errors`. `broker` and `results` are halves of a pair (see docs/engines/pairs.md),
with scripts of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult

from ...clock import Ports
from ...interfaces import Capabilities
from .broker import RedisBroker
from .durability import check
from .errors import ServerUnusable
from .operating import Operating
from .reading import Reading
from .results import RedisResults
from .settling import Settling
from .target import Target, parse
from .working import Working

__all__ = ["OPTIONS", "RedisBroker", "RedisEngine", "RedisResults", "ServerUnusable", "broker", "engine", "results"]

OPTIONS = frozenset({"sentinel", "cluster", "wait", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
"""What a URL may have after its `?`, besides `namespace`."""


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

    def twin(self) -> RedisEngine:
        return RedisEngine(
            self._target, url=self.url, namespace=self._namespace, timeout=self._timeout, ports=self._ports
        )


def engine(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> RedisEngine:
    """For `tasqueue.engines.connect`."""
    return RedisEngine(parse(parts, options, shown), url=shown, namespace=namespace, timeout=timeout, ports=ports)


def broker(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> RedisBroker:
    """For `tasqueue.engines.connect_pair`."""
    return RedisBroker(parse(parts, options, shown), url=shown, namespace=namespace, timeout=timeout, ports=ports)


def results(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> RedisResults:
    """For `tasqueue.engines.connect_pair`."""
    return RedisResults(parse(parts, options, shown), url=shown, namespace=namespace, timeout=timeout, ports=ports)
