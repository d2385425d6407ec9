"""`cancel`, `retry`, `delete`, `pause` and `resume`: what they change, what they refuse, and how they say so."""

from __future__ import annotations

import pytest
from tests.cli.conftest import Run, document


def _status(run: Run, id: str) -> str:
    return document(run("job", id, "--json"))["meta"]["status"]


def test_cancel(run: Run) -> None:
    result = run("cancel", "hang-1", "flaky-1")
    assert (result.exit_code, result.stdout.count("cancelled")) == (0, 2)
    assert (_status(run, "hang-1"), _status(run, "flaky-1")) == ("cancelled", "cancelled")


def test_retry_puts_back(run: Run) -> None:
    assert run("retry", "fail-1").exit_code == 0
    assert _status(run, "fail-1") == "queued"


def test_delete_forgets(run: Run) -> None:
    assert run("delete", "raw-1").exit_code == 0
    assert run("job", "raw-1").exit_code == 1


@pytest.mark.parametrize(
    ("command", "id", "why"),
    [
        ("cancel", "add-1", "job 'add-1' is successful: it has ended already"),
        ("retry", "add-1", "job 'add-1' is successful: only failed and cancelled jobs are put back"),
        ("delete", "hang-1", "job 'hang-1' is queued: only ended jobs are deleted; cancel it first"),
        ("delete", "nope", "job 'nope' is unknown"),
    ],
)
def test_refusals_are_named_and_the_others_done(run: Run, command: str, id: str, why: str) -> None:
    possible = {"cancel": "hang-1", "retry": "fail-1", "delete": "add-1"}[command]
    result = run(command, id, possible)
    assert result.exit_code == 1
    assert why in result.stderr
    assert possible in result.stdout
    assert id not in result.stdout


def test_pause_and_resume(run: Run) -> None:
    assert run("pause", "images", "--reason", "disk full").exit_code == 0
    assert "disk full" in run("status").output
    result = run("resume", "images", "mail", "never-paused")
    assert result.exit_code == 0
    assert "was not paused: never-paused" in result.output
    assert document(run("status", "--json"))["paused"] == []
