"""What many elements show together: a systematic relative error too small for any one of them.

In bfloat16 a single case decides little, since its bound may be a third of its value. Over many
cases the signed deviations d = manual - reference tell more. The claim, and its probability:

    If every d is rounding, at most e in size and of mean zero given the other cases (the model of
    Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019), then the estimate
        c = sum(r d / e^2) / sum(r^2 / e^2)
    of a common relative error lies further than
        sqrt(2 ln(2/p) sum_cases (sum |r| / e)^2) / sum(r^2 / e^2)
    from 0 with probability at most p = 10^-9 (Hoeffding, J. Am. Stat. Assoc. 58, 1963).

Two things are allowed on top, since the mean is not exactly zero. Rounding to nearest: half of the
dtype's unit roundoff (measured on the assignment network, a million cases a dtype: at most 0.05 of
it; but inputs may be the same few whole numbers in all cases, and r / 255 of these 0.41 of it in
bfloat16); in float64 two and a half, for the libraries' functions. Curved functions: exp(x + error)
is exp(x) (1 + error + error^2/2 ...), of relative mean error^2/2; so the mean square
of d/r that was seen, sum(d^2 / e^2) / sum(r^2 / e^2), twice that.
Constants written in the code (0.3 in float32), and what is computed of them alone, are off by the
same amount in every case: where an estimate is too far from 0 it is held against the estimate that
they alone may cause on the first cases, and nothing is concluded of a hand whose constants cannot
be seen.

r is the reference, e the sum of both bounds. Elements of one case share their rounding errors, so
each case counts as one term.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

PROBABILITY = 1e-9
BIAS = 0.5  # unit roundoffs
# In float64, where exp and log are those of some library on both sides, and written in C where the
# judge is compiled: at one number they are off by as much in all cases (measured: 1.8).
BIAS_IN_FLOAT64 = 2.5


def terms(
    deviation: Tensor, reference: Tensor, bound: Tensor, usable: Tensor, unit_roundoff: float
) -> tuple[Tensor, Tensor]:
    """r / e and d / e where an element is usable, 0 elsewhere; tensors of one shape.

    What is smaller than 1e-292 in float64 is not usable: 1 / e overflows.
    """
    size = reference.abs()
    # No bound counts as smaller than one rounding: a few exact elements must not outweigh all.
    bound = torch.maximum(bound, unit_roundoff * size)
    weight = bound.reciprocal()  # a division takes as long as ten products
    usable = usable & (bound <= size) & (deviation.abs() <= bound) & (weight < math.inf)
    scaled, moved = reference * weight, deviation * weight
    return torch.where(usable, scaled, 0.0), torch.where(usable, moved, 0.0)


def summands(scaled: Tensor, moved: Tensor, batched: bool) -> tuple[Tensor, ...]:
    """The numbers whose sums are the fields of a Pool, in their order."""
    reach = scaled.abs().reshape((len(scaled), -1) if batched else (1, -1)).sum(1)
    return scaled * moved, scaled * scaled, reach * reach, reach > 0, moved * moved


@dataclass(frozen=True)
class Pool:
    """The sums over the elements pooled so far; those of other cases add up."""

    signed: float = 0.0  # sum of r d / e^2
    squares: float = 0.0  # sum of r^2 / e^2
    spread: float = 0.0  # sum over cases of (sum |r| / e)^2
    cases: int = 0
    deviations: float = 0.0  # sum of d^2 / e^2

    @staticmethod
    def of(
        deviation: Tensor, reference: Tensor, bound: Tensor, usable: Tensor, unit_roundoff: float,
        batched: bool,
    ) -> "Pool":  # fmt: skip
        """Elements of some cases, tensors of one shape; `batched`: cases come first."""
        return Pool.summed(*terms(deviation, reference, bound, usable, unit_roundoff), batched)

    @staticmethod
    def summed(scaled: Tensor, moved: Tensor, batched: bool) -> "Pool":
        """The sums of `terms` of some cases; `batched`: cases come first."""
        if not scaled.numel():
            return Pool()
        signed, squares, spread, cases, deviations = (
            each.sum().item() for each in summands(scaled, moved, batched)
        )
        return Pool(signed, squares, spread, int(cases), deviations)

    def __add__(self, other: "Pool") -> "Pool":
        return Pool(
            self.signed + other.signed,
            self.squares + other.squares,
            self.spread + other.spread,
            self.cases + other.cases,
            self.deviations + other.deviations,
        )

    @property
    def bias(self) -> float:
        """The estimate c of a relative error common to all elements."""
        return self.signed / self.squares if self.squares else 0.0

    def allowed(self, unit_roundoff: float) -> float:
        """How far from 0 rounding alone may put the estimate."""
        if not self.squares:
            return math.inf
        chance = math.sqrt(2 * math.log(2 / PROBABILITY) * self.spread) / self.squares
        curved = self.deviations / self.squares
        bias = BIAS if unit_roundoff > 2.0**-53 else BIAS_IN_FLOAT64
        return bias * unit_roundoff + curved + chance

    def biased(self, unit_roundoff: float, by_constants: float = 0.0) -> bool:
        """Whether the estimate is further from 0 than rounding alone may put it."""
        return abs(self.bias) > self.allowed(unit_roundoff) + by_constants
