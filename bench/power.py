"""How small a relative error in one gradient is caught: `python bench/power.py`.

A gradient of the hand-written backward pass is multiplied by 1 + error on ordinary cases; it counts
as caught in a case where it differs from the reference by more than rounding allows.
"""

from dataclasses import replace

import torch

from torch_ref import assignment_twin, verify
from torch_ref.compare import DTYPES

CASES = 16_384
SHARE = 0.99  # of the cases


def caught(name: str, error: float, dtype: torch.dtype, cases: int = CASES) -> float:
    """The share of ordinary cases in which dL/d`name`, wrong by `error`, is called wrong."""
    twin = replace(assignment_twin(), strata=("ordinary",), stress=())

    def manual(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gradients = twin.manual(values)
        return {**gradients, name: gradients[name] + error * gradients[name]}

    report = verify(replace(twin, manual=manual), cases=cases, dtype=dtype, explain=False)
    return next(row.wrong for row in report.rows if row.name == name)


def smallest_caught(name: str, dtype: torch.dtype) -> float:
    """The smallest of 1, 2 and 5 times the powers of ten that is caught in SHARE of the cases."""
    steps = [digit * 10.0**-power for power in range(3, 17) for digit in (5, 2, 1)]
    smallest = float("inf")
    for error in steps:
        if caught(name, error, dtype) < SHARE:
            break
        smallest = error
    return smallest


def main() -> None:
    names = [row.name for row in verify(assignment_twin(), cases=6).rows]
    for dtype in ("float64", "float32"):
        smallest = {name: smallest_caught(name, DTYPES[dtype]) for name in names}
        worst = max(smallest, key=lambda name: smallest[name])
        listed = ", ".join(f"{name} {error:.0e}" for name, error in smallest.items())
        print(f"{dtype}: every gradient's error of {smallest[worst]:.0e} is caught in {SHARE:.0%} "
              f"of {CASES:,} ordinary cases (hardest: dL/d{worst})\n  {listed}")  # fmt: skip


if __name__ == "__main__":
    main()
