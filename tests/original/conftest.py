"""The stores and Servers of these tests are those of the runtime's; the processes are those of the fault tests."""

from __future__ import annotations

from tests.faults.conftest import fleet
from tests.runtime.conftest import make, srv, url

__all__ = ["fleet", "make", "srv", "url"]
