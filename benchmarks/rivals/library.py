"""A library in an environment of its own, and the processes that are started in it.

Invariants: a process that was started here is gone, with its children, when the block that started it ends. Nothing
waits beyond the library's deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS, FLOOR = "tasqueue", "floor"
RIVALS = ("saq", "arq", "taskiq", "dramatiq", "rq", "celery", "huey", "streaq", "ardiq", "mayu")
RUST = ("ardiq", "mayu")
INSTALLING = 300.0
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """What a library said last."""


@dataclass
class Library:
    """`name` as one `variant` sets it up. `deadline`: of what is being done."""

    name: str
    variant: str
    folder: Path
    url: str
    deadline: float = 0.0
    python: Path = field(init=False)
    about: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def label(self) -> str:
        return f"{self.name} ({self.variant})" if self.variant else self.name

    @property
    def is_here(self) -> bool:
        """It runs in the interpreter of this process."""
        return self.name in (OURS, FLOOR)

    def install(self) -> None:
        self.deadline = time.monotonic() + INSTALLING
        self.folder.mkdir(parents=True, exist_ok=True)
        self.python = Path(sys.executable) if self.is_here else self.folder / "venv" / "bin" / "python"
        if not self.python.exists():
            self._must(sys.executable, "-m", "venv", self.folder / "venv")
            requirements = HERE / "requirements" / f"{self.name}.txt"
            self._must(self.python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-r", requirements)
        self.about = json.loads(self.call("about"))

    @property
    def mark(self) -> Path:
        return self.folder / f"{self.variant or 'mark'}.mark"

    @property
    def last(self) -> Path:
        return self.mark.with_suffix(".last")

    def forget(self) -> None:
        """What the handlers have left."""
        self.mark.unlink(missing_ok=True)
        self.last.unlink(missing_ok=True)

    def call(self, role: str, *args: object) -> str:
        """A child that ends by itself."""
        return self._must(*self._command(role, *args), env=self._environment(0))

    @contextlib.contextmanager
    def worker(self, concurrency: int, runs: int = 0) -> Iterator[subprocess.Popen[bytes]]:
        """A worker at work, killed with its children afterwards: they are in a process group of their own.

        `runs`: the run whose beginning it marks.
        """
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(
                self._command("work", concurrency),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._environment(runs),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def until(self, ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str) -> float:
        """The moment when it is; looked at every 2 ms."""
        while not ready():
            self.must_live(process, what)
            if time.monotonic() > self.deadline:
                raise Failed(f"{what}: took too long ({self._last_words()})")
            time.sleep(0.002)
        return time.monotonic()

    def must_live(self, process: subprocess.Popen[bytes], what: str) -> None:
        if process.poll() is not None:
            raise Failed(f"{what}: the worker has ended ({self._last_words()})")

    def _last_words(self) -> str:
        lines = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing on its log"

    def _command(self, role: str, *args: object) -> list[str]:
        return [str(self.python), str(HERE / "child.py"), role, self.name, *map(str, args)]

    def _environment(self, runs: int) -> dict[str, str]:
        path = [HERE, *([HERE.parents[1] / "src"] if self.is_here else [])]
        return os.environ | {
            "BENCH_URL": self.url,
            "BENCH_VARIANT": self.variant,
            "BENCH_MARK": str(self.mark),
            "BENCH_RUNS": str(runs),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _must(self, *command: object, env: dict[str, str] | None = None) -> str:
        argv = list(map(str, command))
        left = max(1.0, self.deadline - time.monotonic())
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=left, check=False, env=env)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{' '.join(argv[2:])}: took too long") from error
        if done.returncode:
            lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
            raise Failed(lines[-1] if lines else f"{' '.join(argv[2:])}: exit code {done.returncode}")
        return done.stdout


@dataclass(frozen=True)
class Usage:
    """Of a process and its children."""

    cpu: float
    """Seconds, of those that have ended, too."""
    rss: float
    """MiB."""


def usage(group: int) -> Usage:
    """Of all processes in this process group."""
    ticks = pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
    return Usage(ticks / TICKS, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
