"""Softmax and logarithms of sums of exponentials, whose numbers move together.

With p = softmax(x), and x off by e, each exp(x_j) rises to at most p_j exp(e_j) and falls to
p_j exp(-e_j), of a sum that is 1. A share is the largest where its own rose and all others fell:

    p_i + up = p_i exp(e_i) / (p_i exp(e_i) + sum of p_j exp(-e_j) over the others)

and the smallest the other way round. Taken apart, the largest number and the sum would count as if
they moved by themselves, twice as far. The kernels' own roundings, relative to a share, with m the
largest number and n their number (rounding of x - m, exp, the sum, the quotient):

    u (m - x_i + sum_j p_j (m - x_j) + 9 + growth(n))
"""

import math
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.rounding.linear import roundings_along
from torch_ref.compare.rounding.operation import Bound, Operation


def softmax(operation: Operation) -> Bound:
    """softmax: how far a share moves where its own number and all others move apart.

    Underflow of its exponential, if not by a mask's infinity, is eta.
    """
    value, axis, shares = operation.args[0], operation.args[1], operation.result
    if not value.numel():
        return None
    error = operation.errors[0]
    moved: Any = 0.0
    if error is not None:
        moved = torch.maximum(*_moved(shares, torch.log_softmax(value, axis), error, axis))
        moved = torch.where(error.amax(axis, keepdim=True) == math.inf, math.inf, moved)
    arithmetic, below = operation.arithmetic, _below(value, error, axis)
    size = shares + moved
    lost = torch.expm1(arithmetic.unit_roundoff * below)  # below may be 1/u in half precision
    bound: Tensor = moved + (size * lost).nan_to_num(nan=0.0)
    bound = bound + size * _of_sum(operation, shares, below, axis, 9)
    small = 2 * arithmetic.smallest_normal
    if not operation.looks.are_above(shares, small):
        underflow = (shares <= small) & (value > -math.inf)
        bound = bound + underflow.double() * arithmetic.eta
    return bound


def log_softmax(operation: Operation) -> Bound:
    """log_softmax: how far the logarithm of that share moves.

    The difference from the largest number, the logarithm of the sum and the result are rounded.
    """
    value, axis, result = operation.args[0], operation.args[1], operation.result
    if not value.numel():
        return None
    error, shares = operation.errors[0], operation.result.exp()
    moved: Any = 0.0
    if error is not None:
        up, down = _moved(shares, result, error, axis)
        of_share = torch.maximum(torch.log1p(up / shares), -torch.log1p(-down / shares))
        together = error + _sum_moved(shares, result, error, axis)  # where the share underflows
        moved = torch.fmin(torch.where(shares > 1e-300, of_share, math.inf), together)
    below = _below(value, error, axis)
    steps = below + operation.size + moved + 4 * -result.amax(axis, keepdim=True)
    steps = torch.where(operation.size < math.inf, steps, 0.0)
    own = operation.arithmetic.unit_roundoff * steps
    return moved + own + _of_sum(operation, shares, below, axis, 4)


def logarithm_of_sum(operation: Operation) -> Bound:
    """logsumexp: how far it moves where all numbers rise together, and where all fall.

    Rounded as log_softmax is.
    """
    value, axes, result = operation.args[0], operation.args[1], operation.result
    if not value.numel():
        return None
    error, shape = operation.errors[0], operation.call(value, axes, True).shape
    wide = result.reshape(shape)
    logs = (value - wide).nan_to_num(nan=-math.inf, posinf=-math.inf)
    shares = logs.exp()
    moved: Any = 0.0
    if error is not None:
        moved = _sum_moved(shares, logs, error, axes)
    below = _below(value, error, axes)
    log_of_sum = wide - value.amax(axes, keepdim=True)
    steps = operation.arithmetic.unit_roundoff * (wide.abs() + moved + 4 * log_of_sum)
    own = steps + _of_sum(operation, shares, below, axes, 4)
    # the largest number, as it is; in fewer digits than the walk's it may have lost the others
    alone = (log_of_sum == 0) & (result.dtype == torch.float64) | (wide.abs() == math.inf)
    return (moved + torch.where(alone, 0.0, own)).reshape(result.shape)


