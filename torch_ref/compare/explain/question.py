"""The question to answer: which formula gives the hand's numbers? And what counts as an answer.

All draws are laid out flat, one after the other, so that a hypothesis about single elements is
tested on all of them at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import agree, joined
from torch_ref.compare.explain.evidence import Evidence
from torch_ref.compare.verdict import Side

# What makes an answer credible. Some 2^20 hypotheses are tried, so 48 bits leave 2^-28 to chance.
ELEMENTS_NEEDED = 4
BITS_NEEDED = 48.0
BITS_AN_ELEMENT = 16.0  # at most: numbers such as 1 and 1/2 coincide more often than digits tell
RATIOS_NEEDED = 3  # different ratios hand / expected, where an answer names a quantity
SAMPLE = 24
MANY_CASES = 64  # fewer are taken for an axis like any other


@dataclass(frozen=True, eq=False)
class Question:
    """The hand's numbers, the expected ones and which of them count, flat over all draws.

    consumers: names through which the expected number flows, "loss" for the direct path.
    memory: what hypotheses work out once for all of them.
    """

    draws: tuple[Evidence, ...]
    manual: Side
    expected: Side
    decided: Tensor
    consumers: tuple[str, ...]
    memory: dict[str, Any] = field(default_factory=dict, init=False)

    @staticmethod
    def of(draws: Sequence[Evidence]) -> "Question":
        return Question(
            draws=tuple(draws),
            manual=joined([draw.manual for draw in draws]),
            expected=joined([draw.expected for draw in draws]),
            decided=torch.cat([draw.decided.reshape(-1) for draw in draws]),
            consumers=tuple(dict.fromkeys(name for draw in draws for name in draw.paths)),
        )

    @property
    def name(self) -> str:
        return self.draws[0].name

    @cached_property
    def wrong(self) -> Tensor:
        """Decided elements that rounding does not explain, bool; infinite ones of the hand are."""
        explained = agree(self.manual, self.expected) & self.manual.value.isfinite()
        return self.decided & ~explained

    @cached_property
    def right(self) -> Tensor:
        return self.decided & ~self.wrong

    @cached_property
    def gap(self) -> Tensor:
        """|hand - expected|."""
        return (self.manual.value - self.expected.value).abs()

    @cached_property
    def sample(self) -> Tensor:
        """Places of a few decided elements for a first look: in order, wrong ones mostly."""
        wrong = _spread(self.wrong.nonzero().reshape(-1), SAMPLE * 3 // 4)
        right = _spread(self.right.nonzero().reshape(-1), SAMPLE // 4)
        return torch.cat([wrong, right]).sort().values

    @cached_property
    def batched(self) -> bool:
        """Whether the first dimension of every tensor is the cases, which are many."""
        return all(draw.manual.value.shape[:1] >= (MANY_CASES,) for draw in self.draws) and all(
            side.value.ndim > 0 and side.value.shape[:1] == draw.manual.value.shape[:1]
            for draw in self.draws
            for side in (*draw.values.values(), *draw.gradients.values())
        )

    @cached_property
    def upstream(self) -> tuple[str, ...]:
        """Gradients that the hand gave before this one, the consumers' first."""
        before: list[str] = []
        for name in self.draws[0].gradients:
            if name == self.name:
                break
            before.append(name)
        every = [n for n in before if all(n in draw.gradients for draw in self.draws)]
        return tuple(sorted(every, key=lambda name: name not in self.consumers))

    def about(self, manual: Side, expected: Side, consumer: str) -> "Question":
        """The same question about a part of the number: that which flows through one consumer."""
        return replace(self, manual=manual, expected=expected, consumers=(consumer,))

    def within(self, mask: Tensor) -> "Question":
        """The same question about some elements only."""
        return replace(self, decided=self.decided & mask)

    def answered_by(self, predicted: Side, *, ratios: int = RATIOS_NEEDED) -> bool:
        """Whether a prediction of the hand's numbers holds, and not merely by chance.

        It must agree within both bounds in *every* decided element. It must also tell: in at
        least half of the wrong elements, and at least 4, its tolerance must be below half of what
        the hand is wrong by, and these must add up to 48 bits, log2(error / tolerance) but at
        most 16 an element. A prediction that names a quantity needs `ratios` different ones of
        hand to expected among them: a single one could be any constant.
        """
        return self.holds(self.manual, predicted, ratios=ratios)

    def holds(
        self,
        left: Side,
        right: Side,
        scale: Tensor | float = 1.0,
        *,
        ratios: int = RATIOS_NEEDED,
    ) -> bool:
        """The same for an equation left == right in which the hand's number is multiplied by scale.

        Where scale is 0 the equation holds whatever the hand has: such elements do not tell.
        """
        if not bool(agree(left, right)[self.decided].all()):
            return False
        tolerance = left.bound + right.bound
        visible = self.gap * scale.abs() if isinstance(scale, Tensor) else self.gap * scale
        telling = self.wrong & (2 * tolerance < visible)
        if 2 * int(telling.sum()) < int(self.wrong.sum()) or not _enough(
            visible[telling], tolerance[telling]
        ):
            return False
        hand, expected = self.manual.value[telling], self.expected.value[telling]
        ratio = torch.where(expected == 0, hand, hand / expected)
        return ratios <= 1 or different(ratio) >= ratios

    def described_by(self, form: Side) -> bool:
        """Whether a formula gives the expected numbers, by the same standard as an answer."""
        if not bool(agree(self.expected, form)[self.decided].all()):
            return False
        size = self.expected.value.abs()
        tolerance = self.expected.bound + form.bound
        telling = self.decided & (2 * tolerance < size)
        some = self.decided & (size > self.expected.bound)
        most = 2 * int(telling.sum()) >= int(some.sum())
        return most and _enough(size[telling], tolerance[telling])

    def split(self, flat: Tensor) -> list[Tensor]:
        """A flat tensor as one tensor a draw, in the shape of the quantity."""
        parts, first = [], 0
        for draw in self.draws:
            count = draw.manual.value.numel()
            parts.append(flat.narrow(0, first, count).reshape(draw.manual.value.shape))
            first += count
        return parts

    def split_side(self, flat: Side) -> list[Side]:
        return [
            Side(value, bound)
            for value, bound in zip(self.split(flat.value), self.split(flat.bound), strict=True)
        ]


def along(numbers: Tensor, axis: int, shape: torch.Size) -> Tensor:
    """A number for each place along an axis, repeated along the others: of that shape."""
    like = [-1 if other == axis else 1 for other in range(len(shape))]
    return numbers.reshape(like).expand(shape)


def _spread(places: Tensor, count: int) -> Tensor:
    """At most `count` of some places, evenly spread."""
    if len(places) <= count:
        return places
    return places[torch.linspace(0, len(places) - 1, count).long()]


def _enough(size: Tensor, tolerance: Tensor) -> bool:
    if len(size) < ELEMENTS_NEEDED:
        return False
    bits = torch.where(tolerance == 0, math.inf, size / tolerance).log2().clamp(0, BITS_AN_ELEMENT)
    return float(bits.sum()) >= BITS_NEEDED


def different(numbers: Tensor) -> int:
    """How many finite numbers differ by more than a millionth, flat."""
    ordered = numbers[numbers.isfinite()].sort().values
    if len(ordered) == 0:
        return 0
    steps = ordered.diff() > 1e-6 * ordered[1:].abs()
    return 1 + int(steps.sum())
