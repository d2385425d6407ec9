"""`cancel`, `retry`, `delete`, `pause` and `resume`: what they change, what they refuse, and how they say so."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from tests.cli.conftest import Run, document, make_on
from tests.client.support import Hand, engine_of

from tasqueue import Group, Job, Status
from tasqueue.core import codec
from tasqueue.core.codec import Tail
from tasqueue.core.status import State


def _status(run: Run, id: str) -> str:
    return document(run("job", id, "--json"))["meta"]["status"]


def test_cancel(run: Run) -> None:
    result = run("cancel", "hang-1", "flaky-1")
    assert (result.exit_code, result.stdout) == (0, "cancelled: hang-1\ncancelled: flaky-1\n")
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
        ("delete", "chain-1", "'chain-1' is a chain: only jobs are deleted"),
        ("retry", "chain-1", "chain 'chain-1' is processing: its step 'chain-1~c0' has not failed"),
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


def test_cancel_and_retry_a_chain(run: Run) -> None:
    assert run("cancel", "chain-1").stdout == "cancelled: chain chain-1\n"
    refused = run("cancel", "chain-1")
    assert refused.exit_code == 1
    assert "chain 'chain-1' is cancelled: it has ended already" in refused.stderr
    told = run("explain", "chain-1").output
    assert "'chain-1~c0' was cancelled" in told
    assert "tasqueue retry chain-1 puts back" in told
    assert run("retry", "chain-1").stdout == "put back: chain-1~c0, so chain chain-1 goes on\n"
    assert document(run("explain", "chain-1", "--json"))["evidence"]["status"] == "processing"


async def _group(db: Path) -> None:
    """`group-1` of two jobs, of which the first has failed with an error that would act on a terminal."""
    async with make_on(db) as srv:
        await srv.enqueue_group(Group([Job("t", queue="g"), Job("t", queue="g")], id="group-1"))
        hand = Hand(await engine_of(srv))
        await hand.register({"t": "g"})
        (lease,) = await hand.claim("g", 1)
        tail = Tail(status=Status.FAILED, prev_err="OSError: \x1b[31mred\x9b \u202emirrored\nsecond line")
        await hand.end(lease, State.FAILED, tail=codec.encode_tail(tail))


def test_retry_and_cancel_a_group(run: Run, db: Path) -> None:
    asyncio.run(_group(db))
    told = run("explain", "group-1").output
    assert "'group-1~g0' failed: OSError: \\u001b[31mred\\u009b \\u202emirrored;" in told
    assert "Next: tasqueue job group-1~g0 shows its errors, tasqueue retry group-1 puts back" in told
    assert run("retry", "group-1").stdout == "put back: 1 job of group group-1\n"
    assert "none of its jobs has failed" in run("retry", "group-1").stderr
    assert run("cancel", "group-1").stdout == "cancelled: group group-1\n"
    assert run("retry", "group-1").stdout == "put back: 2 jobs of group group-1\n"
    asking = run("job", "group-1")
    assert (asking.exit_code, asking.stdout) == (1, "")
    assert "'group-1' is a group, not a job: `tasqueue explain group-1`" in asking.stderr


def test_a_running_job_is_asked(run: Run, db: Path) -> None:
    async def claim() -> None:
        async with make_on(db) as srv:
            hand = Hand(await engine_of(srv))
            await hand.register({"hang": "images"})
            assert {lease.id for lease in await hand.claim("images")} == {"hang-1", "chain-1~c0"}

    asyncio.run(claim())
    assert run("cancel", "hang-1").stdout == "asked to stop, since it is running: hang-1\n"
    told = run("cancel", "chain-1").stdout
    assert told == "cancelled: chain chain-1; its step chain-1~c0 is running, and asked to stop\n"


def test_stored_text_does_not_act_on_the_terminal(run: Run, db: Path) -> None:
    asyncio.run(_group(db))
    for command in (("jobs",), ("job", "group-1~g0"), ("explain", "group-1~g0"), ("job", "group-1~g0", "--json")):
        text = run(*command).stdout
        assert "\\u001b[31mred\\u009b \\u202emirrored" in text, command
        assert all(char.isprintable() or char == "\n" for char in text), command
    assert document(run("job", "group-1~g0", "--json"))["meta"]["prev_err"].startswith(
        "OSError: \x1b[31mred\x9b \u202e"
    )
    assert run("pause", "g", "--reason", "\x1b[2J").exit_code == 0
    assert "\\u001b[2J" in run("status").output
    assert "\x1b" not in run("status").output + run("cancel", "\x1b[2J").stderr


def test_schedules(run: Run) -> None:
    text = run("schedules").output
    assert re.search(r"^cron:tidy +@every 1h +tidy +tasqueue:tasks +in \d.* - +no worker$", text, re.MULTILINE)
    assert "tasqueue unschedule ID" in text
    assert "tasqueue unschedule ID" in run("status").output
    (entry,) = document(run("schedules", "--json"))
    assert (entry["id"], entry["known"]) == ("cron:tidy", False)
    assert document(run("status", "--json"))["schedules"] == [entry]


def test_a_schedule_that_no_worker_knows_is_marked_and_can_be_deleted(run: Run, db: Path) -> None:
    async def register() -> None:
        async with make_on(db) as srv:
            await Hand(await engine_of(srv)).register({"add": "tasqueue:tasks"})

    asyncio.run(register())
    text = run("status").output
    assert re.search(r"^cron:tidy .*unknown task$", text, re.MULTILINE)
    assert "Next: tasqueue unschedule cron:tidy" in text
    result = run("unschedule", "cron:tid", "cron:tidy")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "deleted: schedule cron:tidy")
    assert "declares it stores it again" in result.stdout
    assert "there is no schedule 'cron:tid'" in result.stderr
    assert document(run("schedules", "--json")) == []
    assert "Next: tasqueue unschedule" not in run("status").output
