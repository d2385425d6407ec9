"""`bench --quick`: every figure is there, and none is nonsense."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests import services
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


def test_redis_is_left_as_it_was() -> None:
    with services.server() as server:
        server.ask("SET", "mine", 1)
        result = tasqueue("bench", "--quick", "--engine", "redis", "--url", server.url, "--json", "-")
        assert result.returncode == 0, result.stderr
        assert server.ask("KEYS", "*") == b"*1\r\n$4\r\nmine\r\n"
    found = json.loads(result.stdout)
    figures = {figure["name"]: figure for figure in found["figures"] if figure["engine"] == "redis"}
    assert figures.keys() == FIGURES
    for name, figure in figures.items():
        assert figure["ours"]["median"] > 0, name
        assert (figure["floor"] is not None) == (name in WITH_A_FLOOR)
    assert found["versions"]["server"].startswith(("Valkey ", "Redis "))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "redis"], "--url redis://localhost:6379/0"),
        (["--engine", "redis", "--url", "sqlite:///x.db"], "--url sqlite:///x.db: a Redis or Valkey"),
        (["--engine", "memory", "--url", "redis://localhost:1"], "memory has none"),
        (["--url", "redis://me:secret@localhost:1?namespace=mine"], "namespace of its own"),
    ],
)
def test_wrong_usage(options: list[str], said: str) -> None:
    result = tasqueue("bench", "--quick", *options, TASQUEUE_URL="redis://localhost:1/0")
    assert result.returncode == 2
    assert said in " ".join(result.stderr.split())
    assert "secret" not in result.stderr


def test_a_server_that_is_not_there() -> None:
    result = tasqueue("bench", "--quick", "--engine", "redis", "--url", "redis://me:secret@127.0.0.1:1/0")
    assert result.returncode == 1
    assert "127.0.0.1:1" in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr


def test_percentile() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, p) for p in (50, 95, 99)] == [50, 95, 99]
    assert percentile([7.0], 99) == 7
