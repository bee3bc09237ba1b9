"""Sums, and sums of products, of many numbers: the same operation on absolute values.

    e = op(|a|, e_b) + op(e_a, |b|) + op(e_a, e_b) + growth(n) u op(|a| + e_a, |b| + e_b)

n is the number of terms and growth(n) the smaller of lambda sqrt(n), lambda = 3 (Higham and Mary,
SIAM J. Sci. Comput. 41(5), 2019: rounding errors of independent sign), and n, which always holds.
Equal terms, added one after another as libraries do in products, norms and normalizations, have
errors of one sign: n there.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from torch_ref.compare.rounding import open_indices
from torch_ref.compare.rounding.operation import Bound, Operation, floating, name_of
from torch_ref.compare.rounding.pointwise import as_numbers, plus
from torch_ref.compare.rounding.structure import opened, unbounded_like

# The arguments that are multiplied with each other; a third one (a bias) is added.
MATRIX_PRODUCTS = {"mm", "bmm", "mv", "dot"}  # of as many terms everywhere as a row has
PRODUCTS = dict.fromkeys(MATRIX_PRODUCTS | {"convolution"}, (0, 1))

LARGE = 9  # terms, from which on 3 sqrt(n) is less than n
# Of so few terms a sum may have n roundings, at most 2.7 times as many, without looking for ties,
# which takes longer than the sum.
FEW = 64
REPEATED, SAMPLE = 1 / 32, 256


def growth(terms: Any) -> Any:
    """min(3 sqrt(n), n), for a number or a tensor of numbers of terms."""
    if isinstance(terms, Tensor):
        return torch.minimum(3 * terms.sqrt(), terms)
    return min(3 * math.sqrt(terms), terms)


def reduction(operation: Operation) -> Bound:
    """Sums of n terms: min(3 sqrt(n), n) roundings of the sum of absolute values, n of equal."""
    if not floating(operation.result):
        return operation.call(operation.errors[0], *operation.args[1:]) != 0
    operation = as_numbers(operation)
    arithmetic, weights = operation.arithmetic, operation.args[1:]
    error = operation.errors[0]
    sizes = operation.call(plus(error, operation.args[0].abs().double()), *weights)
    divides = operation.name not in ("sum", "cumsum")  # by n: one rounding more, and underflow
    roundings = (_roundings(operation) + divides) * arithmetic.unit_roundoff
    carried = None if error is None else operation.call(error, *weights)
    bound: Tensor = plus(carried, roundings * sizes)
    small = 2 * arithmetic.smallest_normal
    if divides and not operation.looks.are_above(operation.size, small):
        bound = bound + ((operation.size <= small) & (sizes > 0)).double() * arithmetic.eta
    return bound


def _roundings(operation: Operation) -> Any:
    """How many roundings of the sum of absolute values a sum may have."""
    if _counts(operation):
        return 0
    if operation.name == "avg_pool2d":  # one after the other, whatever they are
        return math.prod(as_pair(operation.args[1]))
    if operation.name == "avg_pool2d_backward":
        return math.prod(_overlapping(*operation.args[2:4]))
    found = roundings_along(operation.args[0], _summed(operation))
    if isinstance(found, Tensor) and operation.name != "cumsum":
        return found.reshape(operation.result.shape)
    return found


def _counts(operation: Operation) -> bool:
    """Whether a mask is counted, which is exact up to 1/u."""
    (mask, *_) = operation.node.all_input_nodes
    if operation.name not in ("sum", "cumsum") or name_of(mask) != "_to_copy":
        return False
    most = operation.args[0].numel() * operation.arithmetic.unit_roundoff
    (counted,) = mask.all_input_nodes
    return most <= 1 and bool(counted.meta["form"].dtype == torch.bool)


def roundings_along(value: Tensor, axes: Sequence[int]) -> Any:
    """How many roundings the sum over some axes may have, these kept with size 1."""
    axes = [axis % value.ndim for axis in axes] if value.ndim else []
    terms = math.prod(value.shape[axis] for axis in axes)
    if terms <= FEW:
        return terms
    kept = [1 if axis in axes else size for axis, size in enumerate(value.shape)]
    others = [axis for axis in range(value.ndim) if axis not in axes]
    together = value.permute(*others, *axes).reshape(*(value.shape[axis] for axis in others), -1)
    tied = _repeat(together, -1, terms).reshape(kept)
    return torch.where(tied, terms, growth(terms))


def _summed(operation: Operation) -> list[int]:
    """The axes over which it sums: one, some, or all where none is given."""
    value, axes = operation.args[0], operation.args[1] if len(operation.args) > 1 else None
    if isinstance(axes, int):
        axes = [axes] if value.ndim else []
    return list(axes or range(value.ndim))


def as_pair(sizes: Sequence[int]) -> list[int]:
    """Sizes down and across, of which one stands for both."""
    return list(sizes) * 2 if len(sizes) == 1 else list(sizes)


def _overlapping(kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """How many windows have a number in common, down and across."""
    steps = as_pair(stride or kernel)
    return [-(-size // step) for size, step in zip(as_pair(kernel), steps, strict=True)]


def product(operation: Operation) -> Bound:
    """Sums of n products: the same on absolute values, min(3 sqrt(n), n) roundings, n of equal."""
    left, right = PRODUCTS[operation.name]

    def on(a: Tensor, b: Tensor) -> Any:
        args = list(operation.args)
        args[left], args[right] = a, b
        if len(args) > 2 and isinstance(args[2], Tensor):
            args[2] = torch.zeros_like(args[2])
        return operation.on(args)

    bias = None
    if len(operation.args) > 2 and isinstance(operation.args[2], Tensor):
        axes = (-1, *(1,) * (operation.result.ndim - 2))
        bias = operation.args[2].abs().reshape(axes) + operation.error(2).reshape(axes)
    bound = _sum_of_products(operation, on, left, right, bias)
    if bias is None:
        return bound
    moved = operation.error(2).reshape(axes)
    return bound + moved + operation.arithmetic.unit_roundoff * (operation.result.abs() + bound)


def _sum_of_products(
    operation: Operation,
    on: Callable[[Tensor, Tensor], Any],
    left: int,
    right: int,
    bias: Tensor | None = None,
) -> Tensor:
    """bias: the size of what is added, before the products or after them."""
    a, b = operation.args[left].abs(), operation.args[right].abs()
    error_a, error_b = operation.error(left), operation.error(right)
    alike = operation.name in MATRIX_PRODUCTS
    terms = a.shape[-1] if alike else on(torch.ones_like(a), torch.ones_like(b))
    sizes = on(a + error_a, b + error_b)
    arithmetic = operation.arithmetic
    most = terms if alike else int(terms.max()) if terms.numel() else 0
    tied = _ties(operation, left, right, most) if most > LARGE else None
    roundings = growth(terms) if tied is None else torch.where(tied, terms, growth(terms))
    all_sizes = sizes if bias is None else sizes + bias
    bound: Tensor = roundings * arithmetic.unit_roundoff * all_sizes
    bound = bound + (sizes > 0).double() * terms * arithmetic.eta  # products underflow
    if operation.errors[left] is not None:
        bound = bound + on(error_a, b + error_b)
    if operation.errors[right] is not None:
        bound = bound + on(a, error_b)
    return bound


def _ties(operation: Operation, left: int, right: int, terms: int) -> Tensor:
    """Where both factors of a sum of products repeat themselves, so that its terms do."""
    a, b = operation.args[left], operation.args[right]
    if operation.name not in MATRIX_PRODUCTS:  # some rows of both: which meet is not looked into
        return _repeat(a.flatten(), 0, terms) & _repeat(b.flatten(), 0, terms)
    if b.ndim == 1:
        return _repeat(a, -1, terms) & _repeat(b, 0, terms)
    return _repeat(a, -1, terms).unsqueeze(-1) & _repeat(b, -2, terms).unsqueeze(-2)


def _repeat(numbers: Tensor, axis: int, terms: int) -> Tensor:
    """Where a good part of the numbers along an axis, zeros aside, are there so often that their
    errors of one sign outweigh 3 sqrt(n) roundings: of n terms that are m numbers, n / sqrt(m) do
    where m is below n / 9. Of very many numbers every so-manieth is looked at, an odd one, since
    every second number may be 0."""
    every = [slice(None)] * numbers.ndim
    every[axis] = slice(None, None, numbers.shape[axis] // SAMPLE | 1)
    some = numbers[tuple(every)].sort(axis).values
    length = some.shape[axis]
    often = min(max(2, 9 * length // terms), length)  # two may be equal by chance, in bfloat16
    before, after = (some.narrow(axis, at, length - often) for at in (0, often))
    alike = ((before == after) & (after != 0)).sum(axis)
    return alike > REPEATED * (some != 0).sum(axis)


def convolution_backward(operation: Operation) -> Bound:
    """The gradients of a convolution's input, weight and bias, each a sum of products."""
    mask = operation.args[-1]
    results = []
    for place, (left, right) in enumerate(((0, 2), (0, 1))):  # input: g, w; weight: g, x
        results.append(
            _sum_of_products(operation, _one_of(operation, place, left, right), left, right)
            if mask[place]
            else None
        )
    bias = None
    if mask[2]:
        g, error = operation.args[0].abs(), operation.error(0)
        axes = (0, *range(2, g.ndim))
        terms = g.numel() // g.shape[1]  # added one after the other
        bias = terms * operation.arithmetic.unit_roundoff * (g + error).sum(axes)
        bias = bias + error.sum(axes)
    return (*results, bias)


