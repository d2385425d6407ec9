"""`enqueue`: what reaches the store, and what is refused before it does."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import Run, document, tasqueue, url, worker

APP = "tests.cli.app:make"


def test_prints_the_id(run: Run) -> None:
    result = run("enqueue", APP, "add", "5", "-4")
    id = result.stdout.strip()
    found = document(run("job", id, "--json"))
    assert (found["payload"], found["meta"]["status"]) == ([[5, -4], {}], "queued")


def test_what_is_not_json_is_text(run: Run) -> None:
    id = run("enqueue", APP, "fail", "no such bucket").stdout.strip()
    assert document(run("job", id, "--json"))["payload"] == [["no such bucket"], {}]


def test_a_byte_level_task_takes_one_argument_as_it_is(run: Run) -> None:
    id = run("enqueue", APP, "raw", '{"a": 1}').stdout.strip()
    assert document(run("job", id, "--json"))["payload"] == '{"a": 1}'
    assert run("enqueue", APP, "raw", "a", "b").exit_code == 2


def test_queue_and_eta(run: Run) -> None:
    id = run("enqueue", APP, "add", "1", "--queue", "far", "--eta", "+5m").stdout.strip()
    meta = document(run("job", id, "--json"))["meta"]
    left = datetime.fromisoformat(meta["due_at"]) - datetime.now(UTC)
    assert meta["queue"] == "far"
    assert timedelta(minutes=4) < left <= timedelta(minutes=5)
    id = run("enqueue", APP, "add", "1", "--eta", "2099-01-31T09:00:00+01:00").stdout.strip()
    assert document(run("job", id, "--json"))["meta"]["due_at"] == "2099-01-31T08:00:00Z"


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("tests.cli.app:make", "fail", "--quue", "x"), "no such option: --quue; an argument that"),
        (("tests.cli.app:make", "ad"), "has no task 'ad'. Did you mean 'add'"),
        (("tests.cli.app:make", "zzz"), "It has add, fail, flaky, hang, raw, tidy."),
        (("tests.cli.app:make", "add", "x"), "argument 'a': 'x' does not fit int"),
        (("tests.cli.app:make", "fail", "7"), """quote it as '"7"'"""),
        (("tests.cli.app:make", "add"), "missing a required argument: 'a'"),
        (("tests.cli.app:make", "add", "1", "--eta", "2030-01-01"), "has no zone: 2030-01-01T00:00:00+00:00"),
        (("tests.cli.app:make", "add", "1", "--eta", "soon"), "'soon' is no time: +10s"),
        (("tests.cli.app:makes", "add"), "did you mean 'make'"),
        (("tests.cli.ap:make", "add"), "no module 'tests.cli.ap'"),
        (("tests/cli/app.py", "add"), "a module, not a file"),
        (("tests.cli.app:add", "add"), "not a tasqueue.Server"),
    ],
)
def test_refusals(run: Run, args: tuple[str, ...], why: str) -> None:
    before = document(run("jobs", "--json"))
    result = run("enqueue", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr
    assert "Traceback" not in result.stderr
    assert document(run("jobs", "--json")) == before


def test_a_job_in_memory_would_be_gone(run: Run) -> None:
    result = run("enqueue", "-u", "memory://", APP, "add", "1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "inside one process" in result.stderr


def test_an_application_with_a_store_of_its_own_keeps_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.db"
    (tmp_path / "has_its_own.py").write_text(
        f"from tasqueue import Server\nsrv = Server({url(own)!r})\n@srv.task\ndef f(): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    done = run("enqueue", "has_its_own:srv", "f")
    assert done.exit_code == 0  # $TASQUEUE_URL is a default, no order
    assert re.search(
        r"^Warning: \$TASQUEUE_URL is .*/jobs\.db, but .* own store, .*/own\.db, which is used$", done.stderr
    )
    assert run("enqueue", "has_its_own:srv", "f", "-u", url(own)).stderr == ""
    assert len(document(run("jobs", "--json", "-u", url(own)))) == 2
    other = ("-u", url(tmp_path / "other.db"))
    for option in (other, ("-n", "other"), ("-u", url(own), "-n", "other")):
        result = run("enqueue", *option, "has_its_own:srv", "f")
        assert result.exit_code == 2, option
        assert "names its own store" in result.stderr


def test_wait_prints_the_result(db: Path) -> None:
    """With a worker under its supervisor, and each command a process of its own."""
    with worker(db, "--queue", "tasqueue:tasks") as log:
        done = tasqueue("enqueue", "--url", url(db), "tests.cli.app:srv", "add", "2", "3", "--wait")
        assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ["5"]), done.stderr
        failed = tasqueue("enqueue", "--url", url(db), "tests.cli.app:srv", "fail", "why", "-w")
        assert failed.returncode == 1
        assert "failed with RuntimeError: why" in failed.stderr
        assert "Traceback" not in failed.stderr
    assert "serving tasqueue:tasks\n" in log.read_text()
