"""How many processes share the tests: as many as there are processors; a benchmark has one."""

import os

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `-n auto`, which pyproject.toml asks for."""
    return 0 if config.getoption("benchmark_only", False) else os.cpu_count() or 1
