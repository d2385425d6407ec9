"""A Server on a private memory engine, closed after the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tasqueue import Server


@pytest.fixture
async def srv(tmp_path: "object") -> AsyncIterator[Server]:
    async with Server(f"sqlite:///{tmp_path}/q.db", grace=1.0) as server:
        yield server
