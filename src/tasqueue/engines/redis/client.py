"""Calls to the server: which connection, time limits, repetitions, and the scripts.

Invariants: a connection whose exchange was not finished (an error, a time limit, a cancelled caller) is closed, so that
nobody reads another's reply. A call ends within `timeout`, all its attempts included.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import EngineUnavailable
from . import errors
from .scripts import Script, script
from .target import Address, Fixed, Locator, Sentinels, Slots, Target
from .wire import LOST, OutOfTime, Refusal, Wire, before, connect, pack, trust

MOST = 8
"""Connections for commands, at most."""
FIRST_PAUSE, LAST_PAUSE = 0.01, 0.25
"""Seconds between two attempts."""

_UNDECIDED = "the connection was lost before the answer came; it may have been done or not"


class Client:
    """Calls to one server, from one event loop. Connects when there is something to say."""

    def __init__(self, target: Target, url: str, prefix: bytes, timeout: float) -> None:
        self.url = url
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self._target = target
        self._prefix = prefix
        self._timeout = timeout
        self._locator = _locator(target, prefix)
        self._address: Address | None = None
        self._free: list[Wire] = []
        self._slots = asyncio.Semaphore(MOST)
        self._sent: set[bytes] = set()
        """Scripts that the server has been given by this client; it may have lost them since."""
        self._tls: ssl.SSLContext | None = None
        self._life = 0
        """Grows when everything that is connected must be connected anew."""
        self.moved: Callable[[], None] | None = None
        """Called then."""

    @property
    def is_here(self) -> bool:
        """Whether this is the loop and the process that it belongs to."""
        return self.pid == os.getpid() and self.loop is asyncio.get_running_loop()

    # -- calls --------------------------------------------------------------------------------------------------------

    async def run(
        self, name: str, args: Sequence[object], *, again: bool = True, durable: bool = False, ids: Sequence[str] = ()
    ) -> Any:
        """Run a script. `again`: it may be repeated when its answer was lost. `durable`: it counts only when the
        replicas that the URL asks for have it. `ids`: for the error of a submit.
        """
        what = script(name)
        call = pack(("EVALSHA", what.sha, 1, self._prefix, *args))
        extra = b""
        replies = 1
        if durable and self._target.wait:
            # WAIT looks at the last write of its own connection, and a repeated call may have written nothing.
            ms = max(1, int(self._timeout * 900))
            extra = pack(("SET", self._prefix + b"wait", b"", "PX", 60_000)) + pack(("WAIT", self._target.wait, ms))
            replies = 3
            if what.sha not in self._sent:  # in one go: refused for an unknown script, it would WAIT for nothing first
                call = pack(("EVAL", what.source, 1, self._prefix, *args))
                self._sent.add(what.sha)
        return await self._within(call + extra, replies, again, ids, (what, args, extra))

    async def command(self, *args: object, again: bool = True) -> Any:
        """Send a command."""
        return await self._within(pack(tuple(args)), 1, again, (), None)

    async def _within(
        self,
        packed: bytes,
        replies: int,
        again: bool,
        ids: Sequence[str],
        source: tuple[Script, Sequence[object], bytes] | None,
    ) -> Any:
        trouble: list[str] = []
        until = self.loop.time() + self._timeout
        try:
            return await self._persist(packed, replies, again, source, trouble, until)
        except OutOfTime:
            self.reset()  # a connection that has gone silent is not used again, and the master may be another by now
            said = f" ({trouble[-1]})" if trouble else ""
            raise EngineUnavailable(f"{self.url}: no answer within {self._timeout:g} s{said}", ids=ids) from None
        except EngineUnavailable as error:
            if ids:
                raise EngineUnavailable(str(error), ids=ids) from None
            raise

    async def _persist(
        self,
        packed: bytes,
        replies: int,
        again: bool,
        source: tuple[Script, Sequence[object], bytes] | None,
        trouble: list[str],
        until: float,
    ) -> Any:
        pause = 0.0
        while True:
            await (before(until, self._slots.acquire()) if self._slots.locked() else self._slots.acquire())
            connection, sent, life, keep = None, False, self._life, False
            try:
                connection = self._free.pop() if self._free else await self.connect(until)
                if not again and not connection.is_lost:
                    # If the server has closed it meanwhile, the loop may not have looked yet.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                if connection.is_lost:
                    raise ConnectionError("closed by the server")
                sent = True
                reply = await self._exchange(connection, packed, replies, until)
                if source is not None and isinstance(reply, Refusal) and errors.code(reply) == "NOSCRIPT":
                    what, args, extra = source
                    packed = pack(("EVAL", what.source, 1, self._prefix, *args)) + extra
                    reply = await self._exchange(connection, packed, replies, until)
                keep = True
                if not isinstance(reply, Refusal):
                    return reply
                error = reply
            except EngineUnavailable:
                keep = True
                raise
            except LOST as lost:
                error = lost
                if sent and not again:
                    raise EngineUnavailable(f"{self.url}: {_UNDECIDED} ({lost})") from None
            except Refusal as refusal:
                error = refusal
            finally:
                self._slots.release()
                if connection is not None:
                    if keep and life == self._life:
                        self._free.append(connection)
                    else:
                        connection.close()
            self._judge(error, trouble)
            await before(until, asyncio.sleep(pause))
            pause = min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE)

    def _judge(self, error: Exception, trouble: list[str]) -> None:
        """Returns when another attempt may help."""
        name = errors.code(error)
        if errors.UNTRUSTED in str(error) or (isinstance(error, Refusal) and name not in errors.AGAIN):
            raise errors.refused(self.url, error) from None
        trouble.append(str(error) or type(error).__name__)
        if name in errors.ELSEWHERE or not isinstance(error, Refusal):
            self.reset()

    async def _exchange(self, connection: Wire, packed: bytes, replies: int, until: float) -> Any:
        """The first reply; a refusal is returned, not raised: the connection is good."""
        got = await connection.exchange(packed, replies, until)
        if replies > 1 and not isinstance(got[0], Refusal):
            if isinstance(got[2], Refusal):
                return got[2]
            if got[2] < self._target.wait:
                wanted = self._target.wait
                raise EngineUnavailable(
                    f"{self.url}: stored, but {got[2]} of {wanted} replica(s) had it in time (?wait=)"
                )
        return got[0]

    # -- connections --------------------------------------------------------------------------------------------------

    async def connect(self, until: float) -> Wire:
        """A new connection to the master. LOST (a LookupError when nobody knows who that is), OutOfTime, Refusal."""
        if self._target.path:
            return await self._open(None, until)
        address = self._address
        if address is None:
            address = self._address = await before(until, self._locator.find(self._ask))
        connection = await self._open(address, until)
        if self._target.sentinel:
            role = await _role(connection, until)
            if role not in ("master", ""):
                connection.close()
                self._address = None
                raise ConnectionError(f"{address[0]}:{address[1]} is a {role}, its sentinels do not know yet")
        return connection

    async def _open(self, address: Address | None, until: float, *, sentinel: bool = False) -> Wire:
        target = self._target
        user: dict[str, Any] = {}
        if not sentinel:
            user = {"db": target.db, "username": target.username, "password": target.password}
        if address is None:
            return await connect(self.loop, path=target.path, until=until, **user)
        if target.tls and self._tls is None:
            self._tls = trust(target.files)
        return await connect(self.loop, host=address[0], port=address[1], tls=self._tls, until=until, **user)

    async def _ask(self, address: Address, command: tuple[str, ...]) -> Any:
        # One that is away must not cost the others their turn.
        until = self.loop.time() + max(0.2, self._timeout / 4)
        connection = await self._open(address, until, sentinel=command[0] == "SENTINEL")
        try:
            (reply,) = await connection.exchange(pack(tuple(command)), 1, until)
        finally:
            connection.close()
        if isinstance(reply, Refusal):
            raise reply
        return reply

    def reset(self) -> None:
        """Whoever is connected may be connected to the wrong one: look again, and connect anew."""
        self._address = None
        self._life += 1
        old, self._free = self._free, []
        for connection in old:
            connection.close()
        if self.moved is not None:
            self.moved()

    async def close(self) -> None:
        """Every connection that is not in use; the others when they are done."""
        self._life += 1
        old, self._free = self._free, []
        for connection in old:
            connection.close()


def _locator(target: Target, prefix: bytes) -> Locator:
    if target.sentinel:
        return Sentinels(target)
    if target.cluster:
        return Slots(target, _slot(prefix))
    return Fixed(target) if target.hosts else Fixed(Target((("", 0),)))


def _slot(prefix: bytes) -> int:
    """Of the keys with this prefix, `{…}:`; see the Redis Cluster specification."""
    return crc_hqx(prefix[1 : prefix.index(b"}")], 0) % 16384


async def _role(connection: Wire, until: float) -> str:
    """ "" when the server does not say: this user may not ask."""
    (reply,) = await connection.exchange(pack(("ROLE",)), 1, until)
    return "" if isinstance(reply, Refusal) else reply[0].decode()
