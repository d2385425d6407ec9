"""`status`, `jobs`, `job`, `explain` and `doctor` on a file with jobs in every state."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.cli.conftest import Run, document, make_on, url
from tests.client.support import engine_of

from tasqueue import __version__
from tasqueue.cli import COMMANDS, main
from tasqueue.engines.sqlite import durability


def test_status(run: Run) -> None:
    text = run("status").output
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["QUEUE"][:5] == ["READY", "RUNNING", "LATER", "HELD", "PARKED"]
    assert rows["images"][:5] == ["2", "0", "0", "0", "0"]
    assert rows["tasqueue:tasks"][:5] == ["0", "0", "1", "1", "1"]
    assert "smtp is down" in text
    assert "2 successful, 1 failed, 1 cancelled" in text
    assert "cron:tidy" in text
    for command in (
        "tasqueue worker APP:SERVER",
        "tasqueue resume mail",
        "tasqueue jobs --status failed",
    ):
        assert f"Next: {command}" in text


def test_status_json(run: Run) -> None:
    found = document(run("status", "--json"))
    assert found["queues"]["images"] == {"ready": 2, "running": 0, "due": 0, "held": 0, "parked": 0}
    assert found["ended"] == {"successful": 2, "failed": 1, "cancelled": 1}
    assert found["paused"][0]["queue"] == "mail"
    assert [entry["id"] for entry in found["schedules"]] == ["cron:tidy"]
    assert found["workers"] == []


def test_status_of_an_empty_file(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "new.db").close()
    (tmp_path / "new.db").touch()
    result = CliRunner().invoke(main, ["status", "-u", url(tmp_path / "new.db")])
    assert result.exit_code == 0
    assert "Nothing was ever enqueued here" in result.output


def test_watch_and_json_exclude_each_other(run: Run) -> None:
    assert run("status", "--watch", "--json").exit_code == 2


def test_jobs(run: Run) -> None:
    text = run("jobs").output
    assert re.search(r"^fail-1 +failed +fail +tasqueue:tasks .*RuntimeError: no such bucket$", text, re.MULTILINE)
    assert re.search(r"^flaky-1 +retrying .*try 2 in .*: RuntimeError: try again$", text, re.MULTILINE)
    assert re.search(r"^parked-1 .*parked: ", text, re.MULTILINE)
    assert "10 jobs" in text


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--status", "failed"), ["fail-1"]),
        (("--status", "retrying"), ["flaky-1"]),
        (("--queue", "mail"), ["mail-1"]),
        (("--task", "raw"), ["raw-1"]),
        (("--queue", "nowhere"), []),
    ],
)
def test_jobs_are_chosen(run: Run, options: tuple[str, str], ids: list[str]) -> None:
    found = [entry["meta"]["id"] for entry in document(run("jobs", *options, "--json"))]
    assert found == ids


def test_jobs_by_pages(run: Run) -> None:
    every = [entry["meta"]["id"] for entry in document(run("jobs", "--json"))]
    assert len(every) == 10
    pages: list[str] = []
    while len(pages) < 10:
        after = ("--after", pages[-1]) if pages else ()
        text = run("jobs", "--limit", "4", *after).output
        pages += re.findall(r"^(\S+-1\S*) ", text, re.MULTILINE)
        if len(pages) < 10:
            assert f"--after {pages[-1]}" in text
    assert pages == every


def test_job(run: Run) -> None:
    text = run("job", "fail-1").output
    assert text.startswith("fail-1  failed\n")
    assert re.search(r"^payload +\('no such bucket'\)$", text, re.MULTILINE)
    assert "Traceback (most recent call last):" in text
    assert "RuntimeError: no such bucket" in text
    assert "Next: tasqueue retry fail-1" in text


def test_job_with_a_result(run: Run) -> None:
    assert re.search(r"^result +5$", run("job", "add-1").output, re.MULTILINE)
    text = run("job", "raw-1").output
    assert re.search(r"^payload +hello$", text, re.MULTILINE)
    assert re.search(r"^result +HELLO$", text, re.MULTILINE)


def test_job_json(run: Run) -> None:
    found = document(run("job", "add-1", "--json"))
    assert (found["payload"], found["result"]) == ([[2, 3], {}], 5)
    assert found["meta"]["status"] == "successful"
    assert document(run("job", "parked-1", "--json"))["payload"] is None
    assert document(run("job", "raw-1", "--json"))["result"] == "HELLO"


def test_no_such_job(run: Run) -> None:
    for command in ("job", "explain"):
        result = run(command, "nope", "--json")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "'nope' is unknown: never enqueued here" in result.stderr


@pytest.mark.parametrize(
    ("id", "code", "following"),
    [
        ("fail-1", "failed", "tasqueue retry fail-1"),
        ("mail-1", "paused", "tasqueue resume mail"),
        ("parked-1", "parked", "tasqueue worker"),
        ("hang-1", "no-worker", "tasqueue worker"),
        ("chain-1~c1", "held", "tasqueue explain chain-1~c0"),
        ("flaky-1", "retrying", "tasqueue job flaky-1"),
        ("chain-1", "chain", "tasqueue"),
    ],
)
def test_explain(run: Run, id: str, code: str, following: str) -> None:
    assert document(run("explain", id, "--json"))["code"] == code
    assert following in run("explain", id).output


def test_doctor(run: Run, db: Path) -> None:
    lasting = durability.file_system(str(db)) not in durability.VOLATILE
    text = run("doctor").output
    assert ("survives a power cut." in text) == lasting
    assert re.search(r"synchronous +FULL$", text, re.MULTILINE)
    assert re.search(r"journal_mode +wal$", text, re.MULTILINE)
    found = document(run("doctor", "--json"))
    assert (found["level"], found["errors"]) == ("power-loss" if lasting else "os-crash", 0)
    assert {"sqlite", "journal_mode", "synchronous"} <= {finding["name"] for finding in found["findings"]}


def test_doctor_fails_on_an_error(run: Run, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "REMOTE", {durability.file_system(str(db))})
    result = run("doctor")
    assert result.exit_code == 1
    assert re.search(r"^error +file system", result.output, re.MULTILINE)
    assert "use a local disk" in result.output
    assert run("doctor", "--json").exit_code == 1


def test_doctor_of_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, " * 100)
    result = CliRunner().invoke(main, ["doctor", "-u", url(tmp_path / "text.db")])
    assert result.exit_code == 1
    assert "is not an SQLite database" in result.stderr


def test_no_file_is_made_by_looking(tmp_path: Path) -> None:
    for command in (["status"], ["jobs"], ["job", "x"], ["explain", "x"], ["cancel", "x"], ["doctor"]):
        result = CliRunner().invoke(main, [*command, "--url", url(tmp_path / "misspelt.db")])
        assert result.exit_code == 1
        assert "misspelt.db" in result.stderr
        assert "no file" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_other_stores_in_the_folder_are_named(run: Run, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = db.parent
    sqlite3.connect(folder / "another.db").close()
    (folder / "text.db").write_text("no database")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TASQUEUE_URL")
    for options in ((), ("--url", "sqlite:///job.db")):
        result = run("status", *options)
        assert result.exit_code == 1
        assert f"in {folder};" in result.stderr
        assert result.stderr.endswith("Did you mean --url sqlite:///jobs.db?\n")
    absolute = run("status", "--url", url(folder / "misspelt.db")).stderr
    assert f"there is no file '{folder}/misspelt.db'; " in absolute
    assert absolute.endswith(f"Did you mean --url {url(db)}?\n")
    monkeypatch.chdir("/")
    (folder / "none").mkdir()
    assert "Did you mean" not in run("status", "--url", url(folder / "none" / "x.db")).stderr


def test_held_steps_and_draining_workers_are_told(run: Run, db: Path) -> None:
    async def register() -> None:
        async with make_on(db) as srv:
            info = {"host": "h", "pid": 7, "queues": {"images": 2}, "tasks": ["hang"], "draining": True}
            await (await engine_of(srv)).register("h:7:x", 60_000, msgspec.msgpack.encode(info), {"hang": "images"}, 1)

    assert "Held: later steps of chains" in run("status").output
    asyncio.run(register())
    assert re.search(r"^h:7:x .* draining$", run("status").output, re.MULTILINE)


@pytest.mark.parametrize("name", ["memory://", "memory://name", "redis://u:secret@h/0", "what://x", "sqlite://x"])
def test_urls_that_cannot_be_looked_at(name: str) -> None:
    result = CliRunner().invoke(main, ["status", "--url", name])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "secret" not in result.stderr


def test_namespaces_are_apart(run: Run) -> None:
    assert document(run("jobs", "--json", "-n", "other")) == []
    assert document(run("status", "--json", "-n", "other"))["url"].endswith("jobs.db?namespace=other")


def test_version_and_help() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"tasqueue, version {__version__}\n"
    text = CliRunner().invoke(main, ["--help"]).output
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE)
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_unknown_commands_are_answered_with_a_near_one() -> None:
    result = CliRunner().invoke(main, ["statsu"])
    assert result.exit_code == 2
    assert "Did you mean 'status'?" in result.stderr
