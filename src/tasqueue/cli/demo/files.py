"""What the demo counts: the modules of the standard library on this machine, by package."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from itertools import islice
from pathlib import Path

_NOT_STANDARD = {"site-packages", "dist-packages"}
_words = re.compile(r"[A-Za-z]{2,}").findall


def packages(limit: int | None = None) -> dict[str, list[Path]]:
    """Package -> its files, sorted; those in no package under `(modules)`. `limit`: so many files at the most."""
    root = Path(sysconfig.get_path("stdlib"))
    every = ((path, path.relative_to(root).parts) for path in sorted(root.rglob("*.py")))
    found: dict[str, list[Path]] = {}
    for path, parts in islice((item for item in every if not _NOT_STANDARD.intersection(item[1])), limit):
        found.setdefault(parts[0] if len(parts) > 1 else "(modules)", []).append(path)
    return found


def count_words(text: str) -> dict[str, int]:
    """Word -> how often; a word is two or more letters in a row."""
    return Counter(_words(text))
