"""The one place that touches the driver: connections, time limits, retries, and the scripts.

Invariants: a connection whose exchange was not finished (an error, a time limit, a cancelled caller) is closed, so that
nobody reads another's reply. A call ends within `timeout`, all its attempts included. The driver retries nothing by
itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis import exceptions as driver
from redis.asyncio import connection as connections
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from ...errors import EngineUnavailable
from . import errors
from .scripts import Script, script
from .target import Address, Fixed, Locator, Sentinels, Slots, Target

_pack_fast: Callable[[tuple[object, ...]], bytes] | None
try:
    import hiredis  # an optional part of the driver

    _pack_fast = cast("Any", hiredis).pack_command
except ImportError:
    _pack_fast = None

MOST = 8
"""Connections for commands, at most."""
FIRST_PAUSE, LAST_PAUSE = 0.01, 0.25
"""Seconds between two attempts."""

_Lost = (driver.ConnectionError, driver.TimeoutError, driver.InvalidResponse, OSError, LookupError)
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
        self._free: list[Any] = []
        self._slots = asyncio.Semaphore(MOST)
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
        call = _pack("EVALSHA", what.sha, 1, self._prefix, *args)
        extra = b""
        replies = 1
        if durable and self._target.wait:
            # WAIT looks at the last write of its own connection, and a repeated call may have written nothing.
            ms = max(1, int(self._timeout * 900))
            extra = _pack("SET", self._prefix + b"wait", b"", "PX", 60_000) + _pack("WAIT", self._target.wait, ms)
            replies = 3
        return await self._within(call + extra, replies, again, ids, (what, args, extra))

    async def command(self, *args: object, again: bool = True) -> Any:
        """Send a command."""
        return await self._within(_pack(*args), 1, again, (), None)

    async def _within(
        self,
        packed: bytes,
        replies: int,
        again: bool,
        ids: Sequence[str],
        source: tuple[Script, Sequence[object], bytes] | None,
    ) -> Any:
        trouble: list[str] = []
        try:
            async with asyncio.timeout(self._timeout):
                return await self._persist(packed, replies, again, source, trouble)
        except TimeoutError:
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
    ) -> Any:
        pause = 0.0
        while True:
            await self._slots.acquire()
            connection, sent, life, keep = None, False, self._life, False
            try:
                connection = self._free.pop() if self._free else await self.connect()
                if not again and await _is_stale(connection):
                    raise driver.ConnectionError("closed by the server")
                sent = True
                reply = await self._exchange(connection, packed, replies)
                if source is not None and isinstance(reply, driver.NoScriptError):
                    what, args, extra = source
                    reply = await self._exchange(
                        connection, _pack("EVAL", what.source, 1, self._prefix, *args) + extra, replies
                    )
                keep = True
                if not isinstance(reply, Exception):
                    return reply
                error = reply
            except EngineUnavailable:
                keep = True
                raise
            except driver.AuthenticationError as refusal:
                raise errors.refused(self.url, refusal) from None
            except _Lost as lost:
                error = lost
                if sent and not again and errors.code(lost) not in errors.AGAIN:
                    raise EngineUnavailable(f"{self.url}: {_UNDECIDED} ({lost})") from None
            except driver.RedisError as refusal:
                error = refusal
            finally:
                self._slots.release()
                if connection is not None:
                    if keep and life == self._life:
                        self._free.append(connection)
                    else:
                        await connection.disconnect(nowait=True)
            self._judge(error, trouble)
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE)

    def _judge(self, error: Exception, trouble: list[str]) -> None:
        """Returns when another attempt may help."""
        name = errors.code(error)
        if errors.UNTRUSTED in str(error) or (not isinstance(error, _Lost) and name not in errors.AGAIN):
            raise errors.refused(self.url, error) from None
        trouble.append(str(error) or type(error).__name__)
        if name in errors.ELSEWHERE or isinstance(error, (OSError, LookupError, driver.ConnectionError)):
            self.reset()

    async def _exchange(self, connection: Any, packed: bytes, replies: int) -> Any:
        """The first reply; a refusal is returned, not raised: the connection is good."""
        await connection.send_packed_command(packed, check_health=False)
        got: list[Any] = []
        for _ in range(replies):
            try:
                got.append(await connection.read_response())
            except driver.ResponseError as refusal:
                got.append(refusal)
        if replies > 1 and not isinstance(got[0], Exception):
            if isinstance(got[2], Exception):
                return got[2]
            if got[2] < self._target.wait:
                wanted = self._target.wait
                raise EngineUnavailable(
                    f"{self.url}: stored, but {got[2]} of {wanted} replica(s) had it in time (?wait=)"
                )
        return got[0]

    # -- connections --------------------------------------------------------------------------------------------------

    async def connect(self) -> Any:
        """A new connection to the master. The driver's errors; LookupError when nobody knows who that is."""
        if self._target.path:
            return await self._open(None)
        address = self._address
        if address is None:
            address = self._address = await self._locator.find(self._ask)
        connection = await self._open(address)
        if self._target.sentinel:
            role = await _role(connection)
            if role not in ("master", ""):
                await connection.disconnect(nowait=True)
                self._address = None
                raise driver.ConnectionError(f"{address[0]}:{address[1]} is a {role}, its sentinels do not know yet")
        return connection

    async def _open(self, address: Address | None, *, sentinel: bool = False) -> Any:
        target = self._target
        options: dict[str, Any] = {
            "socket_timeout": None,  # each call has one limit for all that it does
            "socket_connect_timeout": self._timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "socket_read_size": 1 << 18,
        }
        if not sentinel:
            options |= {"db": target.db, "username": target.username, "password": target.password}
        if address is None:
            connection: Any = connections.UnixDomainSocketConnection(path=target.path, **options)
        else:
            options |= {"host": address[0], "port": address[1], **target.files}
            connection = connections.SSLConnection(**options) if target.tls else connections.Connection(**options)
        try:
            await connection.connect()
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _ask(self, address: Address, command: tuple[str, ...]) -> Any:
        # One that is away must not cost the others their turn.
        async with asyncio.timeout(max(0.2, self._timeout / 4)):
            connection = await self._open(address, sentinel=command[0] == "SENTINEL")
            try:
                await connection.send_packed_command(_pack(*command), check_health=False)
                return await connection.read_response()
            finally:
                await connection.disconnect(nowait=True)

    def reset(self) -> None:
        """Whoever is connected may be connected to the wrong one: look again, and connect anew."""
        self._address = None
        self._life += 1
        old, self._free = self._free, []
        for connection in old:
            self.loop.create_task(connection.disconnect(nowait=True))
        if self.moved is not None:
            self.moved()

    async def close(self) -> None:
        """Every connection that is not in use; the others when they are done."""
        self._life += 1
        old, self._free = self._free, []
        for connection in old:
            await connection.disconnect()


def _locator(target: Target, prefix: bytes) -> Locator:
    if target.sentinel:
        return Sentinels(target)
    if target.cluster:
        return Slots(target, key_slot(prefix))
    return Fixed(target) if target.hosts else Fixed(Target((("", 0),)))


def _pack(*args: object) -> bytes:
    if _pack_fast is not None:
        return _pack_fast(args)
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


async def _is_stale(connection: Any) -> bool:
    look = getattr(connection, "can_read", None) or connection.can_read_destructive  # its name until redis-py 8
    try:
        return bool(await look())
    except Exception:  # whatever it is, this connection is not to be used
        return True


async def _role(connection: Any) -> str:
    """ "" when the server does not say: this user may not ask."""
    await connection.send_packed_command(_pack("ROLE"), check_health=False)
    try:
        return (await connection.read_response())[0].decode()
    except driver.ResponseError:
        return ""
