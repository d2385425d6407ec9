"""The one bridge from blocking code to the async API: no method is written twice.

A `Bridge` runs one event loop in one background thread, with an engine of its own for the same store, started at the
first call. `SyncServer` and `SyncHandle` name each async method once; type checkers take over their signatures.
To block a thread whose event loop is running would stop everything on it: that is refused, naming what to await.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeAlias, TypeVar, overload

from ..core.job import Job
from ..core.message import JobMessage
from ..core.status import Status
from .connection import Connection
from .handle import Handle, decoder
from .inspector import Inspector
from .producer import Producer
from .setup import Setup

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R", covariant=True)
_Method: TypeAlias = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]

AT_EXIT = 5.0
"""Seconds that closing may take when nobody asked for it."""


class Backstage:
    """What works on the background loop: a connection of its own."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self.pid = os.getpid()
        self.producer = Producer(connection, setup)
        self.inspector = Inspector(connection, setup)
        self.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=_serve, args=(self.loop,), name="tasqueue-sync", daemon=True)
        thread.start()
        # Also when it is collected, and at exit, while the engine's own threads still live.
        self.close = weakref.finalize(self, _close, self.pid, self.loop, thread, connection)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _close(pid: int, loop: asyncio.AbstractEventLoop, thread: threading.Thread, connection: Connection) -> None:
    if pid != os.getpid() or not thread.is_alive():
        return
    if thread is not threading.current_thread():
        try:
            asyncio.run_coroutine_threadsafe(connection.close(), loop).result(AT_EXIT)
        except TimeoutError:
            pass  # the thread is a daemon: it ends with the process
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join(AT_EXIT)


