"""The memory engine: the reference. Everything that the contract says, with nothing of a database in the way.

To read it: `store` (what is kept, and the places where a job can be), `working` (submit, claim, settle), `links`
(chains and groups), `operating`, `reading`; `order` and `sleep` are instruments.

Each verb takes the store's lock, does all its work, and lets go, so it is one step for engines on any loop or thread.
"""

from __future__ import annotations

from ...clock import Ports
from ...interfaces import Capabilities
from .operating import Operating
from .reading import Reading
from .store import Store
from .working import Working

_shared: dict[tuple[str, str], Store] = {}
"""Stores that have a name, by name and namespace; they live as long as the process."""


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
