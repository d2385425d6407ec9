"""`worker` as a real process: what its options do, and what it refuses."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import Run, document, tasqueue, url, worker


def _until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Look until it is so, for at most 20 s."""
    deadline = time.monotonic() + 20
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
    return seen


def test_processes_concurrency_queues_and_grace(run: Run, db: Path) -> None:
    options = ("--processes", "2", "--concurrency", "3", "--queue", "images", "--grace", "0.1", "--log-level", "debug")
    with worker(db, *options) as log:

        def look() -> Any:
            return document(run("status", "--json"))

        seen = _until(look, lambda s: len(s["workers"]) == 2 and s["queues"]["images"]["running"] == 2)
        assert [entry["info"]["queues"] for entry in seen["workers"]] == [{"images": 3}, {"images": 3}]
        assert all(entry["alive"] for entry in seen["workers"])
        assert len({entry["info"]["pid"] for entry in seen["workers"]}) == 2
        progress = _until(
            lambda: document(run("job", "hang-1", "--json"))["meta"]["progress"], lambda progress: progress is not None
        )
        assert progress == [3, 10, "rendering"]
        assert re.search(r"^progress +3/10 rendering$", run("job", "hang-1").output, re.MULTILINE)
        assert re.search(r"^images +0 +2 +0 +0 +0 +2 \(6 slots\)$", run("status").output, re.MULTILINE)
        assert document(run("explain", "hang-1", "--json"))["code"] == "running"
        assert run("delete", "hang-1").exit_code == 1
        assert run("cancel", "hang-1").exit_code == 0
        _until(lambda: document(run("job", "hang-1", "--json"))["meta"]["status"], lambda status: status == "cancelled")
    text = log.read_text()
    assert len(re.findall(r"worker process \d+ started", text)) == 2
    assert "running jobs have 0.1 s" in text
    left = document(run("status", "--json"))
    assert (left["queues"]["images"]["ready"], left["workers"]) == (1, [])


def test_log_level(db: Path) -> None:
    with worker(db, "--queue", "nobody", "--log-level", "error") as log:
        _until(
            lambda: tasqueue("status", "-u", url(db), "--json").stdout,
            lambda text: len(json.loads(text)["workers"]) == 1,
        )
    assert log.read_text() == ""


def test_no_store_is_named_as_the_default_of_an_application() -> None:
    for command in ("worker", "enqueue"):
        text = tasqueue(command, "--help").stdout
        assert "tasqueue.db" not in text
        assert "that of APP:SERVER" in text


def test_refusals(tmp_path: Path) -> None:
    wrong = tasqueue("worker", "tests.cli.app:makes", TASQUEUE_URL=url(tmp_path / "x.db"))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean 'make'" in wrong.stderr
    memory = tasqueue("worker", "tests.cli.app:srv", "--url", "memory://")
    assert memory.returncode == 1
    assert "lives in one process" in memory.stderr
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    broken = tasqueue("worker", "tests.cli.app:srv", "--url", url(tmp_path / "text.db"))
    assert broken.returncode == 1
    assert "is not an SQLite database" in broken.stderr
    assert all("Traceback" not in result.stderr for result in (wrong, memory, broken))