class Bridge:
    """Calls an async method from a thread without a running loop, and waits for what it returns."""

    def __init__(self, connection: Connection, setup: Setup) -> None:
        self._connection = connection
        self._setup = setup
        self._lock = threading.Lock()
        self._backstage: Backstage | None = None

    def call(
        self,
        pick: Callable[[Backstage], S],
        method: _Method[S, P, T],
        awaitable: str,
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`method` of what `pick` picks. RuntimeError on a thread whose event loop is running, with the awaitable."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(
                f"a blocking call on a thread whose event loop is running would stop that loop: use `{awaitable}`, or "
                "call it from another thread, as asyncio.to_thread does"
            )
        backstage = self._started()
        future = asyncio.run_coroutine_threadsafe(method(pick(backstage), *args, **kwargs), backstage.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # KeyboardInterrupt while waiting: nobody will read the answer
            raise

    def enqueue(self, job: Job[Any], awaitable: str) -> str:
        """`Producer.enqueue`, blocking."""
        return self.call(_producer, Producer.enqueue, awaitable, job)

    @property
    def started(self) -> bool:
        """Whether its thread runs."""
        return self._backstage is not None

    def close(self) -> None:
        """End the thread and close its engine; a later call starts another."""
        with self._lock:
            backstage, self._backstage = self._backstage, None
        if backstage is not None:
            backstage.close()

    def _started(self) -> Backstage:
        with self._lock:
            if self._backstage is None or self._backstage.pid != os.getpid():
                self._backstage = Backstage(self._connection.twin(), self._setup)
            return self._backstage


def _producer(backstage: Backstage) -> Producer:
    return backstage.producer


def _inspector(backstage: Backstage) -> Inspector:
    return backstage.inspector


class SyncHandle(Generic[R]):
    """A `Handle` for threads."""

    __slots__ = ("_bridge", "_decode", "id")

    def __init__(self, id: str, decode: Callable[[bytes], R], bridge: Bridge) -> None:
        self.id = id
        self._decode = decode
        self._bridge = bridge

    def __repr__(self) -> str:
        return f"SyncHandle({self.id!r})"

    def _handle(self, backstage: Backstage) -> Handle[R]:
        return Handle(self.id, self._decode, backstage.inspector)

    def status(self) -> Status:
        """As `Handle.status`."""
        return self._bridge.call(self._handle, Handle[R].status, "await handle.status()")

    def message(self) -> JobMessage:
        """As `Handle.message`."""
        return self._bridge.call(self._handle, Handle[R].message, "await handle.message()")

    def result(self, timeout: float | None = None) -> R:
        """As `Handle.result`."""
        return self._bridge.call(self._handle, Handle[R].result, "await handle.result(...)", timeout)

    def cancel(self) -> bool:
        """As `Handle.cancel`."""
        return self._bridge.call(self._handle, Handle[R].cancel, "await handle.cancel()")


class _Blocking(Generic[S, P, T]):
    """An async method as a blocking one of `SyncServer`."""

    def __init__(self, pick: Callable[[Backstage], S], method: _Method[S, P, T]) -> None:
        self._pick = pick
        self._method: Any = method
        self.__doc__ = method.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._awaitable = f"await srv.{name}(...)"

    @overload
    def __get__(self, server: None, owner: type) -> Self: ...
    @overload
    def __get__(self, server: SyncServer, owner: type) -> Callable[P, T]: ...
    def __get__(self, server: SyncServer | None, owner: type) -> Self | Callable[P, T]:
        if server is None:
            return self
        return partial(server.bridge.call, self._pick, self._method, self._awaitable)


class SyncServer:
    """`srv.sync`: the calls of `Server`, blocking, from any thread. `close` ends the thread behind it."""

    __slots__ = ("_setup", "bridge")

    def __init__(self, bridge: Bridge, setup: Setup) -> None:
        self.bridge = bridge
        self._setup = setup

    def get_tasks(self) -> list[str]:
        """The names of the registered tasks, sorted."""
        return sorted(self._setup.registry.tasks)

    @overload
    def handle(self, id: str) -> SyncHandle[bytes]: ...
    @overload
    def handle(self, id: str, type: type[T]) -> SyncHandle[T]: ...
    @overload
    def handle(self, id: str, type: Any) -> SyncHandle[Any]: ...
    def handle(self, id: str, type: Any = bytes) -> SyncHandle[Any]:
        """A handle that blocks."""
        return SyncHandle(id, decoder(type), self.bridge)

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        self.bridge.close()

    enqueue = _Blocking(_producer, Producer.enqueue)
    enqueue_many = _Blocking(_producer, Producer.enqueue_many)
    enqueue_chain = _Blocking(_producer, Producer.enqueue_chain)
    enqueue_group = _Blocking(_producer, Producer.enqueue_group)
    get_job = _Blocking(_inspector, Inspector.get_job)
    get_result = _Blocking(_inspector, Inspector.get_result)
    get_chain = _Blocking(_inspector, Inspector.get_chain)
    get_group = _Blocking(_inspector, Inspector.get_group)
    get_pending = _Blocking(_inspector, Inspector.get_pending)
    get_failed = _Blocking(_inspector, Inspector.get_failed)
    get_success = _Blocking(_inspector, Inspector.get_success)
    get_schedules = _Blocking(_inspector, Inspector.get_schedules)
    delete_job = _Blocking(_inspector, Inspector.delete_job)
    delete_schedule = _Blocking(_inspector, Inspector.delete_schedule)
    cancel = _Blocking(_inspector, Inspector.cancel)
    cancel_chain = _Blocking(_inspector, Inspector.cancel_chain)
    cancel_group = _Blocking(_inspector, Inspector.cancel_group)
    retry = _Blocking(_inspector, Inspector.retry)
    pause = _Blocking(_inspector, Inspector.pause)
    resume = _Blocking(_inspector, Inspector.resume)
    wait = _Blocking(_inspector, Inspector.wait)
    wait_chain = _Blocking(_inspector, Inspector.wait_chain)
    wait_group = _Blocking(_inspector, Inspector.wait_group)
    explain = _Blocking(_inspector, Inspector.explain)
