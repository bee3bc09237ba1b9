"""A right verdict on wrong code needs power: small planted errors are caught in nearly every case.

`python bench/power.py` searches for the smallest ones.
"""

import pytest

from bench.power import SHARE, caught
from torch_ref.compare import DTYPES

NAMES = "x6 z6 w36 w46 w56 b6 x5 z5 w35 b5 x4 z4 w34 b4 x3 z3 w13 w23 b3 x1 x2".split()  # noqa: SIM905


ERRORS = [("float64", 1e-12), ("float32", 1e-4)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "error"), ERRORS)
def test_a_small_error_is_caught(name: str, dtype: str, error: float) -> None:
    assert caught(name, error, DTYPES[dtype], cases=4096) >= SHARE


@pytest.mark.parametrize("dtype", [dtype for dtype, _ in ERRORS])
def test_without_an_error_nothing_is_caught(dtype: str) -> None:
    assert caught("w13", 0.0, DTYPES[dtype], cases=4096) == 0.0
