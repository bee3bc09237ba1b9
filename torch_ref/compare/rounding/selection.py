"""Choices: comparisons, where, max, sort, clamp and the like, which rounding can turn round.

The chosen branch is followed. Where rounding could have chosen otherwise, the answer is open: a
mask says so for booleans and indices, and a bound as large as the jump for numbers. Where exact
numbers meet the threshold exactly, a gradient is a convention; such places are reported as kinks,
and torch's convention is the one judged by.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from torch_ref.compare.rounding.operation import Bound, Operation, floating, name_of
from torch_ref.compare.rounding.pointwise import as_numbers, open_everywhere
from torch_ref.compare.rounding.structure import opened, unknown

# Their results lie on a threshold by construction: no kink there.
_FLAT = {"relu", "clamp", "clamp_min", "clamp_max", "amax", "amin"}
_SAME = {"alias", "detach", "clone", "view", "expand", "unsqueeze", "squeeze", "permute"}


def comparison(operation: Operation) -> Bound:
    """Where rounding could turn the answer round, that of a number written in the code, too.

    Two inexact numbers that are equal to the last bit are so by construction (a maximum and what it
    was taken from), so eq and ne are open only where they are near and not equal; but a difference
    can be 0 for want of digits.
    """
    left, right = operation.args[:2]
    if not floating(left) and not floating(right):
        inexact = any(error is not None for error in operation.errors)
        return open_everywhere(operation) if inexact else None
    margin: Any = sum(error for error in operation.errors if error is not None)
    margin = margin + sum(map(operation.arithmetic.lost_of, operation.args))
    difference = abs(left - right)
    _report_ties(operation, difference == 0)
    if not isinstance(margin, Tensor) and margin == 0:
        return None
    near = (difference <= margin) & (margin > 0)
    if operation.name in ("eq", "ne") and (isinstance(right, Tensor) or right != 0):
        return near & (difference != 0)
    if isinstance(margin, Tensor) and not (operation.finite(0) and operation.finite(1)):
        return near | (left != left) | (right != right)  # for want of range; others may have it
    return near


def _report_ties(operation: Operation, tied: Tensor) -> None:
    by_construction = any(_source(node) in _FLAT for node in operation.node.all_input_nodes) or (
        operation.name in ("eq", "ne") and isinstance(operation.args[1], Tensor)
    )
    if not by_construction:
        operation.report_kink(tied)


def _source(node: Node) -> str:
    """The name of the operation that made a value, seen through copies and views of it."""
    while name_of(node) in _SAME and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return name_of(node)


def logical(operation: Operation) -> Bound:
    """and, or, not of masks, any and all of one: open where an argument is."""
    if operation.name in ("any", "all"):
        return operation.call(operation.errors[0] != 0, *operation.args[1:]) != 0
    return open_everywhere(operation)


def where(operation: Operation) -> Bound:
    """The chosen branch's bound; both, and their difference, where the choice is open."""
    chosen, left, right = operation.args
    if not floating(operation.result):
        return open_everywhere(operation)
    zero = torch.zeros((), dtype=torch.float64, device=operation.result.device)
    on_left, on_right = (zero if error is None else error for error in operation.errors[1:])
    bound = torch.where(chosen, on_left, on_right)
    if operation.errors[0] is not None:
        either = torch.maximum(on_left, on_right) + (left - right).abs()
        bound = torch.where(operation.errors[0], either, bound)
    return bound.expand(operation.result.shape)


def clamped(operation: Operation) -> Bound:
    """relu and clamp: the bound where the argument may lie inside, 0 where it certainly does not.

    With tensors as limits, theirs too; where a number is the limit, what the dtype loses of it.
    """
    if not floating(operation.result):
        return open_everywhere(operation)
    value, error = operation.args[0], operation.error(0)
    low, high = _limits(operation)
    for limit in (low, high):
        if limit is not None:
            operation.report_kink(value == limit)
    lost_low, lost_high = map(operation.arithmetic.lost_of, (low, high))
    moving = torch.ones_like(value, dtype=torch.bool)
    if low is not None:
        moving = moving & (value + error > low - lost_low)
    if high is not None:
        moving = moving & (value - error < high + lost_high)
    bound: Tensor = torch.where(moving, error, 0.0)
    if lost_low:
        bound = torch.where(value - error <= low + lost_low, bound.clamp(min=lost_low), bound)
    if lost_high:
        bound = torch.where(value + error >= high - lost_high, bound.clamp(min=lost_high), bound)
    for other in operation.errors[1:]:
        bound = bound if other is None else torch.maximum(bound, other)
    return bound


def _limits(operation: Operation) -> tuple[Any, Any]:
    if operation.name == "relu":
        return 0.0, None
    low = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("min")
    high = operation.args[2] if len(operation.args) > 2 else operation.kwargs.get("max")
    return (None, low) if operation.name == "clamp_max" else (low, high)


