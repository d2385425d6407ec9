"""A SQLite file with jobs in every state, and the command in this process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.cli.app import make

from tasqueue import Chain, Job, Server, pack
from tasqueue.cli import main

Run = Callable[..., Result]


async def _fill(path: Path) -> None:
    """Run a worker until some have ended; the jobs that come after it wait."""
    async with make_on(path) as srv:
        working = asyncio.create_task(srv.start())
        await srv.enqueue(Job("flaky", pack("try again"), id="flaky-1"))
        await srv.enqueue(Job("nobody-knows", b"\xff\x00", id="parked-1"))
        await srv.enqueue(Job("raw", b"hello", id="raw-1"))
        await srv.enqueue(Job("add", pack(2, 3), id="add-1"))
        await srv.enqueue(Job("fail", pack("no such bucket"), id="fail-1"))
        for id in ("raw-1", "add-1", "fail-1"):  # the others came first, and a drain writes what they came to
            await srv.wait(id, 10)
        await srv.stop()
        await working
        await srv.enqueue(Job("hang", pack(), id="hang-1"))
        await srv.enqueue_chain(Chain([Job("hang", pack()), Job("add", pack(1))], id="chain-1"))
        await srv.enqueue(Job("add", pack(1), id="gone-1"))
        await srv.cancel("gone-1")
        await srv.enqueue(Job("mail", b"x", id="mail-1", queue="mail"))
        await srv.pause("mail", "smtp is down")


def make_on(path: Path) -> Server:
    """The test application's Server on this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASQUEUE_URL", url(path))
        return make()


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    asyncio.run(_fill(folder / "jobs.db"))
    return folder


@pytest.fixture
def db(filled: Path, tmp_path: Path) -> Path:
    """A copy of the filled file."""
    for file in filled.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / "jobs.db"


@pytest.fixture
def run(db: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("status", "--json")` in this process, on the filled file."""
    monkeypatch.setenv("TASQUEUE_URL", url(db))
    return lambda *args: CliRunner().invoke(main, list(args), prog_name="tasqueue")


def document(result: Result) -> Any:
    """The one JSON document of a command that went well."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# -- real processes ---------------------------------------------------------------------------------------------------


def tasqueue(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        (sys.executable, "-m", "tasqueue", *args),
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **env},
    )


@contextmanager
def worker(db: Path, *options: str) -> Iterator[Path]:
    """`tasqueue worker` on this file until the end of the block, where it has to end by itself; its log."""
    log = db.with_suffix(".log")
    argv = (sys.executable, "-m", "tasqueue", "worker", "--url", url(db), "tests.cli.app:srv", *options)
    with log.open("wb") as stderr, subprocess.Popen(argv, stderr=stderr) as process:
        try:
            yield log
            process.terminate()
            assert process.wait(20) == 0, log.read_text()
        finally:
            process.kill()
