"""A Server on each embedded engine, closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasqueue import Server


@pytest.fixture(params=["memory", "sqlite"])
async def srv(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    async with Server("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/q.db", grace=1.0) as server:
        yield server
