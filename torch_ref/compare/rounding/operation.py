"""What a rule is told: one operation of the graph, its arguments, their bounds and its result."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from torch_ref.compare.rounding.looks import Looks

# The bound on a floating tensor is a float64 tensor, that on a boolean or integer one a mask of
# the places where rounding could give another answer; None means exact. An operation with several
# results has a tuple of them.
Bound = Any
# Bounds are computed in float64. That of underflow in float64 itself, times anything below 1, would
# be subnormal there: a number with few digits, which takes some processors a hundred times as long.
HEADROOM = 2.0**64


@dataclass(frozen=True)
class Arithmetic:
    """The numbers of a floating dtype that the bounds need.

    eta: how far off underflow puts a number.
    """

    unit_roundoff: float
    smallest_normal: float
    eta: float
    largest: float
    dtype: torch.dtype

    @staticmethod
    def of(dtype: torch.dtype) -> "Arithmetic":
        info = torch.finfo(dtype)
        eta = info.smallest_normal * (HEADROOM if dtype == torch.float64 else 1)
        return Arithmetic(info.eps / 2, info.smallest_normal, eta, info.max, dtype)

    def rounding_of(self, number: float) -> float:
        """Relative error of a Python number once it is rounded to the dtype."""
        return _rounding_of(float(number), self.dtype)

    def lost_of(self, number: Any) -> float:
        """How far a Python number is from what it is in the dtype; 0 for anything else, and for one
        beyond the dtype's largest, which is infinite there: as far from all others as before."""
        lost = self.rounding_of(number) * abs(number) if is_number(number) else 0.0
        return lost if math.isfinite(lost) else 0.0

    def at_least(self, dtype: torch.dtype) -> "Arithmetic":
        """This one, or that of a dtype that rounds more: code may compute in a dtype of its own."""
        narrow = torch.finfo(dtype).eps / 2 > self.unit_roundoff > 0
        return Arithmetic.of(dtype) if narrow else self

    def of_constants_only(self) -> "Arithmetic":
        """An arithmetic that rounds nothing but the numbers written in the code, and what is
        computed of these alone."""
        return replace(self, unit_roundoff=0.0, smallest_normal=0.0, eta=0.0)


@dataclass  # not frozen, which takes longer to make than a small tensor to add
class Operation:
    """One operation: its graph node, arguments, the arguments' bounds (in the same nesting), its
    result, and where to report places at which a gradient is a convention (kinks and ties).

    is_finite: whether all numbers of an earlier node's value are. looks: what may be found out
        about others. A rule that looks at numbers through these two alone can be compiled.
    name, whole: as of the node's `Plan`.
    """

    node: Node
    name: str
    whole: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    errors: tuple[Any, ...]
    result: Any
    arithmetic: Arithmetic
    report_kink: Callable[[Tensor], None]
    is_finite: Callable[[Node], bool]
    looks: Looks
    _size: Tensor | None = None

    @property
    def size(self) -> Tensor:
        """|v| of a floating result; not a cached_property, whose lock takes longer than this."""
        if self._size is None:
            self._size = self.result.abs()
        return self._size

    def finite(self, place: int) -> bool:
        """Whether all numbers of an argument are finite."""
        arg: Any = self.node.args[place]
        return self.is_finite(arg) if isinstance(arg, Node) else math.isfinite(arg)

    def call(self, *args: Any) -> Any:
        """The operation on other arguments."""
        return self.on(args)

    def on(self, args: Any) -> Any:
        target: Any = self.node.target
        return target(*args, **self.kwargs)

    def error(self, place: int) -> Any:
        """The bound on an argument, zeros where it is exact."""
        error = self.errors[place] if place < len(self.errors) else None
        return torch.zeros_like(self.args[place], dtype=torch.float64) if error is None else error


def rounding(number: Tensor, dtype: torch.dtype) -> Tensor:
    """How far numbers written in the code are from what they are in the dtype.

    In float64, and in any dtype that they have already, that is not known: one unit roundoff,
    unless the number has so few digits in binary, or is the largest one, that it is most likely
    meant as it is.
    """
    wide = number.double()
    if dtype != number.dtype:
        return (wide - number.to(dtype).double()).abs()
    size, info = wide.abs(), torch.finfo(dtype)
    short = torch.float32 if dtype == torch.float64 else torch.bfloat16
    as_it_is = (wide == number.to(short).double()) | (size == info.max)
    return torch.where(as_it_is, 0.0, size * (info.eps / 2))


@lru_cache(1024)
def _rounding_of(number: float, dtype: torch.dtype) -> float:
    error = rounding(torch.tensor(number, dtype=torch.float64), dtype).item()
    return error / abs(number) if number and math.isfinite(number) else 0.0


def is_number(value: Any) -> bool:
    """Whether this is a number written in the code."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_long(value: Any) -> bool:
    """Whether this is a number written in the code that some dtype has to round."""
    return is_number(value) and any(
        _rounding_of(float(value), dtype) != 0 for dtype in (torch.bfloat16, torch.float16)
    )


def name_of(node: Node) -> str:
    """The operation's name without its overload, as in "add"; looked up often, so kept."""
    name = node.meta.get("operation")
    if name is None:
        target = node.target
        named = "getitem" if target is operator.getitem else getattr(target, "__name__", target)
        name = str(named).split(".")[0]
        if "reduce" in node.kwargs:  # scatter, which adds or multiplies where it says so
            name = f"{name}_{node.kwargs['reduce']}"
        node.meta["operation"] = name
    return str(name)


def floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
