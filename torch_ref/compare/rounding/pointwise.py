"""Operations number by number: v = f(a, b).

    e = |df/da| e_a + |df/db| e_b + k u |v| + eta

u is the unit roundoff; k is 1 where IEEE 754 rounds the operation itself, 0 where it is exact and 4
for exp, log, sigmoid and the like; eta, the smallest normal number (in float64 with headroom, see
`operation`), covers underflow and flush to zero. + - * / keep their second order, too; other
partial derivatives come from autograd, so there is no table of them. Of a function of one inexact
number, the bound is the larger of two: by the steepest slope at that number and at both ends of its
error, and by how far the function moves to these ends, which is exact where it rises or falls all
the way. sin and cos turn on the way, and are nowhere steeper than 1.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import and_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.rounding.operation import Bound, Operation, floating, is_long
from torch_ref.compare.rounding.structure import converted

# Not sqrt: torch computes a float32 one on the CPU to 1 ulp only.
ROUNDED_ONCE = {"add", "sub", "rsub", "mul", "div"}
# Exactly 0 where the (first) argument is: nothing underflows there.
ZERO_AT_ZERO = {"mul", "div", "pow", "sqrt", "sin", "tan", "tanh", "sinh", "asinh", "atan", "expm1",
                "log1p", "erf"}  # fmt: skip

TURNING = {"sin", "cos"}
# |f'(x)| of functions of positive numbers that are the less steep the larger the number is.
FLATTER: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda x: x.reciprocal(),
    "sqrt": lambda x: 0.5 * x.rsqrt(),
    "rsqrt": lambda x: 0.5 * x.rsqrt() / x,
}
# Functions that the libraries compute to at most 4 unit roundoffs. Not all that torch tags
# pointwise: not those in SPECIAL, nor remainder and the like, which jump.
ACCURATE = {"positive", "copysign", "reciprocal", "sqrt", "rsqrt", "square", "pow", "exp",
            "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos",
            "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "sigmoid", "erf",
            "erfc", "erfinv", "hypot"}  # fmt: skip
SPECIAL = {"lgamma", "digamma", "polygamma", "i0", "special_i0e", "special_i1", "special_i1e",
           "special_erfcx", "special_ndtri"}  # fmt: skip


def pointwise(operation: Operation) -> Bound:
    """Number by number: by partial derivatives, and by how far the function moves."""
    if not floating(operation.result):  # integers: nothing rounds, but what was open stays so
        return open_everywhere(operation)
    operation = as_numbers(operation)
    return with_own_rounding(operation, _propagated(operation))


def gelu(operation: Operation) -> Bound:
    """GELU and its derivative: the same, and what 1 + erf loses where it cancels or is approximated

    (measured, on all of -14 to 14: 6.2 u |x| in torch's float32 GELU on the CPU, 17.4 u |upstream|
    in its derivative by tanh).
    """
    u = operation.arithmetic.unit_roundoff
    lost = (24 if operation.name == "gelu_backward" else 8) * u * operation.args[0].abs()
    return with_own_rounding(operation, _propagated(operation)) + lost


def erf(operation: Operation) -> Bound:
    """The error function: the same, and in half precision what torch's kernels are off near 0

    (measured, on all bfloat16 and float16 numbers: at most 2.7e-7).
    """
    bound = pointwise(operation)
    return bound + 2.0**-21 if operation.arithmetic.unit_roundoff > 2.0**-24 else bound


def special(operation: Operation) -> Bound:
    """Gamma and Bessel functions and the like: the same, and 8 u (|v| + |x f'|) for f(x).

    Libraries round on the way to f what moves it as its argument does (measured against mpmath:
    less than half of that, near poles and zeros, too); torch's trigamma has 30 bits in float64.
    """
    operation, at = as_numbers(operation), int(operation.name == "polygamma")
    _, (slope,) = _slopes(operation, operation.args, [at])
    moved = operation.size + (operation.args[at] * slope).abs()
    bound: Tensor = pointwise(operation) + 8 * operation.arithmetic.unit_roundoff * moved
    if at and operation.args[0] == 1 and operation.arithmetic.unit_roundoff < 2.0**-30:
        bound = bound + 2.0**-29 * operation.size
    return bound


def absolute(operation: Operation) -> Bound:
    """abs and neg: the bound of its argument."""
    return operation.errors[0]


def open_everywhere(operation: Operation) -> Bound:
    """A mask of the places where any argument is open."""
    mask = torch.zeros_like(operation.result, dtype=torch.bool)
    for error in operation.errors:
        if isinstance(error, Tensor):
            mask = mask | (error != 0)
    return mask


def with_own_rounding(operation: Operation, propagated: Tensor | None) -> Tensor:
    """The propagated error, and k u |v| and eta for the operation itself and for the numbers
    written into it.

    |v| is that of the value the dtype computes, so the propagated error is added to it.
    """
    name, args, arithmetic = operation.name, operation.args, operation.arithmetic
    u, small = arithmetic.unit_roundoff, 2 * arithmetic.smallest_normal
    size = plus(propagated, operation.size)
    own = (1 if name in ROUNDED_ONCE else 4) * u
    total = own * size if propagated is None else torch.add(propagated, size, alpha=own)
    if name in ("add", "sub", "rsub"):  # a sum that is 0 or subnormal is exact: no eta
        scale = operation.kwargs.get("alpha", 1)
        if scale != 1:
            scaled = abs(scale * args[1])
            total = total + (u + arithmetic.rounding_of(scale)) * scaled
            if isinstance(scaled, Tensor):  # but its second term may underflow before
                total = total + ((scaled <= small) & (scaled != 0)).double() * arithmetic.eta
    elif not operation.looks.are_above(operation.size, small):
        underflow = operation.size <= small
        for arg in args:
            if isinstance(arg, (Tensor, float, int)) and name in ZERO_AT_ZERO:
                underflow = underflow & (arg != 0)
        total = total + underflow.double() * arithmetic.eta  # bool times float would be float32
    for place, arg in enumerate(args):
        if is_long(arg):
            total = total + _by_number(operation, place, size)
    return total


def _by_number(operation: Operation, place: int, size: Tensor) -> Any:
    """How far the result moves by what the dtype loses of a number written in the code."""
    name, number = operation.name, operation.args[place]
    lost = operation.arithmetic.rounding_of(number)
    if name in ("add", "sub", "rsub"):
        return lost * abs(number * operation.kwargs.get("alpha", 1))
    if name == "pow":  # times (1 + d)^x where it is the base, |x|^(p d) where it is the exponent
        other = operation.args[1 - place].abs()
        moved = torch.expm1(lost * (other if place == 0 else abs(number) * other.log().abs()))
        return torch.where(size == 0, size, size * moved)
    return lost * size if name in ROUNDED_ONCE else 0.0


def as_numbers(operation: Operation) -> Operation:
    """Booleans and integers among the arguments as float64; the bound on one is how far the dtype
    is from holding it, and without limit where it is open."""
    if not operation.whole:
        return operation
    args, errors = list(operation.args), list(operation.errors)
    for i, (arg, error) in enumerate(zip(args, errors, strict=True)):
        if isinstance(arg, Tensor) and not arg.is_floating_point():
            args[i] = arg.double()
            errors[i] = converted(arg, error, operation)
    return replace(operation, args=tuple(args), errors=tuple(errors))


def _propagated(operation: Operation) -> Any:
    """How far v = f(a, b) moves where a and b move by their bounds.

    Exactly so for the four operations of arithmetic, where the second order counts as soon as a
    bound is a good part of its value; to first order, by the partial derivatives, for others.
    """
    name, errors = operation.name, operation.errors
    carried = [i for i, error in enumerate(errors) if error is not None]
    if not carried:
        return None
    if name in ROUNDED_ONCE and not operation.kwargs.get("rounding_mode"):
        return _propagated_by_arithmetic(operation)
    if name in TURNING:
        return torch.clamp(errors[0], max=2.0)
    if name in FLATTER:  # by its steepest slope, at the lower end
        error, steepest = errors[0], FLATTER[name](torch.clamp(operation.args[0] - errors[0], 0.0))
        bound = torch.where(error == 0, error, error * steepest)
        return bound.nan_to_num(nan=torch.inf, posinf=torch.inf)
    if len(carried) == 1:
        return _propagated_by_one(operation, carried[0])
    return _propagated_by_several(operation, carried)


def _propagated_by_arithmetic(operation: Operation) -> Any:
    name = operation.name
    (a, b), (left, right) = operation.args[:2], operation.errors[:2]
    if name == "mul":
        both = None if left is None or right is None else left * right
        by_left = None if left is None else times(left, b, finite=operation.finite(1))
        by_right = None if right is None else times(right, a, finite=operation.finite(0))
        return plus(plus(by_left, by_right), both)
    if name == "div":
        # |(a + da)/(b + db) - a/b| <= (da + |a/b| db) / (|b| - db)
        if not isinstance(b, Tensor):
            return left / abs(b) if b else torch.full_like(left, torch.inf)
        divisor = abs(b) if right is None else torch.clamp(abs(b) - right, min=0.0)
        moved = plus(left, times(right, operation.result))
        return torch.where(divisor > 0, moved / divisor, torch.inf)  # 0/0 may be anything
    scale = abs(operation.kwargs.get("alpha", 1))
    if name == "rsub":
        left, right = right, left
    return plus(left, right if scale == 1 else times(right, scale))


def plus(left: Any, right: Any) -> Any:
    """The sum of two bounds, None standing for no error at all."""
    if left is None or right is None:
        return right if left is None else left
    return left + right


def times(error: Any, factor: Any, *, finite: bool = False) -> Any:
    """error |factor|, where no error times infinity is none; finite: there is no infinity."""
    if error is None:
        return None
    moved = error * abs(factor)
    return moved if finite else torch.where(error == 0, error, moved)


def _propagated_by_one(operation: Operation, at: int) -> Tensor:
    """Of a function of one inexact number: by its slopes there and at both ends of its error, and
    by how far it moves to these; without limit across a pole."""
    args, result = operation.args, operation.result
    number, error = (each.expand(result.shape) for each in (args[at], operation.errors[at]))
    places = torch.stack((number - error, number, number + error))
    values, (slopes,) = _slopes(operation, (*args[:at], places, *args[at + 1 :]), [at])
    moved = torch.maximum(error * slopes, (values - result).abs()).amax(0)
    bound = torch.where(error == 0, error, moved)
    pole = _to_pole(operation, number, at)
    if pole is not None:
        bound = torch.where((error >= pole) & (error > 0), torch.inf, bound)
    return bound.nan_to_num(nan=torch.inf, posinf=torch.inf)  # an end lies where f is not defined


def _to_pole(operation: Operation, number: Tensor, at: int) -> Tensor | None:
    """How far a number is from the nearest pole that has the function on both sides of it."""
    if operation.name == "tan":
        turns = number / math.pi - 0.5
        return (turns - turns.round()).abs() * math.pi
    exponent = operation.args[1] if operation.name == "pow" and at == 0 else 0
    falls = isinstance(exponent, (int, float)) and exponent < 0
    if operation.name == "reciprocal" or falls:
        return number.abs()
    if operation.name in ("lgamma", "digamma", "polygamma"):
        return torch.where(number > 0, number, (number - number.round()).abs())
    return None


def _propagated_by_several(operation: Operation, carried: list[int]) -> Tensor:
    """Of several inexact numbers: by the slopes, and by how far the function moves to each corner
    of their errors."""
    args, errors = operation.args, operation.errors
    _, slopes = _slopes(operation, args, carried)
    bound = sum(times(errors[i], slope) for i, slope in zip(carried, slopes, strict=True))
    moves = torch.zeros_like(operation.result)
    for signs in product((-1, 1), repeat=len(carried)):
        corner = list(args)
        for i, sign in zip(carried, signs, strict=True):
            corner[i] = args[i] + sign * errors[i]
        moves = torch.maximum(moves, (operation.on(corner) - operation.result).abs())
    still = reduce(and_, (errors[i] == 0 for i in carried))
    moves = torch.where(still, 0.0, moves)
    return torch.maximum(bound, moves).nan_to_num(nan=torch.inf, posinf=torch.inf)


def _slopes(
    operation: Operation, args: tuple[Any, ...], carried: list[int]
) -> tuple[Tensor, list[Tensor]]:
    """f at some arguments, and |df/d(arg)| elementwise for the carried ones, by autograd."""
    shape = np.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
    leaves = list(args)
    for i in carried:
        leaves[i] = args[i].detach().expand(shape).requires_grad_()
    target: Any = operation.node.target
    with torch.enable_grad():
        out = target(*leaves, **operation.kwargs)
    return out.detach(), [slope.abs() for slope in _derivatives(out, [leaves[i] for i in carried])]


def _derivatives(out: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """d out / d leaf, elementwise, of one operation: by its node in autograd's graph, which takes a
    third of the time that a run through the graph does."""
    node: Any = out.grad_fn
    found = node(torch.ones((), dtype=out.dtype, device=out.device).expand(out.shape))
    found = found if isinstance(found, tuple) else (found,)
    of_leaf = {
        id(getattr(before, "variable", None)): slope
        for slope, (before, _) in zip(found, node.next_functions)
    }
    if all(id(leaf) in of_leaf for leaf in leaves):
        return [of_leaf[id(leaf)] for leaf in leaves]
    return list(torch.autograd.grad(out, leaves, torch.ones_like(out)))  # torch made it of several
