"""N1 to N8 of docs/original.md are faults of a backend that is not here yet: asking for it says so.

When there is a NATS engine this test fails, and each of the eight gets one of its own.
"""
# ruff: noqa: N802  (a test bears the numbers of its faults)

from __future__ import annotations

import pytest

from tasqueue import Server, Unsupported
from tasqueue.engines.memory.halves import MemoryBroker, MemoryResults


@pytest.mark.parametrize("url", ["nats://localhost:4222", "tls://localhost:4222", "nats://a,b?namespace=n"])
def test_N1_to_N8_nats_is_refused_with_the_reason(url: str) -> None:
    with pytest.raises(
        Unsupported, match=r"there is no engine for (nats|tls):// yet; these work: memory://.*sqlite:///"
    ):
        Server(url)
    with pytest.raises(Unsupported, match="broker="):
        Server(broker=url, results=MemoryResults())
    with pytest.raises(Unsupported, match="results="):
        Server(broker=MemoryBroker(), results=url)
