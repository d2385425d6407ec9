"""What a Server hands to the worker that it starts. A value; the worker's side of it is in `runtime/worker.py`."""

from __future__ import annotations

from typing import Any

import msgspec

from ..clock import Ports
from ..events import Bus
from ..interfaces import Engine
from .producer import Producer
from .registry import Registry
from .setup import Around, Lifespan, Options


class Parts(msgspec.Struct):
    """What a worker is made of. `engine` is the running loop's, open; `server` is what `lifespan` is given."""

    engine: Engine
    registry: Registry
    bus: Bus
    ports: Ports
    options: Options
    around: list[Around]
    producer: Producer
    lifespan: Lifespan | None
    server: Any
    app: str | None = None
    """`module:attribute` of the Server, known in a worker child."""
