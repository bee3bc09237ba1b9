"""Ten million cases a dtype, every stratum, without one false alarm: `pytest -m slow`."""

import pytest

from torch_ref import assignment_twin, verify
from torch_ref.compare import DTYPES

CASES = 10_000_000


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_false_alarm(dtype: str, device: str) -> None:
    report = verify(assignment_twin(), cases=CASES, dtype=DTYPES[dtype], device=device, seed=2)
    worst = max(row.worst_ratio or 0.0 for row in report.rows)
    print(f"{CASES:,} cases, {dtype}, {device}: worst error/bound {worst:.3f}")
    report.assert_agreement()
