"""`_mean_over_batch` run on arrays of which only the shape is known, and that as formulas.

It forms no formula of its own: it finds the axes to average over, and counts. Each axis of the
batch is of size 1 or of any size above; what is recorded is which axes were averaged, the shape
that results, and what is divided by.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import sympy
from sympy import Expr, Symbol

from torch_ref.selftest.mutate import Mutant, original
from torch_ref.selftest.symbolic import Cell, Formula, Run, UnprovableError

MOST_AXES = 3


@dataclass(frozen=True)
class Shaped:
    """An array by its shape; `axes` are those of the batch, `averaged` the ones averaged over."""

    shape: tuple[Formula, ...]
    axes: tuple[int, ...]
    averaged: frozenset[int] = frozenset()

    @property
    def ndim(self) -> int:
        return len(self.shape)


class Shapes:
    """What the source uses of an array library, on shapes."""

    def mean(self, array: Shaped, axis: tuple[int, ...], keepdims: bool = False) -> Shaped:
        # the mean over a single element is that element: no averaging
        averaged = {array.axes[at] for at in axis if array.shape[at] != 1}
        kept = [at for at in range(array.ndim) if keepdims or at not in axis]
        shape = tuple(array.shape[at] ** 0 if at in axis else array.shape[at] for at in kept)
        return Shaped(shape, tuple(array.axes[at] for at in kept), array.averaged | averaged)

    def reshape(self, array: Shaped, shape: tuple[Formula, ...]) -> Shaped:
        if math.prod(array.shape) != math.prod(shape):
            raise ValueError("another number of elements")
        return replace(array, shape=shape)


def same_for_every_shape(mutant: Mutant) -> bool:
    """Whether the mutant of `_mean_over_batch` averages and divides as the original does.

    For every batch of up to MOST_AXES axes and every shape that broadcasts to it. Raises whatever
    the mutant raises.
    """
    ours, theirs = (_on_shapes(one) for one in (original(mutant.function), mutant))
    return all(ours(batch, shape) == theirs(batch, shape) for batch, shape in _shapes())


def _on_shapes(mutant: Mutant) -> Any:
    function = mutant.namespace()["_mean_over_batch"]
    function.__globals__["array_namespace"] = lambda array: Shapes()
    function.__globals__["_divided"] = lambda array, count: (array, count)

    def result(batch: tuple[Expr, ...], shape: tuple[Expr, ...]) -> tuple[Any, ...]:
        run = Run(Cell())
        # objects of their own: that two sizes are one object means nothing
        sizes, own = (tuple(Formula(run, size) for size in sizes) for sizes in (batch, shape))
        array, count = function(Shaped(sizes, tuple(range(len(batch)))), own)
        if run.open:
            raise UnprovableError("a comparison depends on a size")
        last = [size.expression for size in array.shape]
        return array.averaged, last, sympy.expand(getattr(count, "expression", count))

    return result


def _shapes() -> Iterator[tuple[tuple[Expr, ...], tuple[Expr, ...]]]:
    """Every batch, an axis 1 or any larger number, and every shape that broadcasts to it."""
    for axes in range(MOST_AXES + 1):
        larger = [1 + Symbol(f"n{axis}", integer=True, positive=True) for axis in range(axes)]
        for batch in product(*((sympy.S.One, size) for size in larger)):
            for kept in range(axes + 1):
                for shared in product((False, True), repeat=kept):
                    own = batch[axes - kept :]
                    pairs = zip(shared, own, strict=True)
                    yield batch, tuple(sympy.S.One if one else size for one, size in pairs)
