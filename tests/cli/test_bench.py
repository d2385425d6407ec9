"""`bench --quick`: every figure is there, and none is nonsense."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.conftest import tasqueue

from tasqueue.cli.bench.measures import percentile

WITH_A_FLOOR = {"enqueue_one", "enqueue_many", "drain_10", "drain_100", "cpu"}
FIGURES = WITH_A_FLOOR | {"latency_p50", "latency_p95", "latency_p99", "rss"}


def test_quick(tmp_path: Path) -> None:
    result = tasqueue("bench", "--quick", "--json", str(tmp_path / "x.json"))
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "x.json").read_text())
    assert (found["format"], found["quick"]) == (1, True)
    figures = {(figure["engine"], figure["name"]): figure for figure in found["figures"]}
    assert figures.keys() == {(engine, name) for engine in ("memory", "sqlite") for name in FIGURES} | {("", "import")}
    for (engine, name), figure in figures.items():
        ours = figure["ours"]
        assert 0 < ours["low"] <= ours["median"] <= ours["high"], (engine, name)
        assert (figure["floor"] is not None) == (name in WITH_A_FLOOR)
        if figure["floor"]:
            assert figure["ratio"] == ours["median"] / figure["floor"]["median"]
    for engine in ("memory", "sqlite"):
        p50, p95, p99 = (figures[engine, f"latency_{p}"]["ours"]["median"] for p in ("p50", "p95", "p99"))
        assert p50 <= p95 <= p99 < 5_000
    assert {"cpu", "cores", "system"} <= found["machine"].keys()
    assert {"tasqueue", "Python", "SQLite", "msgspec"} <= found["versions"].keys()
    for text in ("MEMORY", "SQLITE", "drain, concurrency 100", "Not for comparison"):
        assert text in result.stdout
    assert not re.search("^(MEMORY|SQLITE) .*SPREAD", result.stdout, re.MULTILINE)
    assert max(map(len, result.stdout[result.stdout.index("MEMORY") :].splitlines())) <= 112


def test_json_to_stdout_is_all_there_is() -> None:
    result = tasqueue("bench", "--quick", "--engine", "memory", "--json", "-")
    assert {figure["engine"] for figure in json.loads(result.stdout)["figures"]} == {"memory", ""}


def test_percentile() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, p) for p in (50, 95, 99)] == [50, 95, 99]
    assert percentile([7.0], 99) == 7
