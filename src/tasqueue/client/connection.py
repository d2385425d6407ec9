"""Which engine a call uses: one per event loop and process.

A connection belongs to the loop that first used it. When that loop is closed, or after a fork, it goes on with a twin
of its engine; a second living loop is refused, since nothing that belongs to one loop may be touched from another.
"""

from __future__ import annotations

import asyncio
import os

from ..clock import Ports
from ..errors import InvalidJob, Unsupported
from ..interfaces import Broker, Engine, Results
from .setup import Options

DEFAULT_URL = "sqlite:///tasqueue.db"


class Session:
    """An engine on one loop in one process, opened by whoever comes first."""

    __slots__ = ("_lock", "engine", "loop", "opened", "pid")

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.loop = loop
        self.pid = os.getpid()
        self.opened = False
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Open the engine unless it is. A failure is the caller's; the next one tries again."""
        async with self._lock:
            if not self.opened:
                await self.engine.open()
                self.opened = True


class Connection:
    """Hands out the running loop's session."""

    __slots__ = ("_abandoned", "_engine", "_last", "_session")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: Session | None = None
        self._last: Session | None = None
        # Engines of another process or of a closed loop: kept, since closing a socket or a file of theirs from here
        # could disturb those who still use it (a POSIX lock ends with the first close of its file).
        self._abandoned: list[Engine] = []

    @property
    def url(self) -> str:
        """For people: without a password."""
        return self._engine.url

    def session(self) -> Session:
        """The running loop's; RuntimeError from a second loop while the first lives."""
        loop = asyncio.get_running_loop()
        session = self._session
        if session is None or session.loop is not loop or session.pid != os.getpid():
            session = self._session = self._renewed(session, loop)
        return session

    async def engine(self) -> Engine:
        """The running loop's engine, open. RuntimeError, EngineUnavailable."""
        session = self.session()
        if not session.opened:
            await session.open()
        return session.engine

    def twin(self) -> Connection:
        """Another connection to the same store, for another loop. Unsupported."""
        return Connection(self._engine.twin())

    async def close(self) -> None:
        """Close the engine; a later call opens it again."""
        if self._session is not None:
            session, self._last, self._session = self.session(), self._session, None
            await session.engine.close()

    def _renewed(self, old: Session | None, loop: asyncio.AbstractEventLoop) -> Session:
        if old is not None and old.pid == os.getpid() and not old.loop.is_closed():
            raise RuntimeError(
                f"this Server ({self.url}) belongs to another event loop, which is still open: in this thread use "
                "`srv.sync`, or make a Server of its own for this loop"
            )
        before = old or self._last
        if before is not None and (before.loop is not loop or before.pid != os.getpid()):
            try:
                twin = self._engine.twin()
            except Unsupported:
                if old is not None:  # it was not closed, so it cannot be opened here
                    raise
            else:
                self._abandoned.append(self._engine)
                self._engine = twin
        return Session(self._engine, loop)


def engine_of(
    engine: str | Engine | None,
    broker: str | Broker | Engine | None,
    results: str | Results | Engine | None,
    options: Options,
    ports: Ports,
) -> Engine:
    """The unopened engine that a Server was asked for. Unsupported, InvalidJob."""
    from ..engines import connect, connect_pair

    if (broker is None) != (results is None) or (engine is not None and broker is not None):
        raise InvalidJob(
            "Server takes one engine for both roles, Server(url), or a pair, Server(broker=…, results=…): "
            f"not engine={_name(engine)}, broker={_name(broker)}, results={_name(results)}"
        )
    if broker is not None and results is not None:
        if not isinstance(broker, Engine) and not isinstance(results, Engine):
            return connect_pair(broker, results, namespace=options.namespace, timeout=options.timeout, ports=ports)
        if broker is not results or not isinstance(broker, Engine):
            raise Unsupported(
                f"broker={_name(broker)}, results={_name(results)}: an Engine serves both roles or none; give URLs, or "
                "a Broker and a Results"
            )
        engine = broker
    engine = engine or os.environ.get("TASQUEUE_URL") or DEFAULT_URL
    if isinstance(engine, Engine):
        if options.namespace != "tasqueue":
            raise InvalidJob(
                f"namespace {options.namespace!r} beside {engine!r}: an Engine is made with its own namespace"
            )
        return engine
    if not isinstance(engine, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidJob(f"Server takes a URL or an Engine, not {type(engine).__name__} ({engine!r})")
    return connect(engine, namespace=options.namespace, timeout=options.timeout, ports=ports)


def _name(given: object) -> str:
    """For messages: never with a password."""
    if isinstance(given, str):
        from ..engines import redact

        return repr(redact(given))
    return repr(given.url) if isinstance(given, Engine) else repr(given)
