"""The memory engine: the reference. Everything that the contract says, with nothing of a database in the way.

To read it: `store` (what is kept, and the places where a job can be), `working` (submit, claim, settle), `links`
(chains and groups), `operating`, `reading`; `order` and `sleep` are instruments. `halves` is something else: a broker
and results for a pair, and the example of how to write one's own.

Each verb takes the store's lock, does all its work, and lets go, so it is one step for engines on any loop or thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, unquote

from ...clock import Ports
from ...errors import InvalidJob
from ...interfaces import Capabilities
from .halves import MemoryBroker, MemoryResults
from .operating import Operating
from .reading import Reading
from .store import Store
from .working import Working

OPTIONS: frozenset[str] = frozenset()
"""What a URL may have after its `?`, besides `namespace`."""

_shared: dict[tuple[str, str], Store] = {}
"""Stores that have a name, by name and namespace; they live as long as the process."""
_brokers: dict[tuple[str, str], MemoryBroker] = {}
_results: dict[tuple[str, str], MemoryResults] = {}
"""The same of halves."""


class MemoryEngine(Working, Operating, Reading):
    """A store in this process. With a name it is shared by all engines of that name and namespace; without, private.

    A private store lives as long as its engine objects, open or closed. Nothing here could fail to answer in time,
    so no call takes longer than any `timeout`.
    """

    capabilities = Capabilities(shared=False, durable=False)

    def __init__(
        self, name: str = "", *, namespace: str, timeout: float, ports: Ports, store: Store | None = None
    ) -> None:
        if store is None:
            store = _shared.setdefault((name, namespace), Store()) if name else Store()
        super().__init__(store, ports)
        self.url = f"memory://{name}"
        self._name, self._namespace, self._timeout = name, namespace, timeout

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for sleeper in list(self._sleepers):
            sleeper.wake()

    def twin(self) -> MemoryEngine:
        return MemoryEngine(
            self._name, namespace=self._namespace, timeout=self._timeout, ports=self._ports, store=self._store
        )


def engine(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> MemoryEngine:
    """For `tasqueue.engines.connect`."""
    return MemoryEngine(_name(parts, shown), namespace=namespace, timeout=timeout, ports=ports)


def broker(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> MemoryBroker:
    """For `tasqueue.engines.connect_pair`. With a name it is shared by the pairs of one event loop."""
    name = _name(parts, shown)
    return _brokers.setdefault((name, namespace), MemoryBroker(ports.now)) if name else MemoryBroker(ports.now)


def results(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> MemoryResults:
    """For `tasqueue.engines.connect_pair`. With a name they are shared by the pairs of one event loop."""
    name = _name(parts, shown)
    return _results.setdefault((name, namespace), MemoryResults(ports.now)) if name else MemoryResults(ports.now)


def _name(parts: SplitResult, shown: str) -> str:
    if parts.path:
        raise InvalidJob(f"URL {shown!r}: memory://name has no path; a file is sqlite:///{parts.path.strip('/')}")
    return unquote(parts.netloc)
