"""The seeded simulation: seeds are good, the same seed is the same run, and planted mistakes are found.

Each test is the command that a person would type, in a process of its own: the order of sets of `str` must be fixed
before Python starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .mutants import MUTANTS

ROOT = Path(__file__).parents[2]
IN_CI = os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "") == "ci"
SEEDS = 5_000 if IN_CI else 400
CHUNK = 250 if IN_CI else 100
ENOUGH = 300
"""Seeds within which a planted mistake has to be found; most are in the first twenty."""


def simulate(*args: str) -> tuple[int, str]:
    """The command's exit code, and what it says."""
    command = [sys.executable, "-m", "tests.simulation", *args]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, ["src", os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_seeds(first: int) -> None:
    code, said = simulate(f"{first}:{first + CHUNK}", "--keep-going")
    assert code == 0, said
    assert f"{CHUNK} seeds, 0 bad" in said


@pytest.mark.parametrize("seed", [5, 20])
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    one, other = (simulate(str(seed), "--trace")[1].splitlines()[:-1] for _ in range(2))
    assert len(one) > 100
    assert one == other


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_mistake_is_found(mutant: str) -> None:
    code, said = simulate(f"0:{ENOUGH}", "--mutant", mutant)
    assert code == 1, said
    assert "breaches" in said
    assert "replay: python -m tests.simulation " in said


def test_a_seed_that_is_not_good_can_be_played_again() -> None:
    _, said = simulate("0:50", "--mutant", "random child")
    command = said[said.index("replay: ") :].splitlines()[0]
    seed = command.split()[4]
    code, trace = simulate(seed, "--trace", "--mutant", "random child")
    assert code == 1
    breach = next(line for line in said.splitlines() if "not derived" in line)
    assert breach in trace.splitlines()
