"""A job's last allowed run in a child of its own (G10): whatever the job does to its process, no neighbour dies of it.

Invariant: the parent keeps the lease and settles; the child only runs the handler and says what it came to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.lifecycle import Outcome

if TYPE_CHECKING:
    from .lane import Active


class Isolator:
    """`run(active)` starts a child that loads `app` and runs this one job."""

    def __init__(self, app: str, overrides: Mapping[str, Any] | None = None) -> None:
        self._app = app
        self._overrides = dict(overrides or {})

    async def run(self, active: Active) -> Outcome:
        """What the run came to; a child that died is a failure with its cause."""
        raise NotImplementedError(active)
