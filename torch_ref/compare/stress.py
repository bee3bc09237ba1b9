"""What is done to every twin's inputs without its author's help: where backward passes go wrong.

Each stress takes inputs as the author draws them and returns others of the same shapes and dtypes.
Signs stay, so what had to be positive is positive still, and integers that are all different (an
order, say) stay as they are. A case that leaves the reference's domain this way (its loss, a value
or a gradient is not finite any more) is put back as it was drawn, and so is every case of a batch
under a stress by which one of the two sides finds a matrix singular.

    scaled up, scaled down    every input times its own power of ten, 10^0 to 10^5 or 10^-8 to 10^0
    mixed scales              the same number by number, 10^-3 to 10^3
    tied                      every number of an input is one of two, so that many are equal
    zeros                     a third of the numbers is exactly 0
    grid                      numbers rounded to halves: small numbers that hit thresholds exactly
    equal                     half of an input's numbers are those of the one before it, where both
                              have one shape; integers and booleans are one and the same throughout
    strided                   the same numbers, laid out in memory backwards and with gaps, as a
                              slice of something larger, or channels last
    expanded                  the first slice of the first axis, or one number, repeated without a
                              copy
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.twin import Values, power_of_ten

OfOne = Callable[[Tensor, np.random.Generator, bool], Tensor]
OfAll = Callable[[Values, np.random.Generator, bool], Values]
LAYOUT = ("strided", "expanded")  # of a whole tensor: a batch of many cases has one


def stressed(values: Values, stress: str, generator: np.random.Generator, cases: bool) -> Values:
    """The inputs under one stress; with `cases` each index of the first axis is a case of its own.

    Numbers come from `generator` and are cast, so they do not depend on dtype and device.
    """
    return CHANGES[stress](values, generator, cases)


def _each(change: OfOne) -> OfAll:
    """The change of every floating input by itself."""

    def changed(values: Values, generator: np.random.Generator, cases: bool) -> Values:
        return {
            name: change(value, generator, cases) if value.is_floating_point() else value
            for name, value in values.items()
        }

    return changed


def _equal(values: Values, generator: np.random.Generator, cases: bool) -> Values:
    changed: Values = {}
    before: dict[torch.Size, Tensor] = {}
    for name, value in values.items():
        if not value.is_floating_point():
            changed[name] = _throughout(value, generator, cases)
            continue
        other = before.get(value.shape)
        before[value.shape] = value
        taken = torch.as_tensor(generator.random(tuple(value.shape)) < 0.5).to(value.device)
        changed[name] = value if other is None else torch.where(taken, other.copysign(value), value)
    return changed


def _throughout(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
    """One integer or boolean in each case, unless the integers of a case are all different."""
    if not value.numel():
        return value
    flat = value.reshape(len(value) if cases else 1, -1)
    if value.dtype == torch.bool:
        drawn = torch.as_tensor(generator.random((len(flat), 1)) < 0.5).to(value.device)
        return drawn.expand(flat.shape).reshape(value.shape)
    different = (flat.sort(1).values.diff(dim=1) != 0).all(1, keepdim=True)
    return torch.where(different, flat, flat[:, :1]).reshape(value.shape)


def _power_of_ten(low: float, high: float, shape: tuple[int, ...], generator: np.random.Generator,
                  like: Tensor) -> Tensor:  # fmt: skip
    return power_of_ten(generator, low, high, shape).to(like.dtype).to(like.device)


def _one_each(value: Tensor, cases: bool) -> tuple[int, ...]:
    """The shape of one number a case, or of one in all, to multiply `value` with."""
    return (len(value), *(1,) * (value.ndim - 1)) if cases else ()


def _scaled(low: float, high: float) -> OfOne:
    def change(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
        return value * _power_of_ten(low, high, _one_each(value, cases), generator, value)

    return change


def _mixed_scales(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
    return value * _power_of_ten(-3, 3, tuple(value.shape), generator, value)


def _tied(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
    flat = value.reshape(len(value), -1) if cases else value.reshape(1, -1)
    if flat.shape[1] == 1:  # nothing to be equal to
        return value
    second = torch.as_tensor(generator.random(tuple(flat.shape)) < 0.5).to(value.device)
    return torch.where(second, flat[:, -1:], flat[:, :1]).reshape(value.shape)


def _zeros(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
    kept = torch.as_tensor(generator.random(tuple(value.shape)) > 1 / 3).to(value.device)
    return value * kept


def _grid(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
    return (2 * value).round() / 2


def _strided(values: Values, generator: np.random.Generator, cases: bool) -> Values:
    way = _sliced if generator.random() < 0.5 else _with_gaps
    return {
        name: way(value, generator) if value.is_floating_point() else value
        for name, value in values.items()
    }


def _with_gaps(value: Tensor, generator: np.random.Generator) -> Tensor:
    """Every second number, the axes backwards; images may be channels last."""
    if value.ndim == 4 and generator.random() < 0.5:
        return value.contiguous(memory_format=torch.channels_last)
    axes = tuple(reversed(range(value.ndim)))
    room = value.new_zeros([2 * value.shape[axis] for axis in axes])
    every_second = room[(slice(None, None, 2),) * value.ndim].permute(axes)
    every_second.copy_(value)
    return every_second


def _sliced(value: Tensor, generator: np.random.Generator) -> Tensor:
    """From the second number on along each axis, of what is two longer there: rows are whole, and
    further apart than they are long."""
    room = value.new_zeros([size + 2 for size in value.shape])
    inner = room[(slice(1, -1),) * value.ndim]
    inner.copy_(value)
    return inner


def _expanded(value: Tensor, generator: np.random.Generator, cases: bool) -> Tensor:
    if value.ndim > 1 and value.numel() and generator.random() < 0.5:
        return value[(slice(0, 1),) * value.ndim].expand(value.shape)  # as sum().backward() does
    return value[:1].expand(value.shape) if value.ndim else value


CHANGES: dict[str, OfAll] = {
    "scaled up": _each(_scaled(0, 5)),
    "scaled down": _each(_scaled(-8, 0)),
    "mixed scales": _each(_mixed_scales),
    "tied": _each(_tied),
    "zeros": _each(_zeros),
    "grid": _each(_grid),
    "equal": _equal,
    "strided": _strided,
    "expanded": _each(_expanded),
}
