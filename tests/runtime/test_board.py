"""The page between a child and its supervisor: what is read was written as a whole, also by one that dies writing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tasqueue.runtime.board import Board, State

WRITER = """
import sys
from tasqueue.runtime.board import Board
board = Board.attach(int(sys.argv[1]))
print("ready", flush=True)
while True:
    for letter in "abcdefghij":
        board.set_worker(letter * (30 * (ord(letter) - 96)))
        board.set_deadline(float(ord(letter)))
"""


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create()
    yield board
    board.close()


def test_an_empty_board(board: Board) -> None:
    assert (board.worker, board.deadline, board.state) == ("", 0.0, State.STARTING)


def test_both_sides_see_the_same(board: Board) -> None:
    other = Board.attach(os.dup(board.fd))
    for name in ("host:1:aa", "host:1:bb!alone", "n" * 400, "wörker"):
        other.set_worker(name)
        assert board.worker == name
    other.set_deadline(123456.789)
    other.set_state(State.DRAINING)
    assert (board.deadline, board.state) == (123456.789, State.DRAINING)
    other.set_deadline(0.0)
    assert board.deadline == 0.0
    other.close()


def test_a_name_that_has_no_room_is_refused_and_changes_nothing(board: Board) -> None:
    board.set_worker("known")
    with pytest.raises(ValueError, match="401 bytes"):
        board.set_worker("n" * 401)
    assert board.worker == "known"


def test_no_torn_name_is_read_while_another_process_writes_or_after_it_was_killed(board: Board) -> None:
    whole = {letter * (30 * (ord(letter) - 96)) for letter in "abcdefghij"}
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(board.fd)], pass_fds=(board.fd,), stdout=subprocess.PIPE
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            seen: set[str] = set()
            deadlines: set[float] = set()
            count = 0
            while count < 20_000 or len(seen) < 3:  # on a busy machine the writer may not have had its turn yet
                seen.add(board.worker)
                deadlines.add(board.deadline)
                count += 1
            seen.discard("")
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        assert seen <= whole
        assert deadlines <= {float(ord(letter)) for letter in "abcdefghij"} | {0.0}
        assert board.worker in whole
