"""Means of neighbours, as interpolation and pooling to a size take them, and their way back.

    e = op(e_x) + (n + 2) u op(|x| + e_x) + moved

n is the number of terms, which libraries add one after the other. Interpolation takes weights from
a place between two numbers. Libraries compute it in the dtype, in float32 at least, so it is off by
at most 4 u N on an axis of N numbers, and round the weights: as much of a neighbour's number is
`moved`. Weights are exact where sizes are in a ratio that is a power of two. The nearest number is
another one where a place lies on the border and is rounded: there the result may be any.
"""

import math
import re
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.rounding.operation import Bound, Operation

INTERPOLATED = {"upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d",
                "upsample_bicubic2d", "_upsample_bilinear2d_aa"}  # fmt: skip
NEAREST = {f"{how}{d}d" for how in ("upsample_nearest", "_upsample_nearest_exact")
           for d in (1, 2, 3)}  # fmt: skip
MEANS = {"_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "avg_pool3d"}
PADS = {f"{how}_pad{d}d" for how in ("replication", "reflection") for d in (1, 2, 3)}
_BACKWARD = {f"{one}_backward" for one in INTERPOLATED | NEAREST | MEANS | PADS}
RESAMPLED = INTERPOLATED | NEAREST | MEANS | _BACKWARD | {"adaptive_avg_pool3d_backward"}
# The sum of the sizes of a cubic's four weights is at most 1.4 (Keys 1981, a = -3/4).
_CUBIC = 1.4**2
_OF_PLACES = 2.0**-24  # unit roundoff: places are computed in float32 where the dtype is shorter


def resampled(operation: Operation) -> Bound:
    """Interpolation, pooling to a size and the way back: n + 2 roundings; places may move."""
    value, error = operation.args[0], operation.error(0)
    u, rest, size = operation.arithmetic.unit_roundoff, operation.args[1:], value.abs() + error
    if operation.name in NEAREST:
        return _where_open(operation, operation.call(error, *rest), size)
    if "bicubic" in operation.name:  # with weights below 0
        carried, sizes = (_CUBIC * _reach(operation, of) for of in (error, size))
    else:
        carried, sizes = (operation.call(of, *rest) for of in (error, size))
    bound: Tensor = carried + (_terms(operation) + 2) * u * sizes
    small = 2 * operation.arithmetic.smallest_normal
    bound = bound + ((sizes <= small) & (sizes > 0)).double() * operation.arithmetic.eta
    if operation.name.removesuffix("_backward") in NEAREST:
        return _where_open(operation, bound, size)
    return bound + _moved(operation) * _reach(operation, size)


def _axes(operation: Operation) -> list[tuple[int, int]]:
    """How many numbers each axis has before and after."""
    found = re.search(r"(\d)d", operation.name)
    count = int(found.group(1)) if found else 0
    before, after = operation.args[0].shape, operation.result.shape
    return list(zip(before[-count:], after[-count:], strict=True))


def _terms(operation: Operation) -> int:
    """The most numbers that go into one of the result."""
    axes = _axes(operation)
    if operation.name.startswith("avg_pool3d"):
        kernel = operation.args[2 if "backward" in operation.name else 1]
        return math.prod(list(kernel) * (3 // len(kernel)))
    if "pad" in operation.name:
        return math.prod(before - after + 1 for before, after in axes)
    width = 4 if "bicubic" in operation.name else 2
    return math.prod(width * (-(-before // max(after, 1)) + 1) for before, after in axes)


def _reach(operation: Operation, sizes: Tensor) -> Tensor:
    """The largest of an image's numbers, as often as one can go into the result."""
    axes = _axes(operation)
    often = math.prod(-(-before // max(after, 1)) for before, after in axes)
    largest = sizes.amax(list(range(-len(axes), 0)), keepdim=True)
    backward = "backward" in operation.name
    return (often if backward else 1) * largest.expand(operation.result.shape)


def _moved(operation: Operation) -> float:
    """How much of a neighbour's number rounding of places and weights can let in."""
    if operation.name.removesuffix("_backward") not in INTERPOLATED:
        return 0.0
    if _has_exact_places(operation):
        return 0.0
    u = operation.arithmetic.unit_roundoff
    return sum(4 * (4 * min(u, _OF_PLACES) * max(sizes) + u) for sizes in _axes(operation))


def _has_exact_places(operation: Operation) -> bool:
    if any(arg is True for arg in operation.args) or "_aa" in operation.name:  # by corners
        return False
    scales = [arg for arg in operation.args[1:] if isinstance(arg, float)]
    by_scale = all(math.frexp(scale)[0] == 0.5 for scale in scales)
    return by_scale and all(map(_by_two, _axes(operation)))


def _by_two(sizes: tuple[int, int]) -> bool:
    """Whether two sizes are in a ratio that is a power of two."""
    fewer, more = sorted(sizes)
    ratio = more // max(fewer, 1)
    return fewer * ratio == more and ratio & (ratio - 1) == 0


def _where_open(operation: Operation, bound: Tensor, size: Tensor) -> Tensor:
    """The bound, and where a place lies on the border between two numbers that of any of them."""
    axes, backward = _axes(operation), "backward" in operation.name
    scales = [arg for arg in operation.args[1:] if isinstance(arg, float)]
    for i, (before, after) in enumerate(axes):
        few, many = (after, before) if backward else (before, after)
        scale = scales[i] if len(scales) == len(axes) else None
        on_border = _on_border("exact" in operation.name, few, many, scale)
        if not any(on_border):
            continue
        axis = i - len(axes)
        mask = torch.tensor(on_border, device=bound.device)
        mask = mask.reshape(-1, *(1,) * (-axis - 1))
        if not backward:
            bound = torch.where(mask, bound + 2 * _reach(operation, size), bound)
            continue
        going = operation.call(torch.where(mask, size, 0.0), *operation.args[1:])
        bound = bound + going + going.roll(1, axis) + going.roll(-1, axis)
    return bound


@cache
def _on_border(exact: bool, few: int, many: int, scale: float | None) -> list[bool]:
    """Of `many` places on an axis those whose nearest of `few` numbers is not the same in float32,
    in float64 and by whole numbers."""
    aten: Any = torch.ops.aten
    nearest = aten._upsample_nearest_exact1d if exact else aten.upsample_nearest1d
    numbers = torch.arange(few).reshape(1, 1, few)
    found = [nearest(numbers.to(dtype), [many], scale) for dtype in (torch.float32, torch.float64)]
    double = [2 * place + exact for place in range(many)]
    whole = [int(two / (2 * scale)) if scale else two * few // (2 * many) for two in double]
    found.append(torch.tensor(whole).clamp(max=few - 1).reshape(1, 1, many))
    first, *others = (one.long().flatten() for one in found)
    return [bool(x) for x in torch.stack([first != other for other in others]).any(0)]
