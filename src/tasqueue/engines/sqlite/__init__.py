"""The SQLite engine: one file, used by any number of processes of one machine.

To read it: `sql/schema.sql` (what is kept, and the places where a job can be), `lane` (how calls share transactions),
`working` and `settling` (the hot path), `links`, `operating`, `reading`, `wake` (how sleepers learn of news),
`database` (connections, migrations, checkpoints), `errors`."""

from __future__ import annotations

import asyncio

from ...clock import Ports
from ...interfaces import Capabilities
from .errors import FileUnusable
from .operating import Operating
from .reading import Reading
from .settling import Settling
from .working import Working

__all__ = ["FileUnusable", "SqliteEngine"]


class SqliteEngine(Working, Settling, Operating, Reading):
    """A namespace of tables in a database file. `synchronous`: SQLite's pragma of that name, for what must be
    durable."""

    capabilities = Capabilities()

    def __init__(self, path: str, *, namespace: str, timeout: float, ports: Ports, synchronous: str = "FULL") -> None:
        super().__init__(path, namespace=namespace, timeout=timeout, ports=ports, synchronous=synchronous)
        self._forgotten = {}

    async def open(self) -> None:
        await self._write(lambda tx: None, durable=False)

    async def close(self) -> None:
        open, self._now_open = self._now_open, None
        if open is None:
            return
        open.poller.close()
        for lane in (open.writer, open.reader):
            if lane is not None and open.loop is asyncio.get_running_loop():
                await lane.stop(self._timeout + 1)

    def twin(self) -> SqliteEngine:
        return SqliteEngine(
            self._path,
            namespace=self._namespace,
            timeout=self._timeout,
            ports=self._ports,
            synchronous=self._synchronous,
        )
