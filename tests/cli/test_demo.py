"""The demo as a user runs it, with fewer files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from tests.cli.conftest import tasqueue


def _run(tmp_path: Path, *options: str) -> str:
    result = tasqueue("demo", *options, TMPDIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == [], "the demo has left something behind"
    assert "The totals are those of a plain loop over the same files." in result.stdout
    return result.stdout


def test_demo(tmp_path: Path) -> None:
    text = _run(tmp_path, "--files", "60")
    assert re.search(r"^60 files, [\d,]+ lines, [\d,]+ words\.$", text, re.MULTILINE)
    assert re.search(r"^self +[\d,]+$", text, re.MULTILINE)
    assert re.search(r"jobs in .* s: [\d,]+ jobs/s", text)


@pytest.mark.fault
def test_chaos(tmp_path: Path) -> None:
    text = _run(tmp_path, "--files", "600", "--chaos")
    found = re.search(
        r"^(\d+) workers killed, [\d,]+ jobs? run more than once:\n"
        r"([\d,]+) jobs enqueued, ([\d,]+) done, (\d+) lost\.$",
        text,
        re.MULTILINE,
    )
    assert found is not None, text
    kills, enqueued, done, lost = (int(number.replace(",", "")) for number in found.groups())
    assert kills >= 3
    at = re.findall(r"^Killed worker process (\d+) at ([\d,]+) of ([\d,]+) done$", text, re.MULTILINE)
    assert len({pid for pid, _, _ in at}) == kills
    totals = {total for _, total in re.findall(r"^Counting: ([\d,]+) of ([\d,]+) done$", text, re.MULTILINE)}
    assert {total for _, _, total in at} == totals
    assert (enqueued, lost) == (done, 0)
    assert enqueued > 600


def test_a_wrong_total_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command makes of an outcome in which a job is lost, and of one in which the words differ."""
    monkeypatch.setenv("TASQUEUE_URL", f"sqlite:///{tmp_path}/unused.db")
    from tasqueue.cli.demo.app import Ranking
    from tasqueue.cli.demo.command import view
    from tasqueue.cli.demo.run import Outcome
    from tasqueue.cli.terminal import plain

    ranking = Ranking(2, 30, 400, [("self", 5)])
    good = Outcome(
        enqueued=["a", "b"],
        done={"a", "b"},
        starts=Counter(["a", "b", "b"]),
        kills=1,
        seconds=1.0,
        ranking=ranking,
        expected=ranking,
        plain_seconds=1.0,
    )
    assert good.right
    told = plain(view(good, chaos=True))
    assert "1 worker killed, 1 job run more than once:\n2 jobs enqueued, 2 done, 0 lost." in told
    assert max(map(len, told.splitlines())) <= 80
    never_ended = msgspec.structs.replace(good, done={"a"})
    never_started = msgspec.structs.replace(good, starts=Counter(["b"]))
    assert (never_ended.lost, never_started.lost) == (["b"], ["a"])
    for bad in (
        never_ended,
        never_started,
        msgspec.structs.replace(good, ranking=Ranking(2, 30, 401, [("self", 5)])),
        msgspec.structs.replace(good, ranking=Ranking(2, 30, 400, [("self", 6)])),
    ):
        assert not bad.right
        text = plain(view(bad, chaos=False))
        assert "1 lost" in text if bad.lost else "WRONG" in text
