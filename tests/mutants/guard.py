"""A plugin of the child pytest: writes down what failed, and where the library that was tested came from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

COPY = Path(os.environ.get("TASQUEUE_TEST_COPY", "/nowhere"))
FAILED: list[str] = []
ERRORS: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        (FAILED if report.when == "call" else ERRORS).append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        ERRORS.append(report.nodeid)


def pytest_sessionfinish() -> None:
    files = {
        name: str(module.__file__)
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "tasqueue" and getattr(module, "__file__", None)
    }
    said = {
        "failed": FAILED,
        "errors": ERRORS,
        "imported": files.get("tasqueue", ""),
        "strangers": sorted(name for name, file in files.items() if not Path(file).is_relative_to(COPY / "src")),
    }
    (COPY / "report.json").write_text(json.dumps(said), "utf-8")
