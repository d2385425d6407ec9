"""A library in an environment of its own, and the processes that are started in it.

Invariant: a process that was started here is gone, with its children, when the block that started it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = "tasqueue"
RIVALS = ("saq", "arq", "taskiq", "dramatiq", "rq", "celery", "huey", "streaq", "ardiq", "mayu")
PATIENCE = 60.0
"""Seconds that one step may take."""


class Failed(Exception):
    """What a library said last."""


@dataclass
class Library:
    name: str
    folder: Path
    url: str
    python: Path = field(init=False)
    settings: str = ""
    jobs: int = 0
    scenarios: list[str] | None = None
    counted: list[list[str]] = field(default_factory=list)
    counts_done: bool = False
    versions: dict[str, str] = field(default_factory=dict)

    def install(self) -> None:
        """Ours runs in the interpreter of this process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.python = Path(sys.executable) if self.name == OURS else self.folder / "venv" / "bin" / "python"
        if not self.python.exists():
            _must(sys.executable, "-m", "venv", self.folder / "venv")
            requirements = HERE / "requirements" / f"{self.name}.txt"
            _must(self.python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", requirements)
        about = json.loads(self.call("about"))
        self.settings, self.jobs, self.scenarios = about["settings"], about["jobs"], about["scenarios"]
        self.counts_done = about["left"] is None
        self.counted = about["done"] if self.counts_done else about["left"]
        self.versions = about["versions"]

    @property
    def mark(self) -> Path:
        return self.folder / "mark"

    def forget(self) -> None:
        """What the handlers have left."""
        self.mark.unlink(missing_ok=True)

    def call(self, role: str, *args: object) -> str:
        """A child that ends by itself."""
        return _must(*self._command(role, *args), env=self._environment())

    @contextlib.contextmanager
    def worker(self, concurrency: int) -> Iterator[subprocess.Popen[bytes]]:
        """A worker at work, killed with its children afterwards: they are in a process group of their own."""
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self._command("work", concurrency),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def last_words(self) -> str:
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on its log"

    def _command(self, role: str, *args: object) -> list[str]:
        return [str(self.python), str(HERE / "child.py"), role, self.name, *map(str, args)]

    def _environment(self) -> dict[str, str]:
        path = [HERE, *([HERE.parents[1] / "src"] if self.name == OURS else [])]
        return os.environ | {
            "BENCH_URL": self.url,
            "BENCH_MARK": str(self.mark),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def counted(redis: Any, library: Library) -> int:
    """What its own bookkeeping says, at one moment."""
    pipe = redis.pipeline(transaction=True)
    for command in library.counted:
        pipe.execute_command(*command)
    return sum(int(reply or 0) for reply in pipe.execute())


def until(ready: Any, process: subprocess.Popen[bytes], library: Library, what: str) -> float:
    """The moment when it is; looked at every 2 ms."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None:
            raise Failed(f"{what}: the worker has ended ({library.last_words()})")
        if time.monotonic() > end:
            raise Failed(f"{what}: not done within {PATIENCE:.0f} s ({library.last_words()})")
        time.sleep(0.002)
    return time.monotonic()


def _must(*command: object, env: dict[str, str] | None = None) -> str:
    argv = list(map(str, command))
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=3 * PATIENCE, check=False, env=env)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(argv[1:4])}: not done within {3 * PATIENCE:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        raise Failed(lines[-1] if lines else f"{' '.join(argv[1:4])}: exit code {done.returncode}")
    return done.stdout
