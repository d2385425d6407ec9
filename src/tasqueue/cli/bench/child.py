"""One measurement in a process of its own: `python -m tasqueue.cli.bench.child`; the case on stdin and the answer on
stdout are JSON. A URL may have a password in it, so it is no argument.

So no measurement inherits the memory, the caches or the event loop of another.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO

import click
import msgspec

from ...engines import redact
from .measures import MEASURES, Case


def measure(case: Case) -> dict[str, float]:
    """Run it to its end. ClickException with its last words when it fails."""
    with start(case) as process:
        return answer(case, process)


@contextmanager
def start(case: Case) -> Generator[subprocess.Popen[bytes]]:
    """Run it; it is killed when it has not ended at the end of the block."""
    argv, pipe = [sys.executable, "-m", __name__], subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            stdin: IO[bytes] | None = process.stdin
            if stdin is not None:
                stdin.write(msgspec.json.encode(case) + b"\n")
                stdin.flush()
            yield process
        finally:
            process.kill()


def answer(case: Case, process: subprocess.Popen[bytes]) -> dict[str, float]:
    """What it has found."""
    out, err = process.communicate()
    if process.returncode:
        raise click.ClickException(f"{case.what} on {_store(case)} failed:\n{err.decode(errors='replace')}")
    return msgspec.json.decode(out, type=dict[str, float])


def until_ready(case: Case, process: subprocess.Popen[bytes]) -> None:
    """Wait for its line that says so."""
    stdout: IO[bytes] | None = process.stdout
    if stdout is None or stdout.readline() != b"ready\n":
        answer(case, process)
        raise click.ClickException(f"{case.what} on {_store(case)} ended before it began")


def _store(case: Case) -> str:
    return redact(case.url) or case.path or "memory"


if __name__ == "__main__":
    from tasqueue.runtime.main import new_runner

    asked = msgspec.json.decode(sys.stdin.buffer.readline(), type=Case)
    with new_runner() as runner:
        print(msgspec.json.encode(runner.run(MEASURES[asked.what](asked))).decode())
