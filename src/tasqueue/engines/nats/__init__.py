"""NATS JetStream, from server 2.12: a broker and results on one connection, and the engine that they make.

No server-side step spans a message and a record, so `nats://` is the split engine over the two, in its order (design,
G3): the record decides, a compare-and-set on its revision. The broker's docstring says which of its steps are atomic
or ordered, and what a crash leaves.

To read it: `target` (what a URL says), `connection` (the one place that touches the driver), `names` (subjects, streams
and consumers), `streams`, `lanes` (pulls and watches of one queue and priority), `broker`, `results`, `durability`,
`errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult

from ...clock import Ports
from ..split import SplitEngine
from .broker import NatsBroker
from .connection import Connection
from .errors import ServerUnusable
from .results import NatsResults
from .target import OPTIONS, parse

__all__ = ["OPTIONS", "NatsBroker", "NatsResults", "ServerUnusable", "broker", "engine", "results"]


def broker(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> NatsBroker:
    """For a pair of this broker and other results."""
    return NatsBroker(Connection(parse(parts, options, shown), shown, timeout=timeout, ports=ports), namespace)


def results(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> NatsResults:
    """For a pair of another broker and these results."""
    return NatsResults(Connection(parse(parts, options, shown), shown, timeout=timeout, ports=ports), namespace)


def engine(
    parts: SplitResult, options: Mapping[str, str], *, shown: str, namespace: str, timeout: float, ports: Ports
) -> SplitEngine:
    """For `tasqueue.engines.connect`: both roles, on one connection."""
    connection = Connection(parse(parts, options, shown), shown, timeout=timeout, ports=ports)
    made = SplitEngine(
        NatsBroker(connection, namespace),
        NatsResults(connection, namespace),
        ports=ports,
        timeout=timeout,
        namespace=namespace,
    )
    made.url = shown
    return made
