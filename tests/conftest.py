"""What all tests share; no framework is imported here, so that the fast ones stay fast."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One core for each process: tests run two at a time, and what several threads share in models this small they lose
# several times over by waiting for each other. It is inherited by xdist's workers, so it is the same for all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from quick import NoModels, left_out
from synthetic import make_synthetic_rows

from speckv.controller.records import Row

settings.register_profile("speckv", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("speckv")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="without models: see tests/helpers/quick.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        sys.meta_path.insert(0, NoModels())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    chosen = config.getoption("quick") and collection_path.match("test_*.py")
    return True if chosen and left_out(collection_path) else None


@pytest.fixture(scope="session")
def synthetic_rows() -> list[Row]:
    """Step records of 24 prompts in which survival depends on confidence; see ``make_synthetic_rows``."""
    return make_synthetic_rows(prompts=24)