def larger(operation: Operation) -> Bound:
    """maximum and minimum: no further off than the worse of the arguments that can be the one."""
    if not floating(operation.result):
        return open_everywhere(operation)
    operation = as_numbers(operation)
    left, right = operation.args
    operation.report_kink(left == right)
    on_left, on_right = operation.error(0), operation.error(1)
    if operation.name == "minimum":
        left, right = -left, -right
    on_left, on_right = (
        torch.where(left + on_left < right - on_right, 0.0, on_left),
        torch.where(right + on_right < left - on_left, 0.0, on_right),
    )
    return torch.maximum(on_left, on_right).expand(operation.result.shape)


def jump(operation: Operation) -> Bound:
    """sign, floor, round and the like: how far the value goes over the argument's bound."""
    value, error = operation.args[0], operation.error(0)
    rest = operation.args[1:]
    if operation.name in ("sign", "sgn"):
        operation.report_kink(value == 0)
    ends = [operation.call(value + side * error, *rest) for side in (-1, 1)]
    return torch.maximum(*((end - operation.result).abs() for end in ends))


def extreme(operation: Operation) -> Bound:
    """amax and amin: no further off than the worst of the numbers that can be the chosen one."""
    amax = torch.ops.aten.amax.default
    if not floating(operation.result):
        return amax(operation.errors[0] != 0, *operation.args[1:], **operation.kwargs)
    value, error = operation.args[0], operation.error(0)
    axes = operation.args[1] if len(operation.args) > 1 else []
    signed = -value if operation.name in ("amin", "min") else value
    possible = _possible(signed, error, axes)
    return amax(possible, *operation.args[1:], **operation.kwargs)


def _possible(signed: Tensor, error: Tensor, axes: Any) -> Tensor:
    """The bounds of those numbers that can be the largest, 0 for all others."""
    highest = (signed - error).amax(axes, keepdim=True)
    return torch.where(signed + error < highest, 0.0, error)


def extreme_with_index(operation: Operation) -> Bound:
    """max and min along an axis: the value as of amax, the index open where two are near."""
    axis = operation.args[1]
    if not floating(operation.args[0]):
        return tuple(_open_along(operation, axis, one) for one in operation.result)
    value, error = operation.args[0], operation.error(0)
    keep = len(operation.args) > 2 and bool(operation.args[2])
    if value.ndim == 0 or value.shape[axis] < 2:
        return None if operation.errors[0] is None else (
            error.amax(axis, keepdim=keep), torch.zeros_like(operation.result[1], dtype=torch.bool)
        )  # fmt: skip
    signed = value if operation.name == "max" else -value
    low, high = reach(signed, error)
    first, second = low.topk(2, axis).values.unbind(axis)
    near = (high.topk(2, axis).values.select(axis, 1) >= first) & (error.amax(axis) > 0)
    operation.report_kink((second == first).unsqueeze(axis) if keep else second == first)
    worst = _possible(signed, error, axis).amax(axis, keepdim=keep)
    return worst, (near.unsqueeze(axis) if keep else near)


