"""What all verbs of the memory engine start from: the store, the clock, and where this engine last looked for work."""

from __future__ import annotations

from ...clock import Ports
from ...core.status import State
from ...interfaces import Engine
from . import links
from .sleep import Sleeper
from .store import Job, Store


class Base(Engine):
    """The state of one engine object; the verbs are in `working`, `operating` and `reading`."""

    def __init__(self, store: Store, ports: Ports) -> None:
        self._store = store
        self._ports = ports
        self._looked = 0
        """The store's stamp at this engine's last claim."""
        self._sleepers: set[Sleeper] = set()
        """Those of this engine object, to be woken when it is closed."""

    def _now(self) -> int:
        return int(self._ports.now() * 1000)

    def _cancel(self, job: Job, ttl: int | None, now: int) -> bool:
        """Cancel a job that has not ended: True when it is done, False when its worker has to be asked."""
        store = self._store
        if job.state is State.RUNNING:
            store.asked.add(job.id)
            return False
        store.take_out(job)
        store.end(job, State.CANCELLED, ttl, now)
        if job.link:
            store.insert(links.job_ended(store, job, now), now)
        return True
