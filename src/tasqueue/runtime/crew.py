"""What the parts of one worker share: the engine, the incarnation it works under, its lanes and its settler."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from ..client.registry import Registry
from ..clock import Ports
from ..events import Bus
from ..interfaces import Engine
from .lane import Lane
from .settler import Settler


def _nothing() -> None:
    return None


class Crew:
    """`worker` is the incarnation's name, "" while there is none (between a lost lease and the next one)."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        bus: Bus,
        ports: Ports,
        settler: Settler,
        max_deaths: int,
        isolates: bool,
    ) -> None:
        self.engine = engine
        self.registry = registry
        self.bus = bus
        self.ports = ports
        self.settler = settler
        self.max_deaths = max_deaths
        self.isolates = isolates
        """A job's last allowed run gets a child of its own; otherwise it waits until nothing else runs in this
        process."""
        self.worker = ""
        self.lanes: dict[str, Lane] = {}
        self.alone_queue = ""
        """A queue whose next job has to run with nothing beside it."""
        self.hungry: Callable[[], None] = _nothing
        """Called when a slot falls idle."""

    @property
    def busy(self) -> bool:
        """Whether anything is claimed and not yet answered for."""
        return self.settler.backlog > 0 or any(lane.ready or lane.running for lane in self.lanes.values())

    def new_name(self, suffix: str = "") -> str:
        """A name that no incarnation ever had: host, process, eight random digits."""
        return f"{socket.gethostname()}:{os.getpid()}:{self.ports.bits(4).hex()}{suffix}"
