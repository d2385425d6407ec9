"""What every test starts from: no settings of the developer's own, and Hypothesis as CI or as a person wants it."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A fault armed in the shell, or a default URL, must not reach the tests or the processes that they start.
for name in [name for name in os.environ if name.startswith("TASQUEUE_") and not name.startswith("TASQUEUE_TEST_")]:
    del os.environ[name]

# Timings on a busy machine say nothing, so no deadline. "ci" tries the same examples each time; by default each run
# tries new ones, and failures are kept in .hypothesis/. Another profile: HYPOTHESIS_PROFILE or --hypothesis-profile.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


def pytest_configure(config: pytest.Config) -> None:
    # Of the conformance suite, whose tests are also run from here, on servers that the tests start.
    config.addinivalue_line("markers", "needs(*capabilities): skipped on an engine that does not declare them")
