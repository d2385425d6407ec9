"""Where the engines under test come from: the library's own, or a URL. A source opens any number on one fresh store."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from ...clock import SYSTEM, Ports
from ...engines import connect, connect_pair
from ...engines.memory.halves import MemoryBroker, MemoryResults
from ...engines.split import SplitEngine
from ...interfaces import Engine

TIMEOUT = 2.0


class Opened(Protocol):
    """One fresh store."""

    def discard(self) -> None:
        """The test is over and every engine closed."""
        ...

    def engine(self, ports: Ports, timeout: float = TIMEOUT) -> Engine:
        """Another unopened engine object on it."""
        ...

    @property
    def outage(self) -> AbstractContextManager[None] | None:
        """Within it the store gives no answer. None: this harness cannot bring that about."""
        ...


class Source(Protocol):
    """An engine to be proved."""

    name: str

    def fresh(self, folder: Path) -> Opened: ...


class _Url:
    def __init__(self, url: str, namespace: str, outage: AbstractContextManager[None] | None = None) -> None:
        self.url = url
        self.namespace = namespace
        self.outage = outage

    def engine(self, ports: Ports, timeout: float = TIMEOUT) -> Engine:
        return connect(self.url, namespace=self.namespace, timeout=timeout, ports=ports)

    def discard(self) -> None:
        pass


class _File(_Url):
    def __init__(self, path: Path, query: str = "") -> None:
        super().__init__(f"sqlite:///{quote(str(path))}{query}", "tasqueue", locked(path))
        self._path = path

    def discard(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


class _TwoUrls:
    outage: AbstractContextManager[None] | None = None

    def __init__(self, broker: _Url, results: _Url, namespace: str) -> None:
        self._broker = broker
        self._results = results
        self._namespace = namespace

    def engine(self, ports: Ports, timeout: float = TIMEOUT) -> Engine:
        return connect_pair(
            self._broker.url, self._results.url, namespace=self._namespace, timeout=timeout, ports=ports
        )

    def discard(self) -> None:
        self._broker.discard()
        self._results.discard()


def _fresh(url: str, namespace: str) -> _Url:
    """A namespace of its own, or a file of its own beside the one that is named."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return _File(Path(f"{unquote(parts.path[1:])}.{namespace}"), f"?{parts.query}" if parts.query else "")
    # A private store in memory could not be opened twice.
    return _Url("memory://conformance" if url == "memory://" else url, namespace)


class UrlSource:
    """Anybody's store, fresh for each test. "broker|results": a pair of two URLs."""

    def __init__(self, url: str) -> None:
        self.name = url

    def fresh(self, folder: Path) -> Opened:
        namespace = f"conformance-{SYSTEM.bits(8).hex()}"
        broker, bar, results = self.name.partition("|")
        if bar and broker != results:
            return _TwoUrls(_fresh(broker, namespace), _fresh(results, namespace), namespace)
        return _fresh(broker, namespace)


class SqliteSource:
    """A file of its own for each test."""

    name = "sqlite"

    def fresh(self, folder: Path) -> Opened:
        return _File(folder / "conformance.db")


@contextmanager
def locked(path: Path) -> Generator[None]:
    """While somebody else holds the write lock of the file, nothing can be stored."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


class PairSource:
    """The example pair, put together by `engines.split`."""

    name = "split"

    def fresh(self, folder: Path) -> Opened:
        return _Pair()


class _Pair:
    outage: AbstractContextManager[None] | None = None

    def __init__(self) -> None:
        self._parts: tuple[MemoryBroker, MemoryResults] | None = None

    def engine(self, ports: Ports, timeout: float = TIMEOUT) -> Engine:
        if self._parts is None:
            self._parts = MemoryBroker(ports.now), MemoryResults(ports.now)
        return SplitEngine(*self._parts, ports=ports, timeout=timeout, namespace="tasqueue")

    def discard(self) -> None:
        pass


OWN: list[Source] = [UrlSource("memory://"), SqliteSource(), PairSource()]