def _one_of(
    operation: Operation, place: int, left: int, right: int
) -> Callable[[Tensor, Tensor], Any]:
    """One result of convolution_backward, as a function of the two arguments it is a product of."""

    def on(a: Tensor, b: Tensor) -> Any:
        args = list(operation.args)
        args[left], args[right] = a, b
        args[-1] = [place == result for result in range(3)]
        return operation.on(args)[place]

    return on


def accumulation(operation: Operation) -> Bound:
    """index_put, put and scatter_add: numbers added where an index says, onto what was there.

    One after the other, and often equal ones, whose errors then have one sign: n roundings. What an
    open index adds may come anywhere in its line.
    """
    if not floating(operation.result):
        return unbounded_like(operation.result)
    into, values = (0, 3) if operation.name == "scatter_add" else (0, 2)
    args = list(operation.args)

    def on(a: Tensor, b: Tensor) -> Any:
        args[into], args[values] = a, b
        return operation.on(args)

    a, b = operation.args[into], operation.args[values]
    error_a, error_b = operation.error(into), operation.error(values)
    terms = on(torch.ones_like(a), torch.ones_like(b)) - 1  # additions, not terms
    sizes, moved = on(a.abs() + error_a, b.abs() + error_b), on(error_a, error_b)
    if opened(operation, torch.bool):
        if not open_indices.can_be_followed(operation):
            return unbounded_like(operation.result)
        brought = open_indices.added(operation, b.abs() + error_b)
        if brought:
            terms, sizes, moved = terms + brought[1], sizes + brought[0], moved + brought[0]
    return moved + terms * operation.arithmetic.unit_roundoff * sizes


