"""What a walk may find out about its numbers, to leave out work for which they give no reason.

What comes out is the same, whoever answers: the rules take no and yes for what they fear.
"""

from typing import Protocol

from torch import Tensor


class Looks(Protocol):
    """What can be asked."""

    def are_small(self, sizes: Tensor, largest: float) -> bool:
        """Whether none is above the largest, or NaN."""

    def are_above(self, sizes: Tensor, smallest: float) -> bool:
        """Whether all are above the smallest, and none is NaN."""

    def are_finite(self, value: Tensor) -> bool:
        """Whether all numbers are finite."""

    def may_hold(self, condition: Tensor) -> bool:
        """Whether a condition may hold anywhere."""


class Looking:
    """Looks at the numbers, as a walk through a batch does."""

    def are_small(self, sizes: Tensor, largest: float) -> bool:
        return not sizes.numel() or sizes.amax().item() <= largest

    def are_finite(self, value: Tensor) -> bool:
        return bool(value.isfinite().all())

    def are_above(self, sizes: Tensor, smallest: float) -> bool:
        return not sizes.numel() or sizes.amin().item() > smallest

    def may_hold(self, condition: Tensor) -> bool:
        return bool(condition.any())


class Blind:
    """Fears everything: for formulas that hold for all numbers."""

    def are_small(self, sizes: Tensor, largest: float) -> bool:
        return False

    def are_finite(self, value: Tensor) -> bool:
        return False

    def are_above(self, sizes: Tensor, smallest: float) -> bool:
        return False

    def may_hold(self, condition: Tensor) -> bool:
        return True


class Assuming(Blind):
    """Takes it that nothing overflows, and notes what must not hold for that to be so."""

    def __init__(self) -> None:
        self.against: list[Tensor] = []

    def are_small(self, sizes: Tensor, largest: float) -> bool:
        self.against.append(~(sizes <= largest))
        return True

    def are_finite(self, value: Tensor) -> bool:
        self.against.append(~value.isfinite())
        return True
