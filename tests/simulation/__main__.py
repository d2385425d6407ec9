"""`python -m tests.simulation SEED [--trace]`, or `FIRST:LAST`: play seeds, and say what went wrong.

Exit codes: 0, all are good; 1, one is not: it is shown with the command that plays it again.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time

from .mutants import MUTANTS, planted
from .play import play

SHOWN = 8
"""Breaches of one seed."""
COLLECT_EVERY = 10


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="one, or FIRST:LAST, the last one not included")
    parser.add_argument("--trace", action="store_true", help="tell all that happens")
    parser.add_argument("--mutant", default="", choices=["", *MUTANTS], help="plant a mistake in the library first")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first seed that is not good")
    given = parser.parse_args()
    first, _, last = given.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    again = f"python -m tests.simulation SEED --trace{f' --mutant {given.mutant!r}' if given.mutant else ''}"
    with planted(given.mutant):
        return _play(seeds, given.trace, given.keep_going, again)


def _play(seeds: range, trace: bool, keep_going: bool, again: str) -> int:
    gc.collect()
    gc.freeze()
    gc.disable()  # a run leaves much behind, but nothing of it matters to the next one
    began, bad, played = time.process_time(), 0, 0
    jobs = runs = stale = taken_back = 0
    for seed in seeds:
        one = play(seed, print if trace else None)
        played += 1
        jobs, runs = jobs + one.jobs, runs + one.runs
        stale, taken_back = stale + one.stale, taken_back + one.taken_back
        if one.wrong:
            bad += 1
            print(f"seed {seed}: {len(one.wrong)} breaches")
            for text in one.wrong[:SHOWN]:
                print(f"  {text}")
            print(f"replay: {again.replace('SEED', str(seed))}", flush=True)
            if not keep_going:
                break
        if not played % COLLECT_EVERY:
            gc.collect()
    spent = (time.process_time() - began) / max(1, played)
    print(
        f"{played} seeds, {bad} bad: {jobs} jobs, {runs} runs, {taken_back} workers taken back,"
        f" {stale} stale finishes refused; {spent * 1000:.1f} ms a seed"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of str have an order of their own in each process otherwise
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
