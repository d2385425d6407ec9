"""The whole conformance suite on NATS and on pairs of the library's own halves, less what a pair does not declare."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from tests import services
from tests.proxy import Proxy

from tasqueue.clock import Ports
from tasqueue.engines import connect, connect_pair
from tasqueue.interfaces import Engine
from tasqueue.testing import conformance
from tasqueue.testing.conformance.harness import Harness
from tasqueue.testing.conformance.sources import locked

PAIRS = ["nats", "redis+sqlite", "sqlite+redis", "memory+redis", "nats+redis", "redis+nats"]
"""Broker and results; of one word: both, by one URL. Any other: `pytest --pyargs tasqueue.testing.conformance --engine
'broker URL|results URL'`.
"""
SERVERS: dict[str, Callable[[], AbstractContextManager[services.Server | services.NatsServer]]] = {
    "redis": services.server,
    "nats": partial(services.nats, "max_payload: 8MB"),  # by default a message of 1 MB cannot hold a payload of 1 MiB
}
MEETING = (
    "claim",
    "concurrency",
    "due",
    "enqueue",
    "group",
    "lease",
    "lost_replies",
    "outage",
    "settle",
    "token",
    "wait",
)
"""Topics in which it matters which broker meets which results: who takes what under whose clock, which write comes
first, what a repetition finds, who is woken.
"""
PARTLY = ("nats+redis", "redis+nats")
"""Only those topics run on these: the whole suite takes over a minute, and each half has passed it in another pair."""
Ways = Callable[[str], Proxy]
"""The way to the server of a kind."""


class _Opened:
    def __init__(self, name: str, way: Ways, folder: Path) -> None:
        self._namespace = f"test-{uuid4().hex}"
        self._kinds = name.split("+")
        self._ways = {kind: way(kind) for kind in self._kinds if kind in SERVERS}
        self._files = {role: folder / f"{role}.db" for role in ("broker", "results")}
        self._urls = [self._url(kind, role) for kind, role in zip(self._kinds, self._files, strict=False)]

    def _url(self, kind: str, role: str) -> str:
        if kind in self._ways:
            return f"{kind}://127.0.0.1:{self._ways[kind].port}{'/0' if kind == 'redis' else ''}"
        # No disk is waited for: what its sync promises is the business of SQLite's own tests.
        return f"sqlite:///{self._files[role]}?synchronous=NORMAL" if kind == "sqlite" else "memory://pairs"

    def engine(self, ports: Ports, timeout: float = 2.0) -> Engine:
        if "nats" in self._kinds:  # a first claim on 500 queues makes 500 consumers
            timeout *= 2
        if len(self._urls) == 1:
            return connect(self._urls[0], namespace=self._namespace, timeout=timeout, ports=ports)
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
            for way in self._ways.values():
                stack.enter_context(way.silent())
            for kind, file in zip(self._kinds, self._files.values(), strict=False):
                if kind == "sqlite":
                    stack.enter_context(locked(file))
            yield

    def discard(self) -> None:
        """What is left goes with the server and the folder."""


class PairSource:
    """For each test a namespace of its own on one server of each kind, and files of its own."""

    def __init__(self, name: str, way: Ways) -> None:
        self.name = name
        self._way = way

    def fresh(self, folder: Path) -> _Opened:
        return _Opened(self.name, self._way, folder)


@pytest.fixture(scope="session")
def ways() -> Iterator[Ways]:
    """Each server is started when it is first asked for."""
    with contextlib.ExitStack() as stack:

        @cache
        def to(kind: str) -> Proxy:
            return stack.enter_context(Proxy(stack.enter_context(SERVERS[kind]()).port))

        yield to


@pytest.fixture(scope="session")
def source(request: pytest.FixtureRequest, ways: Ways) -> PairSource:
    return PairSource(request.param, ways)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "source" in metafunc.fixturenames:
        topic = metafunc.function.__module__.rpartition(".test_")[2]
        whole = topic in MEETING or topic not in {name.removeprefix("test_") for name in TOPICS}
        names = [name for name in PAIRS if whole or name not in PARTLY]
        metafunc.parametrize("source", names, ids=names, indirect=True, scope="session")


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
    nats = source.name.startswith("nats")
    assert (declared.shared, declared.durable, declared.thread_beat) == (not here, not here, not here)
    assert (declared.exact_pending, declared.live_status, declared.max_link) == (True, True, 1_000 if nats else 10_000)
    assert (declared.atomic_finish, declared.instant_handback, declared.server_fencing) == (False, False, False)
