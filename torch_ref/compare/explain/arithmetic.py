"""Arithmetic on numbers that carry a bound: what a formula makes of values known up to rounding.

Each result's bound covers every combination of its arguments' true values, to all orders for
+ - * /, and the rounding of the float64 operation itself (u = 2^-53; the smallest normal number
where it may underflow). Shapes broadcast.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.compare.verdict import Side

UNIT_ROUNDOFF = 2.0**-53
SMALLEST_NORMAL = torch.finfo(torch.float64).smallest_normal


def exact(value: Tensor) -> Side:
    """A number that nothing has rounded."""
    return Side(value, torch.zeros_like(value))


def plus(left: Side, right: Side) -> Side:
    value = left.value + right.value
    return Side(value, left.bound + right.bound + UNIT_ROUNDOFF * value.abs())


def minus(left: Side, right: Side) -> Side:
    return plus(left, Side(-right.value, right.bound))


def times(left: Side, right: Side) -> Side:
    value = left.value * right.value
    moved = (
        left.value.abs() * right.bound
        + left.bound * right.value.abs()
        + left.bound * right.bound
    )  # fmt: skip
    exact_zero = _is_exact_zero(left) | _is_exact_zero(right)  # whatever the other one's bound is
    moved = torch.where(exact_zero, 0.0, moved.nan_to_num(nan=torch.inf, posinf=torch.inf))
    return Side(value, moved + _rounding(value, 1))


def _is_exact_zero(side: Side) -> Tensor:
    return (side.value == 0) & (side.bound == 0)


def scaled(constant: float, side: Side) -> Side:
    """constant * side; a constant such as 1/3 is itself rounded."""
    value = constant * side.value
    return Side(value, abs(constant) * side.bound + _rounding(value, 2))


def over(left: Side, right: Side) -> Side:
    """left / right: |(a + da)/(b + db) - a/b| <= (da + |a/b| db) / (|b| - db)."""
    value = left.value / right.value
    moved = left.bound + value.abs() * right.bound
    divisor = (right.value.abs() - right.bound).clamp(min=0.0)
    return Side(value, torch.where(moved == 0, 0.0, moved / divisor) + _rounding(value, 1))


def applied(
    function: Callable[[Tensor], Tensor],
    side: Side,
    terms: Callable[[Tensor], Tensor] = torch.zeros_like,
) -> Side:
    """function(side) for a smooth function; `terms` is the size of what cancels inside it, if any.

    The bound is how far the function moves between both ends of the argument's, made at least two
    units in the last place wide so that float64 can tell the ends apart.
    """
    reach = side.bound + 2 * UNIT_ROUNDOFF * side.value.abs()
    value = function(side.value)
    ends = [(function(end) - value).abs() for end in (side.value - reach, side.value + reach)]
    rounding = _rounding(value, 8) + 8 * UNIT_ROUNDOFF * terms(side.value)
    return Side(value, torch.maximum(*ends) + rounding)


def total(sides: list[Side]) -> Side:
    """The sum of one or more sides."""
    result = sides[0]
    for side in sides[1:]:
        result = plus(result, side)
    return result


def picked(side: Side, places: Tensor) -> Side:
    """The elements at some places of a flat side, or where a mask is True."""
    return Side(side.value[places], side.bound[places])


def stacked(sides: list[Side]) -> Side:
    """Flat sides of one length as the rows of one."""
    return Side(
        torch.stack([side.value for side in sides]), torch.stack([side.bound for side in sides])
    )


def joined(sides: list[Side]) -> Side:
    """The elements of several sides one after the other, flat."""
    return Side(
        torch.cat([side.value.reshape(-1) for side in sides]),
        torch.cat([side.bound.reshape(-1) for side in sides]),
    )


def agree(left: Side, right: Side) -> Tensor:
    """Where both can be the same number, elementwise; False where one is not a number."""
    result: Tensor = (left.value - right.value).abs() <= left.bound + right.bound
    return result


def _rounding(value: Tensor, operations: int) -> Tensor:
    size = value.abs()
    return operations * UNIT_ROUNDOFF * size + (size <= 2 * SMALLEST_NORMAL) * SMALLEST_NORMAL
