"""A job's last allowed run in a child of its own (G10): whatever the job does to its process, no neighbour dies of it.

Invariant: the parent keeps the lease and settles; the child only runs the handler and says, over a socket, what it came
to. A child that dies on the way has failed its job; one that could not even start has not.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio import StreamReader, StreamWriter
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ..clock import Ports
from ..core.codec import ErrorEntry
from ..core.lifecycle import GivenBack, Outcome, Raised, Returned, Snoozed, Stopped
from ..core.record import Lease
from ..errors import JobFailed
from .child_process import cause_of
from .service import log

if TYPE_CHECKING:
    from .lane import Active

MOST = 4
"""Children of this kind at once, in one worker process."""
START_WITHIN = 60.0
"""Seconds to load the app and enter its lifespan; they do not count for the job's timeout."""
END_WITHIN = 5.0
"""Seconds that a child has to leave its lifespan after its job."""
PATIENCE = 4.0
AT_DRAIN = 0.5
"""Seconds that an interrupted handler has before its child is killed: less than until its slot would be fenced off."""
TICK = 0.2


class Start(msgspec.Struct, tag=True):
    """To the child: the run that it is for."""

    app: str
    lease: Lease
    worker: str
    started_at: int
    max_retries: int


class Interrupt(msgspec.Struct, tag=True):
    """To the child: `why` as in `JobCtx.interrupted`, or "draining", which interrupts nothing yet."""

    why: str


class Started(msgspec.Struct, tag=True):
    """From the child: the handler is about to be entered."""


class Progress(msgspec.Struct, tag=True):
    """From the child: as in `JobCtx.progress`."""

    done: int
    total: int
    note: str


class Ended(msgspec.Struct, tag=True):
    """From the child: what the run came to, an Outcome by the name of its class."""

    kind: str
    outcome: msgspec.Raw


OUTCOMES: dict[str, type[Outcome]] = {kind.__name__: kind for kind in (Returned, Raised, Snoozed, GivenBack, Stopped)}

_encode = msgspec.msgpack.encode
_from_child = msgspec.msgpack.Decoder(Started | Progress | Ended).decode


def frame(message: Start | Interrupt | Started | Progress | Ended) -> bytes:
    """As it goes over the socket: four bytes of length, then msgpack."""
    data = _encode(message)
    return len(data).to_bytes(4, "big") + data


class _Child:
    """One started child and the socket to it."""

    def __init__(self, process: asyncio.subprocess.Process, reader: StreamReader, writer: StreamWriter) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.ended = asyncio.ensure_future(process.wait())

    def send(self, message: Start | Interrupt) -> None:
        """Tell it; nothing when it is gone."""
        self._writer.write(frame(message))

    async def receive(self) -> Started | Progress | Ended | None:
        """What it says next; None when it will say nothing more."""
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            return _from_child(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def end(self, within: float) -> None:
        """Wait for its end, and kill it when that takes too long, or when nobody wants to wait."""
        try:
            await asyncio.wait((self.ended,), timeout=within)
        finally:
            if not self.ended.done():
                self._process.kill()
                await self.ended
            self._writer.close()


class Isolator:
    """`run(active)` starts a child that loads `app` and runs this one job."""

    def __init__(self, app: str, ports: Ports) -> None:
        self._app = app
        self._ports = ports
        self._room = asyncio.Semaphore(MOST)
        self._ending: set[asyncio.Task[None]] = set()
        self._failed_starts = 0

    async def run(self, active: Active) -> Outcome:
        """What the run came to. When it was interrupted: CancelledError, and `active.ctx.interrupted` says why."""
        async with self._room:
            outcome = await self._run(active)
        if outcome is not None:
            self._failed_starts = 0
            return outcome
        self._failed_starts += 1
        pause = min(30.0, 2.0**self._failed_starts)
        log.error(
            "job %r has to run alone, and its process did not start; given back in %g s", active.run.lease.id, pause
        )
        await asyncio.sleep(pause)
        return GivenBack()

    async def close(self) -> None:
        """Wait a moment for those that are about to end, and end them."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=AT_DRAIN)
            for task in self._ending:
                task.cancel()
            await asyncio.gather(*self._ending, return_exceptions=True)

    async def _run(self, active: Active) -> Outcome | None:
        """None: it never started."""
        try:
            child = await self._start(active)
        except OSError as error:
            log.error("starting a process: %s", error)
            return None
        within = 0.0
        try:
            outcome = await self._talk(child, active)
            within = END_WITHIN
        except asyncio.CancelledError:
            why = active.ctx.interrupted
            if why:
                child.send(Interrupt(why))
                await child.end(AT_DRAIN if why == "drain" else PATIENCE)
            raise
        finally:
            task = asyncio.create_task(child.end(within))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        return outcome

    async def _start(self, active: Active) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                argv = (sys.executable, "-m", "tasqueue.runtime.isolated_child", str(theirs.fileno()))
                process = await asyncio.create_subprocess_exec(
                    *argv, stdin=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
                )
                reader, writer = await asyncio.open_unix_connection(sock=ours)
            except BaseException:
                ours.close()  # the child, if there is one, sees that and ends
                raise
        run = active.run
        child = _Child(process, reader, writer)
        child.send(Start(self._app, replace(run.lease, ref=None), run.worker, run.started_at, run.policy.max_retries))
        return child

    async def _talk(self, child: _Child, active: Active) -> Outcome | None:
        ctx, mono = active.ctx, self._ports.mono
        limit = mono() + START_WITHIN
        started = draining = False
        message = asyncio.ensure_future(child.receive())
        try:
            while True:
                await asyncio.wait((message, child.ended), timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
                if child.ended.done():  # read what it has said; a process that it left behind may hold the socket open
                    await asyncio.wait((message,), timeout=1.0)
                if message.done() or child.ended.done():
                    said = message.result() if message.done() else None
                    if said is None:
                        await child.end(1.0)
                        return self._died(active, cause_of(await child.ended)) if started else None
                    if type(said) is Ended:
                        return self._ended(active, said)
                    if type(said) is Progress:
                        ctx.host.progress(ctx, said.done, said.total, said.note)
                    else:
                        started, limit = True, mono() + active.timeout if active.timeout else 0.0
                    message = asyncio.ensure_future(child.receive())
                if limit and mono() > limit:
                    if not started:
                        return None
                    log.warning("job %r (task %r) is past its timeout", active.run.lease.id, active.task.name)
                    ctx.interrupted = "timeout"
                    raise asyncio.CancelledError
                if ctx.host.draining and not draining:
                    draining = True
                    child.send(Interrupt("draining"))
        finally:
            message.cancel()

    def _ended(self, active: Active, said: Ended) -> Outcome:
        outcome = msgspec.msgpack.decode(said.outcome, type=OUTCOMES[said.kind])
        if isinstance(outcome, Raised):
            error = outcome.error
            active.error = JobFailed(active.run.lease.id, error.type, error.message, error.traceback)
        elif isinstance(outcome, GivenBack) and outcome.died:
            return self._died(active, outcome.died)
        return outcome

    def _died(self, active: Active, cause: str) -> Outcome:
        lease = active.run.lease
        before = f"; {lease.deaths} worker(s) had died while they ran it" if lease.deaths else ""
        message = f"{cause}, in a process that ran nothing else{before}"
        log.error("job %r (task %r): %s", lease.id, active.task.name, message)
        active.error = JobFailed(lease.id, "WorkerDied", message)
        entry = ErrorEntry(int(self._ports.now() * 1000), active.run.worker, "WorkerDied", message, "")
        return Raised(entry, final=True, died=True)
