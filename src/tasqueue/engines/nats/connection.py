"""The one place that touches the driver: one connection per event loop, calls with a time limit, retries, the server's
clock.

Invariants: nothing is buffered while there is no connection (the driver's own reconnection, which does that, is off: a
connection that is lost is thrown away, and the next call makes another). A call ends within `timeout`, all its attempts
included. Whatever is asked for in one call travels in one flight. After `publish` has returned, `settled` (and so
`close`) makes sure that the server has read it.

What a call may meet, and what it does: no connection: connects, again and again; the connection is lost before all
replies came: asks again for the missing ones (`again`), or fails; "no responders" (no leader, JetStream not up yet, a
stream or a consumer that somebody has deleted): runs the `setups` that create what is missing, and asks again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from nats import errors as driver
from nats.aio.msg import Msg

from ...clock import Ports
from ...errors import EngineUnavailable, PayloadTooLarge, Unsupported
from . import errors
from .errors import ApiError, ServerUnusable
from .session import Call, Driver, Lost, Reply, Session, refusal, timestamp
from .target import Target

OLDEST = (2, 12)
"""The first server with what the broker and the results stand on: scheduled messages, atomic batches, TTLs."""
FIRST_PAUSE, LAST_PAUSE = 0.01, 0.25
"""Seconds between two attempts."""
ATTEMPT = 2.0
"""Seconds that one server may take to let us in: then the next one is asked."""
FRESH = 10.0
"""Seconds after which the difference to the server's clock is measured anew."""
HEADERS = 4_096
"""Of the server's max_payload, what is left for headers."""
PATIENCE = 1.0
"""Seconds after which what changes nothing is asked for again: while a cluster elects a leader, nobody hears it."""
IN_FLIGHT = 2_000
"""Calls under way at once; further ones of the same batch follow."""

_log = logging.getLogger(__name__)
_UNDECIDED = "the connection was lost before the answer came; it may have been done or not"


