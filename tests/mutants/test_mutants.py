"""The fast suite kills every mutant of `of_runtime` and `of_engines`, and passes the library as it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import services

from .mutant import ROOT, Mutant, Run, apply, copy_of_the_library, run
from .of_engines import MUTANTS as OF_ENGINES
from .of_runtime import MUTANTS as OF_RUNTIME

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(180)]

MUTANTS = [*OF_RUNTIME, *OF_ENGINES]
ENGINES = sorted({mutant.engine for mutant in MUTANTS})
QUICK = "tests/core/test_lifecycle.py::test_the_default_backoff_is_jittered_and_capped"


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    """Not left to pytest, which keeps the folders of its last runs: it is 5 MB each time."""
    yield copy_of_the_library(tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy")


def needs(engine: str) -> None:
    """Without its server the tests would be skipped, and every mutant survive."""
    if engine == "valkey":
        services.need(engine)


def is_of_the_copy(said: Run, copy: Path) -> None:
    assert said.imported == str(copy / "src" / "tasqueue" / "__init__.py"), said.output
    assert said.strangers == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_killed(mutant: Mutant, copy: Path) -> None:
    needs(mutant.engine)
    apply(mutant, copy)
    said = run([mutant.killed_by], mutant.engine, copy)
    is_of_the_copy(said, copy)
    assert said.code == 1, f"{mutant.name} survives. {mutant.breaks}\n{said.output}"
    assert said.errors == [], f"it was not killed by a test: {said.output}"
    assert len(said.failed) == 1, said.output
    assert " failed" in said.output.splitlines()[-1]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_library_itself_passes(engine: str, copy: Path) -> None:
    """All that kills a mutant on this engine, in one run."""
    needs(engine)
    said = run(sorted({mutant.killed_by for mutant in MUTANTS if mutant.engine == engine}), engine, copy)
    is_of_the_copy(said, copy)
    assert (said.code, said.failed, said.errors) == (0, [], []), said.output


def test_there_are_fifteen_of_different_names() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15


def test_a_mutant_whose_old_text_is_gone_or_ambiguous_is_an_error(copy: Path) -> None:
    gone = Mutant("gone", "", "core/retry.py", "no such line", "", QUICK)
    with pytest.raises(LookupError, match="0 times"):
        apply(gone, copy)
    with pytest.raises(LookupError, match="not once"):
        apply(gone._replace(old="return"), copy)


def test_one_that_cannot_be_imported_is_not_killed_by_a_test(copy: Path) -> None:
    apply(Mutant("typo", "", "core/retry.py", "FIRST = 1.0", "FIRST = 1.0 +", QUICK), copy)
    said = run([QUICK], "", copy)
    assert said.failed == []
    assert said.code != 0


def test_a_run_that_takes_the_library_from_elsewhere_is_found_out(copy: Path) -> None:
    said = run([QUICK], "", copy, ROOT / "src")
    assert said.imported == str(ROOT / "src" / "tasqueue" / "__init__.py")
    assert "tasqueue.core.lifecycle" in said.strangers
