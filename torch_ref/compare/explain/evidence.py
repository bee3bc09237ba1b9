"""What an explanation is made from, and what it looks like."""

from dataclasses import dataclass

from torch import Tensor

from torch_ref.compare.verdict import Side


@dataclass(frozen=True)
class Evidence:
    """One draw of a quantity that is wrong. All tensors of one draw live on one device.

    For a batched twin the first dimension of every tensor is the cases.

    name: the quantity.
    manual: dL/d(name) as the hand gave it, float64, and the bound on the hand's own rounding.
    expected: what the reference's local derivatives make of the gradients that the hand gave for
        the consumers of `name`, so that errors inherited from upstream are in it already; the
        shape of `manual`.
    decided: bool, same shape: the elements that count.
    values: inputs and named intermediates with their bounds; integers serve as factors, counts and
        indices, booleans as masks.
    gradients: every gradient that the hand gave, in backward order, `name` itself included.
    paths: what each direct consumer contributes to `expected`, by its name, and "loss" for the
        direct path; they add up to `expected`.
    """

    name: str
    manual: Side
    expected: Side
    decided: Tensor
    values: dict[str, Side]
    gradients: dict[str, Side]
    paths: dict[str, Side]


@dataclass(frozen=True)
class Explanation:
    """One sentence in the author's names; `known` is False where no pattern fits."""

    sentence: str
    known: bool


@dataclass(frozen=True)
class Answer:
    """A hypothesis that holds.

    predicate: the sentence without its subject, "lacks the factor w56".
    predicted: what it says the hand's numbers are, flat over all draws (see Question).
    """

    predicate: str
    predicted: Side