def logarithm_of_sums(operation: Operation) -> Bound:
    """logcumsumexp: how far it moves over its argument's bound, and a rounding of each step.

    It rises with every number, so the ends are exact. A step is a + log1p(exp(b - a)) for a >= b,
    rounded by u (|v| + 8); that counts further on by its weight, exp(v_k - v_i). Beside the largest
    number so far, a mask's, all others may be nothing: it stays what it is.
    """
    value, axis, result = operation.args[0], operation.args[1], operation.result
    bound: Any = 0.0
    if operation.errors[0] is not None:
        ends = (operation.call(value + side * operation.errors[0], axis) for side in (-1, 1))
        moved = (torch.where(end == result, 0.0, (end - result).abs()) for end in ends)
        bound = torch.maximum(*moved).nan_to_num(nan=math.inf, posinf=math.inf)
    more = (result != value.cummax(axis).values) | (result.dtype != torch.float64)
    rounded = more & (operation.size < math.inf)
    steps = torch.where(rounded, result + (operation.size + 8).log(), -math.inf)
    own = (operation.call(steps, axis) - result).exp().nan_to_num(nan=0.0)
    own = torch.where(rounded, own, 0.0)
    return bound + operation.arithmetic.unit_roundoff * own


def _risen_and_fallen(shares: Tensor, logs: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """How much p exp(e) is above p, and p exp(-e) below it; by log p where e is large, since p may
    have underflowed (a mask's -1e38)."""
    risen = torch.where(error < 1, shares * error.expm1(), (logs + error).exp() - shares)
    return risen, -shares * torch.expm1(-error)


def _moved(shares: Tensor, logs: Tensor, error: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """How far shares rise and fall, each and the others moving apart; 1 at most."""
    risen, fallen = _risen_and_fallen(shares, logs, error)

    def of_others(numbers: Tensor) -> Tensor:
        return (numbers.sum(axis, keepdim=True) - numbers).clamp(min=0.0)

    others = of_others(shares)
    largest = shares + risen + of_others(shares - fallen)
    smallest = shares - fallen + of_others(shares + risen)
    up = (others * risen + shares * of_others(fallen)) / largest
    down = (others * fallen + shares * of_others(risen)) / smallest
    one = torch.ones_like(shares)
    return torch.fmin(up, one), torch.fmin(down, one)  # also where exp overflowed, to NaN


def _sum_moved(shares: Tensor, logs: Tensor, error: Tensor, axes: Any) -> Tensor:
    """How far the logarithm of the sum moves where all numbers rise, or all fall."""
    risen, fallen = (one.sum(axes, keepdim=True) for one in _risen_and_fallen(shares, logs, error))
    moved: Tensor = torch.maximum(torch.log1p(risen), -torch.log1p(-fallen))
    return moved.nan_to_num(nan=math.inf, posinf=math.inf)


def _below(value: Tensor, error: Tensor | None, axes: Any) -> Tensor:
    """How far numbers are below the largest one, at most: x - m is rounded by u times that."""
    below = value.amax(axes, keepdim=True) - value
    if error is None:
        return below
    return below + error + error.amax(axes, keepdim=True)


def _of_sum(operation: Operation, shares: Tensor, below: Tensor, axes: Any, others: int) -> Tensor:
    """Relative error of the sum of exponentials, and of so many other roundings."""
    u = operation.arithmetic.unit_roundoff
    lost = (shares * torch.expm1(u * below)).nan_to_num(nan=0.0).sum(axes, keepdim=True)
    summed = [axes] if isinstance(axes, int) else axes
    relative: Tensor = lost + u * (others + roundings_along(shares, summed))
    return relative
