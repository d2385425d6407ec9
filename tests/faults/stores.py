"""The stores that the fault tests run on, and what differs between them: an entry each.

A name is that of one engine (`redis`), or of a broker and of results with a plus between them. Servers are started
once a session, by the first test that needs one; each test has a namespace of its own there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from tests import services

from tasqueue.core.status import State
from tasqueue.interfaces import Engine, Filter

AnyServer = services.Server | services.NatsServer
SERVERS: dict[str, Callable[[], AbstractContextManager[AnyServer]]] = {
    "redis": partial(services.server, "valkey", "--appendonly", "yes", "--appendfsync", "always"),
    "nats": partial(services.nats, jetstream="sync_interval: always"),
}
"""How to start each kind, so that what it has acknowledged survives a kill -9."""
FILE = "jobs.db"
"""Of SQLite, in the folder of the test."""
WHOLE = ("sqlite", "redis")
"""Engines with one atomic step for each finish."""
ALL = os.environ.get("TASQUEUE_TEST_FAULTS") == "all"
"""Whether NATS and pairs with it have their turn, too: they take as long again as all the others."""
ENGINES = (*WHOLE, "nats") if ALL else WHOLE
HALVES = ("nats", "nats+redis", "redis+nats")
STORES = (*WHOLE, *HALVES) if ALL else WHOLE


class Where(NamedTuple):
    """The parameter of the fixture `fleet`. `own`: the servers are this test's alone, to be killed and frozen."""

    name: str
    own: bool = False


def _on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fleet", [Where(name) for name in names], ids=names, indirect=True)


on_whole_engines = _on(*WHOLE)
on_every_engine = _on(*ENGINES)
on_every_store = _on(*STORES)
on_what_has_two_halves = _on(*(HALVES if ALL else HALVES[:1]))
on_servers_of_its_own = pytest.mark.parametrize(
    "fleet", [pytest.param(Where(name, own=True), id=name) for name in ENGINES if name != "sqlite"], indirect=True
)


class Store:
    """Where one test's jobs are: on servers. `urls`: of the broker and of the results, the same when they are one."""

    volume = 1.0
    """The part of the usual number of jobs that a test has here."""

    def __init__(self, urls: tuple[str, str], servers: Sequence[AnyServer] = ()) -> None:
        self.settings = {"broker": urls[0], "results": urls[1], "namespace": f"faults-{uuid4().hex}"}
        """What every Server of the test is given."""
        self.servers = servers

    async def held(self, engine: Engine, pid: int) -> int:
        """How many jobs the process of this pid holds, as the store knows it now."""
        return sum(row.held for row in await engine.workers() if f":{pid}:" in row.id)

    def may_be_stopped(self) -> bool:
        """Whether the processes that are stopped at this moment keep nobody else from writing."""
        return True


class PairStore(Store):
    """Two halves, of one server perhaps. A worker's record says how many jobs it held at its last claim or beat, so
    they are counted one by one; what it has been handed and has not claimed, its handlers have not begun.
    """

    volume = 0.2

    async def held(self, engine: Engine, pid: int) -> int:
        found = 0
        after: str | None = None
        while rows := await engine.jobs(Filter(states=[State.RUNNING]), 1_000, after):
            found += sum(f":{pid}:" in row.worker for row in rows)
            after = rows[-1].id
        return found


class FileStore(Store):
    """A SQLite file: whoever is stopped in the middle of a write keeps it locked for everybody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__((f"sqlite:///{path}",) * 2)

    def may_be_stopped(self) -> bool:
        connection = sqlite3.connect(self._path, timeout=0.2, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            return True
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()


def store(name: str, folder: Path, running: Callable[[str], AnyServer]) -> Store:
    """A new store under this name; `running` gives the started server of a kind."""
    if name == "sqlite":
        return FileStore(folder / FILE)
    servers = [running(kind) for kind in name.split("+")]
    kind = Store if name in WHOLE else PairStore
    return kind((servers[0].url, servers[-1].url), servers)
