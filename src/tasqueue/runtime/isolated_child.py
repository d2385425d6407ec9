"""The process that runs one job alone: `python -m tasqueue.runtime.isolated_child FD`, started by `Isolator`.

Invariant: it settles nothing and lives no longer than its parent: when the socket ends, so does it, whatever it is at.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from contextlib import AsyncExitStack
from types import FrameType
from typing import Any

import msgspec

from ..client.app import load_app
from ..client.context import TYPED, JobCtx
from ..client.parts import Parts
from ..core import codec
from ..core.lifecycle import Outcome, Policy, Run
from ..interfaces import Engine
from .executor import Executor
from .isolated import Ended, Interrupt, Progress, Start, Started, frame
from .lane import Active, Lane
from .main import new_runner, set_up_logging
from .processes import Processes
from .threads import Threads

_from_parent = msgspec.msgpack.Decoder(Start | Interrupt).decode


class Isolated:
    """The one run, and the host of its context."""

    def __init__(self, sock: socket.socket, start: Start) -> None:
        self._sock = sock
        self._start = start
        self._executor: Executor | None = None
        self._active: Active | None = None
        self._engine: Engine | None = None
        self.max_payload = 0
        self.draining = False
        self.loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Load the app, enter its lifespan, run the job, say what it came to."""
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, name="tasqueue-parent", daemon=True).start()
        server = load_app(self._start.app)
        set_up_logging()
        parts: Parts = await server.parts()
        self._engine, self.max_payload = parts.engine, parts.options.max_payload
        async with AsyncExitStack() as stack:
            state = (
                await stack.enter_async_context(parts.lifespan(parts.server)) if parts.lifespan is not None else None
            )
            threads, processes = Threads(self.loop), Processes()
            stack.callback(threads.close)
            stack.callback(processes.close)
            self._executor = Executor(parts.ports, threads, processes, parts.around, None)
            outcome = await asyncio.create_task(self._execute(parts, self._executor, state))
            if outcome is not None:
                self._send(Ended(type(outcome).__name__, msgspec.Raw(msgspec.msgpack.encode(outcome))))
        await server.close()

    async def _execute(self, parts: Parts, executor: Executor, state: Any) -> Outcome | None:
        """None when it was interrupted: the parent knows what that comes to."""
        start, lease = self._start, self._start.lease
        spec = codec.decode_spec(lease.spec)
        task = parts.registry.tasks[spec.task]
        tail, policy = codec.decode_tail(lease.tail), Policy(start.max_retries)
        run = Run(lease, spec, tail, policy, start.worker, parts.registry.queue_of, start.started_at)
        ctx = JobCtx(run, state, self)
        if task.typed:
            ctx.closed = TYPED
        slot = asyncio.current_task()
        assert slot is not None
        self._active = Active(run, ctx, task, Lane(lease.queue, 1), slot, parts.ports.mono())
        self._send(Started())
        try:
            outcome = await executor.enter(self._active)
        except BaseException as error:
            outcome = executor.caught(self._active, error)
        return None if ctx.interrupted else outcome

    # -- Host, for the context ------------------------------------------------------------------------------------

    def progress(self, ctx: JobCtx, done: int, total: int, note: str) -> None:
        """The parent writes it with its next beat."""
        self._send(Progress(done, total, note))

    async def results(self, key: str, start: int, limit: int) -> list[bytes | None]:
        """As `Engine.results`."""
        assert self._engine is not None
        return await self._engine.results(key, start, limit)

    # -- the parent -----------------------------------------------------------------------------------------------

    def _send(self, message: Started | Progress | Ended) -> None:
        self._sock.sendall(frame(message))

    def _listen(self) -> None:
        while (message := receive(self._sock)) is not None:
            assert isinstance(message, Interrupt)
            assert self.loop is not None
            if message.why == "draining":
                self.draining = True
            else:
                self.loop.call_soon_threadsafe(self._interrupt, message.why)
        os._exit(1)

    def _interrupt(self, why: str) -> None:
        if self._active is None or self._executor is None:
            os._exit(1)  # it has not begun: there is nothing to be brought to an end
        self._executor.interrupt(self._active, why)


def receive(sock: socket.socket) -> Start | Interrupt | None:
    """The parent's next message; None when it is gone."""
    head = _exactly(sock, 4)
    data = head and _exactly(sock, int.from_bytes(head, "big"))
    return _from_parent(data) if data else None


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)


def _leave_it_to_the_parent(_number: int, _frame: FrameType | None) -> None:
    """A SIGTERM for every process of a service reaches this one too; dying of it would be taken for the job's doing."""


def main() -> None:
    """See the module's docstring."""
    signal.signal(signal.SIGTERM, _leave_it_to_the_parent)
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    start = receive(sock)
    if isinstance(start, Start):
        with new_runner() as runner:
            runner.run(Isolated(sock, start).run())


if __name__ == "__main__":
    main()
