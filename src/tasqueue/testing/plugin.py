"""The option of `pytest --pyargs tasqueue.testing.conformance --engine URL`; any other run of pytest is left alone."""

from __future__ import annotations

import pytest

SUITE = "tasqueue.testing.conformance"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    """A conftest.py named by --pyargs is read too late to add an option."""
    if any(SUITE in arg or SUITE.replace(".", "/") in arg for arg in args):
        parser.addoption(
            "--engine",
            action="append",
            metavar="URL",
            help="an engine to prove, or a pair, 'broker|results'; may be repeated (default: the library's own)",
        )
