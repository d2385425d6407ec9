"""The checker itself, on histories made by hand: each kind of fault is found, and none where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from .history import Follower, History, Kill, Line, Writer, chain_faults, group_faults, judge, read_lines


def history(*events: str) -> History:
    """`S a 1 10`: a starts in process 1 at 10."""
    lines: list[Line] = []
    for event in events:
        kind, id, pid, at = event.split(" ")
        lines.append(Line(kind, id, int(pid), float(at), float(at), "t"))
    return History(lines)


def test_a_good_history() -> None:
    verdict = judge(history("S a 1 1", "E a 1 2", "S b 1 1", "E b 1 3"), ["a", "b"])
    verdict.check()
    assert (verdict.done, verdict.extra, verdict.twice) == (2, [], [])


def test_a_job_that_never_ran_is_lost() -> None:
    verdict = judge(history("S a 1 1", "E a 1 2"), ["a", "b"])
    assert verdict.lost == ["b"]
    with pytest.raises(AssertionError, match="lost 1"):
        verdict.check()


def test_a_job_that_was_entered_and_never_ended_is_lost() -> None:
    assert judge(history("S a 1 1"), ["a"]).lost == ["a"]


def test_a_job_that_only_failed_is_lost() -> None:
    assert judge(history("S a 1 1", "X a 1 2"), ["a"]).lost == ["a"]


def test_a_job_that_nobody_enqueued_is_unexpected() -> None:
    verdict = judge(history("S a 1 1", "E a 1 2"), [])
    assert verdict.unexpected == ["a"]
    with pytest.raises(AssertionError, match="unexpected 1"):
        verdict.check()


def test_a_job_whose_enqueue_was_not_acknowledged_may_run_or_not() -> None:
    judge(history("S a 1 1", "E a 1 2"), [], attempted=["a", "b"]).check()


def test_done_twice_without_a_kill() -> None:
    verdict = judge(history("S a 1 1", "E a 1 2", "S a 2 3", "E a 2 4"), ["a"])
    assert verdict.twice == ["a"]
    assert [run.pid for run in verdict.unexplained] == [2]
    with pytest.raises(AssertionError, match="unexplained 1"):
        verdict.check()


def test_an_extra_run_that_a_kill_explains() -> None:
    verdict = judge(history("S a 1 1", "S a 2 3", "E a 2 4"), ["a"], [Kill(1, 2, held=1)])
    verdict.check()
    assert len(verdict.extra) == 1


def test_a_kill_explains_only_runs_after_it() -> None:
    verdict = judge(history("S a 1 1", "E a 1 2", "S a 2 3", "E a 2 4"), ["a"], [Kill(1, 5, held=1)])
    assert len(verdict.unexplained) == 1


def test_the_kill_of_another_process_explains_nothing() -> None:
    verdict = judge(history("S a 1 1", "E a 1 2", "S a 2 3", "E a 2 4"), ["a"], [Kill(3, 2.5, held=9)])
    assert len(verdict.unexplained) == 1


def test_more_extra_runs_than_were_held() -> None:
    runs = history("S a 1 1", "S b 1 1", "S a 2 3", "S b 2 3", "E a 2 4", "E b 2 4")
    with pytest.raises(AssertionError):
        judge(runs, ["a", "b"], [Kill(1, 2, held=1)]).check()


def test_overlapping_runs() -> None:
    verdict = judge(history("S a 1 1", "S a 2 2", "E a 2 3", "E a 1 4"), ["a"], [Kill(1, 1.5, held=1)])
    assert len(verdict.overlapping) == 1
    with pytest.raises(AssertionError, match="overlapping 1"):
        verdict.check()


def test_an_open_run_overlaps_whatever_comes_after_it_until_its_process_is_dead() -> None:
    events = ("S a 1 1", "S a 2 3", "E a 2 4")
    assert judge(history(*events), ["a"]).overlapping
    assert not judge(history(*events), ["a"], [Kill(1, 2, held=1)]).overlapping


def test_a_process_that_runs_a_job_again() -> None:
    verdict = judge(history("S a 1 1", "X a 1 2", "S a 1 3", "E a 1 4"), ["a"])
    assert (verdict.lost, len(verdict.extra), verdict.overlapping) == ([], 1, [])


def test_a_retry_is_not_an_extra_run() -> None:
    runs = history("S a 1 1", "X a 1 2", "S a 1 3", "E a 1 4", "S a 2 5", "E a 2 6")
    verdict = judge(runs, ["a"], retries=True)
    assert [run.start for run in verdict.extra] == [5]
    assert len(judge(runs, ["a"]).extra) == 2


def test_the_order_of_a_chain() -> None:
    assert chain_faults(history("S a 1 1", "E a 1 2", "S b 1 2", "E b 1 3"), ["a", "b"]) == []
    assert chain_faults(history("S a 1 1", "E a 1 2", "S b 2 1", "E b 2 3"), ["a", "b"]) != []
    assert chain_faults(history("S a 1 1", "E a 1 2"), ["a", "b"]) == ["b never ended"]
    assert len(chain_faults(history("S b 1 2", "E b 1 3"), ["a", "b"])) == 2


def test_a_step_that_ran_again_before_its_successor_began() -> None:
    runs = history("S a 1 1", "S a 2 3", "E a 2 4", "S b 2 5", "E b 2 6")
    assert chain_faults(runs, ["a", "b"]) == []


def test_the_callback_of_a_group() -> None:
    runs = history("S a 1 1", "E a 1 2", "S b 1 1", "E b 1 3", "S c 1 4", "E c 1 5", "S b 2 6", "E b 2 7")
    assert group_faults(runs, ["a", "b"], "c") == []
    assert len(group_faults(runs, ["a", "b"], "b")) == 2
    assert group_faults(runs, ["a", "d"], "c") == ["c began before d had ended"]
    assert group_faults(runs, ["a"], "d") == ["d never began"]


def test_an_end_without_a_start_is_no_history() -> None:
    with pytest.raises(AssertionError, match="without a start"):
        history("E a 1 1")


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "history"
    follower = Follower(path)
    assert follower.read().runs == {}
    assert read_lines(path) == []
    one, other = Writer(path), Writer(path)
    one.write("S", "a~c0", "t")
    assert [run.id for run in follower.read().open()] == ["a~c0"]
    other.write("E", "a~c0", "t")
    with path.open("ab") as file:
        file.write(b"S torn 1 1.0")  # being written
    assert [(line.kind, line.id, line.task) for line in read_lines(path)] == [("S", "a~c0", "t"), ("E", "a~c0", "t")]
    assert (follower.read().open(), follower.read().done()) == ([], 1)


def test_a_history_grows() -> None:
    one = history("S a 2 3", "E a 2 4")
    one.add([Line("S", "a", 1, 1.0, 1.0, "t")])  # written by another process before, read after
    assert [run.pid for run in one.of("a")] == [1, 2]
    assert [run.pid for run in one.open()] == [1]
    assert (one.open(2), one.done()) == ([], 1)
