"""The largest number of each window: max-pooling in two and three axes, also to a size.

A window is told by the places of its numbers in the flat image; windows that reach beyond its edge
have fewer of them.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.rounding.linear import growth
from torch_ref.compare.rounding.operation import Bound, Operation
from torch_ref.compare.rounding.selection import reach

POOLS = {"max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d",
         "adaptive_max_pool3d"}  # fmt: skip
POOLS_BACKWARD = {f"{name}_backward" for name in POOLS}


def max_pool(operation: Operation) -> Bound:
    """The largest bound of a window; the index open where a second number is near the maximum."""
    value, shape = operation.args[0], operation.result[0].shape
    places, there = _windows_of(operation, value.shape, shape)
    windows, bounds = (
        torch.where(there, number.flatten(-_axes(operation))[..., places], fill)
        for number, fill in ((value, -math.inf), (operation.error(0), 0.0))
    )
    low, high = reach(windows, bounds)
    candidates = (high >= low.amax(-1, keepdim=True)).sum(-1)
    tied = (windows == windows.amax(-1, keepdim=True)).sum(-1) > 1
    operation.report_kink(tied.reshape(shape))
    worst = bounds.amax(-1)
    return worst.reshape(shape), ((candidates > 1) & (worst > 0)).reshape(shape)


def max_pool_backward(operation: Operation) -> Bound:
    """Each window's gradient goes to its maximum; anywhere in the window where that is open."""
    gradient, error = operation.args[0], operation.error(0)
    rest = operation.args[1:]
    terms = operation.call(torch.ones_like(gradient), *rest)
    sizes = operation.call(gradient.abs() + error, *rest)
    moved = operation.call(error, *rest)
    near = operation.errors[-1]
    if near is not None and bool(near.any()):
        brought = _over_windows(torch.where(near, gradient.abs() + error, 0.0), operation)
        terms = terms + _over_windows(near.double(), operation)
        sizes, moved = sizes + brought, moved + brought
    bound: Tensor = moved + growth(terms) * operation.arithmetic.unit_roundoff * sizes
    return bound


def _over_windows(value: Tensor, operation: Operation) -> Tensor:
    """Every window's number added to all places of the window, in the shape of the pool's input."""
    shape = operation.args[1].shape
    places, there = _windows_of(operation, shape, value.shape)
    numbers = value.flatten(-_axes(operation)).unsqueeze(-1) * there
    image = value.new_zeros(shape).flatten(-_axes(operation))
    return image.index_add(-1, places.flatten(), numbers.flatten(-2)).reshape(shape)


def _axes(operation: Operation) -> int:
    return 3 if "pool3d" in operation.name else 2


def _windows_of(
    operation: Operation, image: Sequence[int], windows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Flat places of each window's numbers, shape (windows, most), and which of them are there."""
    axes = _axes(operation)
    given: tuple[tuple[int, ...], ...] = ()  # kernel, stride, padding and dilation
    if not operation.name.startswith("adaptive"):
        first = 2 if operation.name in POOLS_BACKWARD else 1
        given = _each_axis(operation.args[first : first + 4], axes)
    places, there = _places(tuple(image[-axes:]), tuple(windows[-axes:]), given)
    device = operation.args[0].device
    return places.to(device), there.to(device)


def _each_axis(sizes: Sequence[Sequence[int]], axes: int) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, padding and dilation of each axis; one number stands for all axes, and a
    stride that is not given for the kernel."""
    usual: list[Sequence[int]] = [[], [], [0], [1]]
    kernel, stride, padding, dilation = (*sizes, *usual[len(sizes) :])
    of_all = (kernel, stride or kernel, padding, dilation)
    return tuple(tuple(one) * (axes if len(one) == 1 else 1) for one in of_all)


@lru_cache(64)
def _places(
    image: tuple[int, ...], windows: tuple[int, ...], given: tuple[tuple[int, ...], ...]
) -> tuple[Tensor, Tensor]:
    """Of windows that are `given` by kernel, stride, padding and dilation of each axis, or where
    they are not share the image out."""
    along = []
    for axis, (size, count) in enumerate(zip(image, windows, strict=True)):
        if given:
            kernel, stride, padding, dilation = (one[axis] for one in given)
            starts = [at * stride - padding for at in range(count)]
            spans = [range(start, start + kernel * dilation, dilation) for start in starts]
        else:
            spans = [range(at * size // count, -(-(at + 1) * size // count)) for at in range(count)]
        along.append([[place for place in span if 0 <= place < size] for span in spans])
    flat = np.arange(math.prod(image)).reshape(image)
    found = [flat[np.ix_(*cell)].ravel() for cell in product(*along)]
    places = torch.zeros(len(found), max(map(len, found), default=1), dtype=torch.long)
    there = torch.zeros_like(places, dtype=torch.bool)
    for row, one in enumerate(found):
        places[row, : len(one)], there[row, : len(one)] = torch.as_tensor(one), True
    return places, there
