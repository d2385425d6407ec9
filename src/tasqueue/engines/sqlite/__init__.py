"""The SQLite engine: one file, used by any number of processes of one machine.

To read it: `sql/schema.sql` (what is kept, and the places where a job can be), `lane` (how calls share transactions),
`working` and `settling` (the hot path), `links`, `operating`, `reading`, `wake` (how sleepers learn of news),
`database` (connections, migrations, checkpoints), `errors`. `broker` and `results` are halves of a pair (see
docs/engines/pairs.md), with tables of their own."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, unquote

from ...clock import Ports
from ...errors import InvalidJob, Unsupported
from ...interfaces import Capabilities
from .broker import SqliteBroker
from .errors import FileUnusable
from .operating import Operating
from .reading import Reading
from .results import SqliteResults
from .settling import Settling
from .working import Working

__all__ = ["OPTIONS", "FileUnusable", "SqliteBroker", "SqliteEngine", "SqliteResults", "broker", "engine", "results"]

OPTIONS = frozenset({"synchronous"})
"""What a URL may have after its `?`, besides `namespace`."""


class SqliteEngine(Working, Settling, Operating, Reading):
    """A namespace of tables in a database file. `synchronous`: SQLite's pragma of that name, for what must be
    durable."""

    capabilities = Capabilities()

    def __init__(self, path: str, *, namespace: str, timeout: float, ports: Ports, synchronous: str = "FULL") -> None:
        super().__init__(path, namespace=namespace, timeout=timeout, ports=ports, synchronous=synchronous)
        self._forgotten = {}

    def twin(self) -> SqliteEngine:
        return SqliteEngine(
            self._path,
            namespace=self._namespace,
            timeout=self._timeout,
            ports=self._ports,
            synchronous=self._synchronous,
        )


def engine(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> SqliteEngine:
    """For `tasqueue.engines.connect`."""
    return SqliteEngine(_path(parts, shown), namespace=namespace, timeout=timeout, ports=ports, **options)


def broker(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> SqliteBroker:
    """For `tasqueue.engines.connect_pair`."""
    return SqliteBroker(_path(parts, shown), namespace=namespace, timeout=timeout, ports=ports, **options)


def results(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> SqliteResults:
    """For `tasqueue.engines.connect_pair`."""
    return SqliteResults(_path(parts, shown), namespace=namespace, timeout=timeout, ports=ports, **options)


def _path(parts: SplitResult, shown: str) -> str:
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or ":///" not in shown:
        said = " (after two slashes comes a host, and a file has none)" if parts.netloc else ""
        raise InvalidJob(
            f"URL {shown!r}: three slashes and a path, sqlite:///relative.db, or four for an absolute one{said}"
        )
    if path == ":memory:":
        raise Unsupported(f"URL {shown!r}: SQLite's private database cannot be shared by threads; use memory://")
    return path
