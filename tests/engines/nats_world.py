"""Brokers on a NATS server of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import count
from urllib.parse import parse_qsl, urlsplit

import pytest
from tests import services

from tasqueue.clock import SYSTEM
from tasqueue.engines import redact
from tasqueue.engines.nats.broker import NatsBroker
from tasqueue.engines.nats.connection import Connection
from tasqueue.engines.nats.target import parse
from tasqueue.interfaces import Delivery, Message

_numbers = count()


@pytest.fixture(scope="session")
def nats() -> Iterator[services.NatsServer]:
    with services.nats() as server:
        yield server


def connection(url: str, timeout: float = 5.0) -> Connection:
    parts = urlsplit(url)
    return Connection(
        parse(parts, dict(parse_qsl(parts.query, keep_blank_values=True)), redact(url)),
        redact(url),
        timeout=timeout,
        ports=SYSTEM,
    )


def broker(url: str, namespace: str = "", timeout: float = 5.0) -> NatsBroker:
    """With a connection of its own; in a namespace of its own unless one is named."""
    return NatsBroker(connection(url, timeout), namespace or f"test {next(_numbers)}")


@contextlib.asynccontextmanager
async def opened(url: str, namespace: str = "", timeout: float = 5.0) -> AsyncIterator[NatsBroker]:
    one = broker(url, namespace, timeout)
    try:
        await one.open()
        yield one
    finally:
        await one.close()


def messages(*ids: str, priority: int = 0) -> list[Message]:
    return [Message(id, f"body of {id}".encode(), priority) for id in ids]


def ids(found: Sequence[Message] | Sequence[Delivery]) -> list[str]:
    return [one.id for one in found]
