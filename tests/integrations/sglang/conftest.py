"""What servers of these tests do to start sooner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    """See ``speckv_sglang_cpu/processes.py``. test_server.py has a pair of servers start as a user's do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECKV_TEST_FORK", "yes")
        yield
