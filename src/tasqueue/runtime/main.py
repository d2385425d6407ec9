"""`srv.run()` and `tasqueue worker`: a loop, the signals and the exit code around a worker or a supervisor.

Invariant: a handler that ignored its interruption dies with the process, right after its job was handed back (G8).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any

from ..errors import TasqueueError
from .supervisor import Supervisor

log = logging.getLogger("tasqueue.runtime")


def run(server: Any) -> None:
    """Work until SIGINT or SIGTERM, then drain with the grace; a second signal skips it."""
    with new_runner() as runner:
        runner.run(_run(server))


async def _run(server: Any) -> None:
    loop = asyncio.get_running_loop()
    stops: set[asyncio.Task[None]] = set()

    def stop() -> None:
        stops.add(loop.create_task(server.stop()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if left := await server.work():
        log.warning("%d handler(s) still run; they end with this process", left)
        flush()
        os._exit(0)
    await server.close()


def supervise(supervisor: Supervisor) -> int:
    """Run a supervisor; the exit code."""
    set_up_logging()
    try:
        with asyncio.Runner() as runner:
            return runner.run(supervisor.run())
    except TasqueueError as error:
        sys.stderr.write(f"tasqueue: {error}\n")
        return 1


def new_runner() -> asyncio.Runner:
    """With uvloop's loop where that is installed. Never a policy: that would reach loops that are not ours."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def set_up_logging() -> None:
    """To stderr, unless the app has handlers of its own."""
    if not logging.getLogger().handlers:
        level = os.environ.get("TASQUEUE_LOG_LEVEL", "INFO").upper()  # a child is told by its environment, too
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s [%(process)d] %(message)s")


def flush() -> None:
    """Write out what is buffered, before `os._exit`."""
    for handler in logging.getLogger().handlers:
        with contextlib.suppress(Exception):
            handler.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