def all_multiplied(operation: Operation) -> Bound:
    """prod and cumprod: to first order the derivative on absolute values, n roundings."""
    a, error = operation.args[0].abs().requires_grad_(), operation.error(0)
    with torch.enable_grad():
        target: Any = operation.node.target
        product = target(a, *operation.args[1:], **operation.kwargs)
        # J e by two backward passes: the derivative by u of <J^T u, e>
        u = torch.zeros_like(product).requires_grad_()
        (pulled,) = torch.autograd.grad(product, a, u, create_graph=True)
        (moved,) = torch.autograd.grad(pulled, u, error)
    a, size = a.detach(), product.detach()
    terms = a.numel() // max(operation.result.numel(), 1)
    if operation.name == "cumprod":
        terms = a.shape[operation.args[1]] if a.ndim else 1
    arithmetic = operation.arithmetic
    # On the way it may be as large as all factors above 1 make it; and what underflows there grows.
    most = target((a + error).clamp(min=1.0), *operation.args[1:], **operation.kwargs)
    bound = moved + terms * arithmetic.unit_roundoff * (size + moved)
    bound = bound + (size > 0).double() * arithmetic.eta * most
    return torch.where(most <= arithmetic.largest, bound, torch.inf)


def accumulates(node: Node) -> bool:
    """Whether an index_put or a put adds to what was there instead of overwriting it."""
    return len(node.args) > 3 and bool(node.args[3])
