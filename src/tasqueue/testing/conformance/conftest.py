"""Which engines the suite runs on, and the fixture that every test starts from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from .harness import Harness
from .sources import OWN, Source, UrlSource


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*capabilities): skipped on an engine that does not declare them")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "source" in metafunc.fixturenames:
        urls: list[str] = metafunc.config.getoption("--engine", default=None) or []
        sources: list[Source] = [UrlSource(url) for url in urls] or OWN
        metafunc.parametrize("source", sources, ids=[source.name for source in sources])


@pytest_asyncio.fixture
async def h(source: Source, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A fresh store of the engine under test. With TASQUEUE_TEST_LACKING set, nothing is skipped for want of a
    capability, so that each lack can be seen.
    """
    harness = await Harness.start(source, tmp_path)
    try:
        if "TASQUEUE_TEST_LACKING" not in os.environ:
            harness.skip_what_it_lacks(request.node)
        yield harness
    finally:
        await harness.stop()