class _Home:
    """What belongs to one event loop: the session, and what every session begins with."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pid = os.getpid()
        self.session: Session | None = None
        self.connecting: asyncio.Task[Session] | None = None
        self.subscriptions: dict[str, Callable[[Msg], Awaitable[None]]] = {}
        self.trouble = ""
        self.found: list[str] = []
        """Servers of the cluster that the URL does not name."""
        self.tasks: set[asyncio.Task[None]] = set()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it on the side; closing waits for it."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


Setup = Callable[[], Awaitable[None]]


class Connection:
    """Shared by a broker and its results, and by their twins: each event loop has a connection of its own."""

    def __init__(self, target: Target, url: str, *, timeout: float, ports: Ports) -> None:
        self.url = url
        self.target = target
        self.ports = ports
        # A little less than whoever calls has: so that the error that says why comes first.
        self.timeout = max(timeout * 0.9, timeout - 0.1)
        self.setups: list[Setup] = []
        """Each creates streams where they are missing, by `api(…, setup=True)`; may be called at any time."""
        self._homes: dict[asyncio.AbstractEventLoop, _Home] = {}

    # -- calls --------------------------------------------------------------------------------------------------------

    async def requests(
        self, calls: Sequence[Call], *, again: bool = True, deaf: bool = False, patience: float | None = None
    ) -> list[Reply]:
        """The replies, in order. `again`: a call may be repeated when its answer was lost; with `patience`, when there
        is none in so many seconds. `deaf`: that nobody is there to hear it is an answer (status "503").
        EngineUnavailable, PayloadTooLarge (before anything is sent).
        """
        replies: list[Reply | None] = [None] * len(calls)
        async with self.limit():
            await self._fits(calls)
            for start in range(0, len(calls), IN_FLIGHT):
                part = replies[start : start + IN_FLIGHT]
                await self._persist(calls[start : start + IN_FLIGHT], part, again, deaf=deaf, patience=patience)
                replies[start : start + IN_FLIGHT] = part
        return [reply for reply in replies if reply is not None]

    async def _fits(self, calls: Sequence[Call]) -> None:
        await self.session()
        most = self.room
        largest = max((len(call.payload) for call in calls), default=0)
        if largest > most:
            raise PayloadTooLarge(
                f"{self.url}: a message or record of {largest:,} bytes: the server takes {most:,} (its max_payload,"
                " less headers); make the payload smaller, or raise max_payload in the server's configuration"
            )

    @property
    def room(self) -> int:
        """Bytes of a payload that the server takes, as far as one has said so."""
        session = self.home().session
        most: int = (1 << 20) if session is None else session.client.max_payload
        return most - HEADERS

    async def stored(self, calls: Sequence[Call]) -> list[ApiError | None]:
        """Publish to streams, in one flight: stored when this returns. What a stream refused because of a condition in
        the call's headers is in the list. EngineUnavailable, ServerUnusable, PayloadTooLarge.
        """
        refusals: list[ApiError | None] = [None] * len(calls)
        open_, pause = list(range(len(calls))), FIRST_PAUSE
        async with self.limit():
            while True:
                replies = await self.requests([calls[i] for i in open_])
                later: list[int] = []
                for i, reply in zip(open_, replies, strict=True):
                    if b'"error"' not in reply.data:
                        continue
                    error = refusal(reply)
                    if error.code == errors.WRONG_SEQUENCE:
                        refusals[i] = error
                    elif error.code in errors.AGAIN:
                        later.append(i)
                        self.home().trouble = str(error)
                    else:
                        raise errors.refused(self.url, error)
                if not later:
                    return refusals
                open_ = later
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def request(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, *, again: bool = True
    ) -> Reply:
        """One call. EngineUnavailable."""
        return (await self.requests([Call(subject, payload, headers)], again=again))[0]

    async def api(self, verb: str, body: Mapping[str, Any] | None = None, *, setup: bool = False) -> dict[str, Any]:
        """Ask JetStream: `STREAM.INFO.name` with a JSON body. ApiError for what the caller may know how to answer,
        EngineUnavailable. `setup`: called by one of the `setups`.
        """
        call = Call(f"$JS.API.{verb}", b"" if body is None else json.dumps(body).encode())
        pause = FIRST_PAUSE
        async with self.limit():
            while True:
                replies: list[Reply | None] = [None]
                await self._persist([call], replies, True, setup=setup, patience=PATIENCE)
                assert replies[0] is not None
                try:
                    return replies[0].document()
                except ApiError as error:
                    if error.code == errors.NO_STREAM and self.setups and not setup:
                        await self.cure(str(error))
                    elif error.code not in errors.AGAIN:
                        raise
                    self.home().trouble = str(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Hand messages (subject, payload) to the connection; nobody answers. EngineUnavailable."""
        async with self.limit():
            session = await self.session()
            try:
                for subject, payload in messages:
                    await session.publish(subject, payload)
            except Lost as error:
                raise EngineUnavailable(f"{self.url}: {error}") from None

    async def settled(self) -> None:
        """The server has read all that was published from this loop. EngineUnavailable."""
        async with self.limit():
            session = self.home().session
            try:
                if session is not None:
                    await session.settled()
            except Lost as error:
                raise EngineUnavailable(f"{self.url}: {error}") from None

    def limit(self) -> _Limit:
        """`async with`: a time limit for what is done in it. EngineUnavailable."""
        return _Limit(self, self.timeout)

    async def cure(self, trouble: str) -> None:
        """Somebody has deleted something, or it is not up yet: create what is missing, after a moment."""
        self.home().trouble = trouble
        await asyncio.sleep(FIRST_PAUSE)
        for create in self.setups:
            await create()

    async def series(self, call: Call) -> list[Reply]:
        """All the replies to a call that is answered by many; the last of them has a status. EngineUnavailable."""
        async with self.limit():
            while True:
                try:
                    replies = await (await self.session()).series(call)
                except Lost as lost:
                    self.home().trouble = str(lost)
                    continue
                if replies[-1].status != "503":
                    return replies
                await self.cure(f"nobody answers at {call.subject}")

    async def _persist(
        self,
        calls: Sequence[Call],
        replies: list[Reply | None],
        again: bool,
        *,
        setup: bool = False,
        deaf: bool = False,
        patience: float | None = None,
    ) -> None:
        pause = 0.0
        home = self.home()
        while True:
            session = await self.session()
            try:
                await session.flight(calls, replies, patience)
            except Lost as lost:
                if not again:
                    raise EngineUnavailable(f"{self.url}: {_UNDECIDED}") from None
                home.trouble = str(lost) or "the connection was lost"
            unheard = [i for i, reply in enumerate(replies) if reply is not None and reply.status == "503"]
            if None not in replies and (deaf or not unheard):
                home.trouble = ""
                return
            if unheard and not deaf:
                home.trouble = _unheard(calls[unheard[0]].subject)
                if not setup:
                    await self.cure(home.trouble)
                for i in unheard:
                    replies[i] = None
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, FIRST_PAUSE), LAST_PAUSE)

    # -- the server's clock -------------------------------------------------------------------------------------------

    async def now(self, stream: str) -> float:
        """UNIX seconds by the server that leads this stream: measured with the first call and every few seconds, and
        counted on from there with the monotonic clock.
        """
        async with self.limit():
            session = await self.session()
        if session.clock is None or self.ports.mono() - session.clock[1] > FRESH:
            before = self.ports.mono()
            info = await self.api(f"STREAM.INFO.{stream}")
            after = self.ports.mono()
            session.clock = (timestamp(info["ts"]) - (before + after) / 2, after)
        return self.ports.mono() + session.clock[0]

    # -- connections --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, look at the server, create what is missing. EngineUnavailable, ServerUnusable."""
        async with self.limit():
            try:
                await self.api("INFO", setup=True)
            except ApiError as error:
                raise errors.refused(self.url, error) from None
            for create in self.setups:
                await create()

    async def close(self) -> None:
        """This loop's connection, once the server has read what was published; the next call makes another."""
        home = self._homes.pop(asyncio.get_running_loop(), None)
        if home is None or home.pid != os.getpid():
            return
        if home.connecting is not None:
            home.connecting.cancel()
            await asyncio.gather(home.connecting, return_exceptions=True)
        session = home.session
        if session is not None:
            try:
                async with asyncio.timeout(self.timeout):
                    await session.settled()
            except (Lost, TimeoutError):
                pass
            await self._end(home, session)
        await asyncio.gather(*home.tasks, return_exceptions=True)

    async def subscribe(self, subject: str, call: Callable[[Msg], Awaitable[None]]) -> Session:
        """From now on, through every session. EngineUnavailable."""
        home = self.home()
        async with self.limit():
            if subject not in home.subscriptions:
                home.subscriptions[subject] = call
                if home.session is not None:
                    await home.session.listen(subject, call)
            return await self.session()

    @property
    def living(self) -> Session | None:
        """The session, if there is a connection."""
        return self.home().session

    async def session(self) -> Session:
        """The living session, after connecting if need be, again and again until the caller's limit. ServerUnusable."""
        home = self.home()
        if home.session is not None:
            return home.session
        if home.connecting is None or home.connecting.done():
            home.connecting = home.loop.create_task(self._connect(home))
        return await asyncio.shield(home.connecting)

    def home(self) -> _Home:
        loop = asyncio.get_running_loop()
        home = self._homes.get(loop)
        if home is None or home.pid != os.getpid():
            for old in [old for old in self._homes if old.is_closed()]:
                self._homes.pop(old, None)
            home = self._homes[loop] = _Home(loop)
        return home

    async def _connect(self, home: _Home) -> Session:
        pause = FIRST_PAUSE
        while True:
            for host in (*self.target.hosts, *home.found):
                try:
                    session = await self._attempt(home, host)
                except (driver.Error, Lost, OSError, ValueError) as error:
                    fatal = errors.unusable(self.url, error)
                    if fatal is not None:
                        raise fatal from None
                    home.trouble = f"{host}: {str(error) or type(error).__name__}"
                    continue
                home.session = session
                return session
            await asyncio.sleep(pause * (1 + self.ports.rand()))
            pause = min(2 * pause, LAST_PAUSE)

    async def _attempt(self, home: _Home, host: str) -> Session:
        target = self.target
        client = Driver()
        trouble: list[Exception] = []

        async def failed(error: Exception) -> None:
            trouble.append(error)
            _log.debug("%s: %s: %s", self.url, host, error)

        def lost(error: Exception | None) -> None:
            session = home.session
            if session is not None and session.client is client:
                home.session = None
                home.trouble = f"{host}: the connection was lost ({error or 'closed by the server'})"
                _log.warning("%s: the connection to %s was lost (%s)", self.url, host, error or "closed by the server")
                session.forget(home.trouble)
                home.keep(client.end())

        async def gone() -> None:
            lost(client.last_error)

        client.lost = lost
        options: dict[str, Any] = {
            "user": target.username,
            "password": target.password,
            "token": target.token,
            "user_credentials": target.files.get("creds"),
            "nkeys_seed": target.files.get("nkey"),
        }
        if ("creds" in target.files or "nkey" in target.files) and find_spec("nkeys") is None:
            raise ServerUnusable(f"{self.url}: creds= and nkey= need another package: pip install 'nats-py[nkeys]'")
        client.wants_tls = target.tls
        client.has_certificate = "ssl_certfile" in target.files
        scheme = "tls" if target.tls else "nats"
        try:
            async with asyncio.timeout(ATTEMPT):
                await client.connect(
                    f"{scheme}://{host}",
                    name=f"tasqueue {os.getpid()}",
                    error_cb=failed,
                    closed_cb=gone,
                    tls=target.context(),
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=ATTEMPT,  # type: ignore[arg-type]  # seconds
                    ping_interval=max(1, int(self.timeout)),
                    max_outstanding_pings=2,
                    pending_size=0,
                    **options,
                )
                self._check(client)
                session = Session(client)
                await session.begin()
                for subject, call in home.subscriptions.items():
                    await session.listen(subject, call)
                known = {*target.hosts, *home.found}
                home.found += [uri.netloc for uri in client.discovered_servers if uri.netloc not in known]
                return session
        except BaseException as error:
            await client.end()
            if isinstance(error, driver.NoServersError) and trouble:
                raise trouble[-1] from None
            raise

    def _check(self, client: Driver) -> None:
        version = client.connected_server_version
        if (version.major or 0, version.minor or 0) < OLDEST:
            raise Unsupported(
                f"{self.url}: {version} is too old: {'.'.join(map(str, OLDEST))} or newer, please;"
                " older ones silently ignore scheduled messages and per-key expiry"
            )

    async def _end(self, home: _Home, session: Session) -> None:
        home.session = None
        session.forget("closed")
        await session.client.end()

    def doubt(self) -> None:
        """A call got no answer in time: if the connection is silent, it is thrown away, so that the next one connects
        anew, perhaps to another server.
        """
        home = self._homes.get(asyncio.get_running_loop())
        if home is None or home.session is None:
            return
        home.keep(self._probe(home, home.session))

    async def _probe(self, home: _Home, session: Session) -> None:
        try:
            async with asyncio.timeout(min(1.0, self.timeout)):
                await session.settled()
        except (Lost, TimeoutError):
            if home.session is session:
                home.trouble = "the connection has gone silent"
                _log.warning("%s: the connection has gone silent; connecting anew", self.url)
                await self._end(home, session)


def _unheard(subject: str) -> str:
    if subject.startswith("$JS.API."):
        return f"JetStream does not answer at {subject}; is it on (nats-server -js)?"
    return f"nobody answers at {subject}"


class _Limit:
    """`async with`: a limit for what is done in it; when it is over, EngineUnavailable says what the trouble was."""

    def __init__(self, connection: Connection, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            connection = self._connection
            connection.doubt()
            said = connection.home().trouble
            raise EngineUnavailable(
                f"{connection.url}: no answer within {self._seconds:g} s{f' ({said})' if said else ''}"
            ) from None
