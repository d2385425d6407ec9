"""The whole conformance suite on real servers: Valkey, and Redis where it is installed. Nothing of it is left out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from tests import services
from tests.proxy import Proxy

from tasqueue.clock import Ports
from tasqueue.engines import connect
from tasqueue.interfaces import Capabilities, Engine
from tasqueue.testing import conformance
from tasqueue.testing.conformance.harness import Harness


class _Opened:
    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._namespace = f"test-{uuid4().hex}"

    def engine(self, ports: Ports, timeout: float = 2.0) -> Engine:
        return connect(
            f"redis://127.0.0.1:{self._proxy.port}/0", namespace=self._namespace, timeout=timeout, ports=ports
        )

    @property
    def outage(self) -> AbstractContextManager[None]:
        return self._proxy.silent()

    def discard(self) -> None:
        """What is left goes with the server."""


class RedisSource:
    """A namespace of its own for each test, all on one server."""

    def __init__(self, kind: str, proxy: Proxy) -> None:
        self.name = kind
        self._proxy = proxy

    def fresh(self, folder: Path) -> _Opened:
        return _Opened(self._proxy)


@pytest.fixture(scope="session", params=services.kinds())
def source(request: pytest.FixtureRequest) -> Iterator[RedisSource]:
    with services.server(request.param) as server, Proxy(server.port) as proxy:
        yield RedisSource(request.param, proxy)


@pytest_asyncio.fixture
async def h(source: RedisSource, tmp_path: Path) -> AsyncIterator[Harness]:
    """A fresh store. That nothing is skipped for want of a capability is asserted below."""
    harness = await Harness.start(source, tmp_path)
    try:
        yield harness
    finally:
        await harness.stop()


TOPICS = [module.name for module in pkgutil.iter_modules(conformance.__path__) if module.name.startswith("test_")]
for _topic in TOPICS:
    for _name, _test in vars(importlib.import_module(f"{conformance.__name__}.{_topic}")).items():
        if _name.startswith("test_"):
            globals()[f"{_topic}_{_name.removeprefix('test_')}"] = _test


async def test_it_declares_everything_that_there_is(h: Harness) -> None:
    assert h.engine.capabilities == Capabilities()
