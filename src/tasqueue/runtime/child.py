"""A worker process under a supervisor: `python -m tasqueue.runtime.child CONFIG BOARD_FD LIFELINE_FD`.

Invariant: it ends when its supervisor is gone (its lifeline ends): it drains, or is ended from a thread when it cannot.
What a handler that ignored its interruption still holds is not given back while this process lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback

import msgspec

from ..client.app import load_app
from ..errors import EngineUnavailable, TasqueueError
from .board import Board, State
from .child_process import RECYCLE, UNAVAILABLE, Config
from .isolated import Isolator
from .main import flush, new_runner, set_up_logging
from .worker import Worker

log = logging.getLogger("tasqueue.runtime")

LAST_RESORT = 3.0
"""Seconds after the grace in which this process ends itself, whatever blocks it."""


class Child:
    """Wires a Worker to the board, the lifeline, the signals and the exit code."""

    def __init__(self, config: Config, board: Board, lifeline: int) -> None:
        self._config = config
        self._board = board
        self._lifeline = lifeline
        self._grace = 30.0 if config.grace is None else config.grace
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: Worker | None = None
        self._code = 0
        self._orphaned = False
        threading.Thread(target=self._hold_lifeline, name="tasqueue-lifeline", daemon=True).start()

    async def run(self) -> int:
        """Work until told to stop; the exit code."""
        config = self._config
        self._loop = asyncio.get_running_loop()
        server = load_app(config.app)
        set_up_logging()
        parts = await server.parts()
        if config.grace is None:
            self._grace = parts.options.grace
        worker = self._worker = Worker(
            parts,
            queues=config.queues,
            concurrency=config.concurrency,
            grace=config.grace,
            isolator=Isolator(config.app, parts.ports),
            named=self._named,
            moved=self._board.set_deadline,
            recycle=self._recycle,
            retires=False,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        if self._orphaned:
            self._stop()
        await worker.run()
        threading.Thread(target=self._last_resort, args=(LAST_RESORT,), daemon=True).start()
        if worker.left_behind:
            log.warning("%d handler(s) still run; they end with this process", worker.left_behind)
            if self._orphaned:  # nobody is left to do it after this process
                await worker.hand_back()
            flush()
            os._exit(self._code)
        await server.close()
        return self._code

    def _named(self, worker: str) -> None:
        self._board.set_worker(worker)
        self._board.set_state(State.RUNNING)

    def _stop(self) -> None:
        """Drain. Again: nothing, since a service manager may signal every process, and the supervisor does too."""
        if self._worker is not None and not self._worker.draining:
            self._board.set_state(State.DRAINING)
            self._worker.stop()

    def _recycle(self, why: str) -> None:
        self._code = RECYCLE
        self._stop()

    def _hold_lifeline(self) -> None:
        os.read(self._lifeline, 1)  # nothing is ever written to it: it ends
        self._orphaned = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: this process is about to end
                self._loop.call_soon_threadsafe(self._stop)
        self._last_resort(self._grace + LAST_RESORT)

    def _last_resort(self, seconds: float) -> None:
        threading.Event().wait(seconds)
        os._exit(self._code)


def main() -> None:
    """See the module's docstring."""
    board_fd, lifeline = int(sys.argv[2]), int(sys.argv[3])
    for fd in (board_fd, lifeline):
        os.set_inheritable(fd, False)
    child = Child(msgspec.json.decode(sys.argv[1], type=Config), Board.attach(board_fd), lifeline)
    try:
        with new_runner() as runner:
            code = runner.run(child.run())
    except TasqueueError as error:
        sys.stderr.write(f"tasqueue: {error}\n")
        code = UNAVAILABLE if isinstance(error, EngineUnavailable) else 1
    except Exception:
        traceback.print_exc()
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
