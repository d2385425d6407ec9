"""The table at the top of a report: our figures beside the floor's, the best rival's, and what we aim at.

The best rival is the best of those that acknowledge after running, and store results, as we do.
"""

from __future__ import annotations

from typing import Any

from library import FLOOR, OURS, RIVALS, RUST
from scenarios import LESS_IS_BETTER, TITLES

PURE = [name for name in RIVALS if name not in RUST]


def summary(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows: figure, unit, ours, floor, best, rival (whose that is), ratio, aim, met; None where there is nothing."""
    look = _Look(report["libraries"])
    rows: list[dict[str, Any]] = []
    for key in ("drain_10", "drain_100"):
        rows.append(look.row(key, look.of_floor(key), "≥ 0.5 × the floor; moonshot 0.7", 0.5))
        for who, names, least in (("mayu", ["mayu"], 2), ("the best in pure Python", PURE, 25)):
            rows.append(look.row(key, look.of_best(key, names), f"≥ {least} × {who}", least, names))
    bare = look.median("bare")
    rows += [
        look.row("enqueue", look.share("enqueue", bare), f"≥ 0.8 × a bare EVALSHA ({number(bare)}/s)", 0.8),
        look.row("enqueue_100", look.share("enqueue_100", 1), "≥ 60,000", 60_000, ratio=False),
        look.row("enqueue_many", look.share("enqueue_many", 1), "≥ 150,000", 150_000, ratio=False),
    ]
    rows += [
        look.row(key, look.of_best(key, RIVALS), "no worse than the best rival", 1)
        for key in ("latency_p50", "latency_p99")
    ]
    rows.append(look.row("sleeps", look.share("sleeps", 10_000), "≥ 0.9 of ideal", 0.9))
    plain = look.median("drain_100")
    rows += [
        look.row(key, look.share(key, plain), "≥ 0.5 × plain jobs (concurrency 100)", 0.5)
        for key in ("chains", "groups")
    ]
    rows += [
        look.row(key, look.of_best(key, RIVALS), "less than every rival", 1)
        for key in ("commands", "bytes_waiting", "bytes_ended")
    ]
    rows += [look.row(key, look.of_best(key, RIVALS), "printed", None) for key in ("cpu", "rss")]
    return [row for row in rows if row["ours"] is not None]


class _Look:
    def __init__(self, libraries: dict[str, Any]) -> None:
        self._libraries = libraries

    def median(self, key: str, label: str = OURS) -> float | None:
        figure = self._libraries.get(label, {}).get("figures", {}).get(key)
        return figure["median"] if figure else None

    def share(self, key: str, whole: float | None) -> float | None:
        ours = self.median(key)
        return ours / whole if ours is not None and whole else None

    def of_floor(self, key: str) -> float | None:
        return self.share(key, self.median(key, FLOOR))

    def of_best(self, key: str, names: Any) -> float | None:
        """How many times better ours is."""
        _, best = self._best(key, names)
        ours = self.median(key)
        if not best or not ours:
            return None
        return best / ours if self._less(key) else ours / best

    def row(
        self, key: str, reached: float | None, aim: str, least: float | None, names: Any = RIVALS, *, ratio: bool = True
    ) -> dict[str, Any]:
        rival, best = self._best(key, names)
        return {
            "figure": TITLES[key],
            "unit": self._libraries[OURS]["figures"].get(key, {}).get("unit") if OURS in self._libraries else None,
            "ours": self.median(key),
            "floor": self.median(key, FLOOR),
            "best": best,
            "rival": rival,
            "ratio": reached if ratio else None,
            "aim": aim,
            "met": None if reached is None or least is None else reached >= least,
        }

    def _less(self, key: str) -> bool:
        return any(
            one["figures"][key]["unit"] in LESS_IS_BETTER for one in self._libraries.values() if key in one["figures"]
        )

    def _best(self, key: str, names: Any) -> tuple[str, float | None]:
        found = [
            (one["figures"][key]["median"], label)
            for label, one in self._libraries.items()
            if one["name"] in names and one["acknowledges"] and key in one["figures"]
        ]
        if not found:
            return "", None
        best, label = min(found) if self._less(key) else max(found)
        return label, best


def number(value: float | None) -> str:
    """As it is shown in a table."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
