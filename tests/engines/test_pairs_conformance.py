"""The whole conformance suite on pairs of the library's own halves, less what a pair does not declare."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from tests import services
from tests.proxy import Proxy

from tasqueue.clock import Ports
from tasqueue.engines import connect_pair
from tasqueue.interfaces import Engine
from tasqueue.testing import conformance
from tasqueue.testing.conformance.harness import Harness
from tasqueue.testing.conformance.sources import locked

PAIRS = [("redis", "sqlite"), ("sqlite", "redis"), ("memory", "redis")]
"""Broker and results. Any other: `pytest --pyargs tasqueue.testing.conformance --engine 'broker URL|results URL'`."""


class _Opened:
    def __init__(self, pair: tuple[str, str], proxy: Proxy, folder: Path) -> None:
        self._namespace = f"test-{uuid4().hex}"
        self._proxy = proxy
        self._files = {role: folder / f"{role}.db" for role in ("broker", "results")}
        self._kinds = pair
        self._urls = [self._url(kind, role) for kind, role in zip(pair, self._files, strict=True)]

    def _url(self, kind: str, role: str) -> str:
        redis = f"redis://127.0.0.1:{self._proxy.port}/0"
        # No disk is waited for: what its sync promises is the business of SQLite's own tests.
        sqlite = f"sqlite:///{self._files[role]}?synchronous=NORMAL"
        return {"redis": redis, "sqlite": sqlite, "memory": "memory://pairs"}[kind]

    def engine(self, ports: Ports, timeout: float = 2.0) -> Engine:
        return connect_pair(*self._urls, namespace=self._namespace, timeout=timeout, ports=ports)

    @property
    def outage(self) -> AbstractContextManager[None]:
        return self._silence()

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """Of both halves, but for one in this process."""
        with contextlib.ExitStack() as stack:
            if "redis" in self._kinds:
                time.sleep(0.006)  # for so long the server's clock goes on without it
                stack.enter_context(self._proxy.silent())
            for kind, file in zip(self._kinds, self._files.values(), strict=True):
                if kind == "sqlite":
                    stack.enter_context(locked(file))
            yield

    def discard(self) -> None:
        """What is left goes with the server and the folder."""


class PairSource:
    """For each test a namespace of its own on one server, and files of its own."""

    def __init__(self, pair: tuple[str, str], proxy: Proxy) -> None:
        self.name = "+".join(pair)
        self._pair = pair
        self._proxy = proxy

    def fresh(self, folder: Path) -> _Opened:
        return _Opened(self._pair, self._proxy, folder)


@pytest.fixture(scope="session")
def proxy() -> Iterator[Proxy]:
    with services.server() as server, Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(scope="session", params=PAIRS, ids="+".join)
def source(request: pytest.FixtureRequest, proxy: Proxy) -> PairSource:
    return PairSource(request.param, proxy)


@pytest_asyncio.fixture
async def h(source: PairSource, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    harness = await Harness.start(source, tmp_path)
    try:
        harness.skip_what_it_lacks(request.node)
        yield harness
    finally:
        await harness.stop()


TOPICS = [module.name for module in pkgutil.iter_modules(conformance.__path__) if module.name.startswith("test_")]
for _topic in TOPICS:
    for _name, _test in vars(importlib.import_module(f"{conformance.__name__}.{_topic}")).items():
        if _name.startswith("test_"):
            globals()[f"{_topic}_{_name.removeprefix('test_')}"] = _test


async def test_it_declares_what_its_halves_do(h: Harness, source: PairSource) -> None:
    declared = h.engine.capabilities
    here = "memory" in source.name
    assert (declared.shared, declared.durable, declared.thread_beat) == (not here, not here, not here)
    assert (declared.exact_pending, declared.live_status, declared.max_link) == (True, True, 10_000)
    assert (declared.atomic_finish, declared.instant_handback, declared.server_fencing) == (False, False, False)
