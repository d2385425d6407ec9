"""A store of each kind, and Servers over it: what the tests of the runtime start from."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tasqueue import Server

Make = Callable[..., Server]


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of its own for the test, which several Servers may share."""
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture
async def make(url: str) -> AsyncIterator[Make]:
    """Makes Servers over one store; closes them."""
    servers: list[Server] = []

    def make(engine: Any = None, **options: Any) -> Server:
        options = {"grace": 2.0, "lease": 3.0, "default_concurrency": 4, **options}
        servers.append(Server(engine or url, **options))
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


@pytest.fixture
def srv(make: Make) -> Server:
    """One Server."""
    return make()