def reach(value: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the most that numbers may be: anything where an infinite one is not certain."""
    unknown_ones = error == math.inf
    return (
        torch.where(unknown_ones, -math.inf, value - error),
        torch.where(unknown_ones, math.inf, value + error),
    )


def _open_along(operation: Operation, axis: int, result: Tensor) -> Bound:
    """Where any of the integers or booleans along an axis is open; None where none is."""
    open_places = operation.error(0) != 0
    if not operation.looks.may_hold(open_places):
        return None
    return (open_places.any(axis) if open_places.ndim else open_places).reshape(result.shape)


def extreme_index(operation: Operation) -> Bound:
    """argmax and argmin: open where two are near; everywhere if of all numbers at once."""
    if len(operation.args) < 2 or operation.args[1] is None or operation.args[0].ndim == 0:
        return torch.ones_like(operation.result, dtype=torch.bool)
    axis = operation.args[1]
    if not floating(operation.args[0]):
        return _open_along(operation, axis, operation.result)
    value, error = operation.args[0], operation.error(0)
    if value.shape[axis] < 2:
        return torch.zeros_like(operation.result, dtype=torch.bool)
    lowest, highest = reach(value if operation.name == "argmax" else -value, error)
    first, second = lowest.amax(axis), highest.topk(2, axis).values.select(axis, 1)
    return ((second >= first) & (error.amax(axis) > 0)).reshape(operation.result.shape)


def ordered(operation: Operation) -> Bound:
    """sort and topk: values as of amax, indices open where numbers may change places."""
    value, error = operation.args[0], operation.error(0)
    axis, descending = _order(operation)
    if not floating(value):
        return _of_integers(operation)
    if operation.name == "topk" and False in operation.args[4:5]:  # in no order that is known
        return unknown(operation)
    if value.ndim == 0 or not value.shape[axis]:
        return error, torch.zeros_like(operation.result[1], dtype=torch.bool)
    numbers, order = value.sort(dim=axis, descending=descending)
    bounds = error.gather(axis, order)
    operation.report_kink(numbers.diff(dim=axis) == 0)
    rising = -numbers if descending else numbers
    near = _may_change_places(rising, bounds, axis)
    count = operation.result[1].shape[axis]
    worst = error.amax(axis, keepdim=True).expand(value.shape)
    return worst.narrow(axis, 0, count), near.narrow(axis, 0, count)


def _of_integers(operation: Operation) -> Bound:
    """Values and indices of integers or masks: open where any of these is."""
    error = operation.errors[0]
    is_open = error is not None and bool(error.any())
    return tuple(torch.full_like(one, is_open, dtype=torch.bool) for one in operation.result)


def _may_change_places(rising: Tensor, bounds: Tensor, axis: int) -> Tensor:
    """Of sorted numbers those that a neighbour, or one from farther away, may pass."""
    length = rising.shape[axis] - 1
    lower, upper = ((0, length), (1, length))

    def of(number: Tensor, part: tuple[int, int]) -> Tensor:
        return number.narrow(axis, *part)

    both = of(bounds, lower) + of(bounds, upper)
    passes = ~(rising.diff(dim=axis) > both) & (both > 0)
    low, high = reach(rising, bounds)
    from_below = of(high.cummax(axis).values, lower) > of(low, upper)
    from_above = of(low.flip(axis).cummin(axis).values.flip(axis), upper) < of(high, lower)
    none = torch.zeros_like(rising.narrow(axis, 0, 1), dtype=torch.bool)
    below, above = ((none, passes | from_below), (passes | from_above, none))
    return torch.cat(below, axis) | torch.cat(above, axis)


def _order(operation: Operation) -> tuple[int, bool]:
    args, kwargs = operation.args, operation.kwargs
    if operation.name == "topk":
        axis = args[2] if len(args) > 2 else -1
        return axis, bool(args[3]) if len(args) > 3 else True
    axis = args[1] if len(args) > 1 else kwargs.get("dim", -1)
    return axis, bool(args[2] if len(args) > 2 else kwargs.get("descending", False))


def one_in_order(operation: Operation) -> Bound:
    """kthvalue and median: no further off than the worst; the index open where another is near."""
    value, error = operation.args[0], operation.error(0)
    if isinstance(operation.result, Tensor):  # the median of all numbers
        return error.amax()
    if not floating(value):
        return _of_integers(operation)
    place = 2 if operation.name == "kthvalue" else 1
    axis = operation.args[place] if len(operation.args) > place else -1
    kept = len(operation.args) > place + 1 and bool(operation.args[place + 1])
    chosen, index = (
        one if kept or not value.ndim else one.unsqueeze(axis) for one in operation.result
    )
    own = error.gather(axis, index) if value.ndim else error
    near = (~((value - chosen).abs() > error + own)).sum(axis, keepdim=True) > 1
    near = near & (error.amax(axis, keepdim=True) > 0)
    tied = (value == chosen).sum(axis, keepdim=True) > 1
    shape = operation.result[0].shape
    operation.report_kink(tied.reshape(shape))
    worst = error.amax(axis, keepdim=True)
    return worst.reshape(shape), near.reshape(shape)


# Pairs of numbers that are held against each other; of more the index is open.
PAIRS = 2**24


def extreme_so_far(operation: Operation) -> Bound:
    """cummax and cummin: no further off than the worst so far; the index open where one is near."""
    value, error, axis = operation.args[0], operation.error(0), operation.args[1]
    values, index = operation.result
    if not floating(value):
        return _of_integers(operation)
    worst = error.cummax(axis).values
    if not value.ndim:
        return worst, torch.zeros_like(index, dtype=torch.bool)
    if value.numel() * value.shape[axis] > PAIRS:
        return worst, torch.ones_like(index, dtype=torch.bool)
    signed, chosen = (one if operation.name == "cummax" else -one for one in (value, values))
    reach, least = signed + error, chosen - error.gather(axis, index)
    before = reach.transpose(axis, -1).unsqueeze(-2) >= least.transpose(axis, -1).unsqueeze(-1)
    tied = signed.transpose(axis, -1).unsqueeze(-2) == chosen.transpose(axis, -1).unsqueeze(-1)
    near, ties = (one.tril().sum(-1).transpose(axis, -1) > 1 for one in (before, tied))
    operation.report_kink(ties)
    return worst, near & (worst > 0)


def extreme_of_scattered(operation: Operation) -> Bound:
    """scatter_reduce by amax or amin: no further off than the worst of what comes to a place."""
    axis, index, values = operation.args[1:4]
    indexed = values[tuple(slice(0, length) for length in index.shape)]
    chosen = indexed == operation.result.gather(axis, index)
    counts = torch.zeros_like(operation.result).scatter_add(axis, index, chosen.double())
    operation.report_kink(counts > 1)
    if opened(operation):
        return torch.full_like(operation.result, torch.inf)
    return operation.call(operation.error(0), axis, index, operation.error(3), "amax")
