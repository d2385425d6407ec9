"""`fleet`: a store, and the processes of one test; none of them outlives it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .fleet import Fleet
from .stores import SERVERS, AnyServer, Where, store

Running = Callable[[str], AnyServer]


class Started:
    """Servers by kind, each started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[str, AnyServer] = {}

    def __call__(self, kind: str) -> AnyServer:
        if kind not in self._servers:
            self._servers[kind] = self._stack.enter_context(SERVERS[kind]())
        return self._servers[kind]


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[Running]:
    with ExitStack() as stack:
        yield Started(stack)


@pytest.fixture
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """On the store that its parameter says; without one, on a SQLite file."""
    where: Where = getattr(request, "param", Where("sqlite"))
    with ExitStack() as stack:
        running: Running = Started(stack)
        if not where.own and where.name != "sqlite":
            running = request.getfixturevalue("shared_servers")
        fleet = Fleet(tmp_path, store(where.name, tmp_path, running))
        try:
            yield fleet
        finally:
            await fleet.close()
