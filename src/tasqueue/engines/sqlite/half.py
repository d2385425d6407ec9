"""What broker and results have in common as halves of a pair. Each has tables and lanes of its own, so that an engine
and both halves can share a namespace of a file."""

from __future__ import annotations

from typing import Self

from .base import Connected


class Half(Connected):
    """See the module's docstring."""

    shared = True
    durable = True

    def twin(self) -> Self:
        return type(self)(
            self._path,
            namespace=self._namespace,
            timeout=self._timeout,
            ports=self._ports,
            synchronous=self._synchronous,
        )
