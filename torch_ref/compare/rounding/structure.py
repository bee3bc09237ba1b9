"""Operations that only move numbers: the same operation, applied to the bounds."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from torch_ref.compare.layout import laid_out_as
from torch_ref.compare.rounding import open_indices
from torch_ref.compare.rounding.operation import (
    Arithmetic,
    Bound,
    Operation,
    floating,
    rounding,
)
from torch_ref.compare.twin import TwinError

# Where an operation puts a number of its own between those that it moves.
_FILL = {"constant_pad_nd": 2, "scatter": 3}
# Which argument an index puts over others.
_WRITTEN = {"scatter": 3, "index_put": 2, "_unsafe_index_put": 2}
_VIEWS = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default}
# Operations whose integer tensors say where a number comes from or goes to.
INDEXED = {"gather", "index", "index_select", "scatter", "index_put", "scatter_add", "put", "take",
           "_unsafe_index", "_unsafe_index_put", "masked_select", "masked_scatter",
           "masked_scatter_backward"}  # fmt: skip


def structural(operation: Operation) -> Bound:
    """Numbers that only move: the operation on the bounds; what an open index reaches is open."""
    if operation.name == "getitem":
        return None if operation.errors[0] is None else operation.on(
            (operation.errors[0], operation.args[1])
        )  # fmt: skip
    args = _on_bounds(operation)
    if operation.name in INDEXED and opened(operation):
        if not (floating(operation.result) and open_indices.can_be_followed(operation)):
            return unbounded_like(operation.result)
        bound = operation.on(args)
        place = _WRITTEN.get(operation.name)
        if place is None:
            return open_indices.taken(operation, bound)
        written = operation.args[place]
        error = operation.error(place) if isinstance(written, Tensor) else 0.0
        return open_indices.put(operation, bound, written, error)
    if operation.name in ("view", "_unsafe_view"):  # a bound may lie in memory in another order
        return args[0].reshape(operation.args[1])
    if operation.name.startswith("as_strided"):
        args[0] = laid_out_as(operation.args[0], args[0])
    return operation.on(args)


def moved(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: Tensor) -> Tensor:
    """`structural` for a floating tensor that moves alone, without ado: there are many of these."""
    value, *rest = args
    error = error if error.shape == value.shape else error.expand(value.shape)
    if target in _VIEWS:
        return error.reshape(*rest)  # a bound may lie in memory in another order
    result: Tensor = target(error, *rest, **kwargs)
    return result


def conversion(operation: Operation) -> Bound:
    """Another dtype: whole numbers round where the dtype under test cannot hold them."""
    number, error, result = operation.args[0], operation.errors[0], operation.result
    if floating(result) and not floating(number):
        return converted(number, error, operation)
    if floating(result):
        return _narrowed(operation)
    if error is None or not floating(number):
        return error
    if result.dtype == torch.bool:
        return error >= number.abs()
    return operation.call(number - error) != operation.call(number + error)


def _narrowed(operation: Operation) -> Bound:
    """What is lost where the code itself goes on in a dtype with fewer digits, or goes back from
    float32 to such a dtype under test, which is float64 here."""
    number, error, result = operation.args[0], operation.errors[0], operation.result
    arithmetic = operation.arithmetic
    back = result.dtype == torch.float64 != number.dtype and _rounds_more(arithmetic, number.dtype)
    if torch.finfo(result.dtype).eps <= torch.finfo(number.dtype).eps and not back:
        return error
    if error is None and not back:
        return (number.double() - result.double()).abs()
    size = number.double().abs() + operation.error(0)
    return operation.error(0) + arithmetic.unit_roundoff * size + (size > 0) * arithmetic.eta


def _rounds_more(arithmetic: Arithmetic, dtype: torch.dtype) -> bool:
    return arithmetic.unit_roundoff > torch.finfo(dtype).eps / 2


def converted(whole: Tensor, open_places: Any, operation: Operation) -> Any:
    """The bound on integers or booleans that become numbers of the dtype; None where exact."""
    if whole.dtype == torch.bool:
        if open_places is None:
            return None
        error = torch.where(open_places, torch.ones_like(whole, dtype=torch.float64), 0.0)
    else:
        narrow = whole.to(operation.arithmetic.dtype)
        error = (whole.double() - narrow.double()).abs()
        if open_places is not None:
            error = torch.where(open_places != 0, torch.inf, error)
    return error if operation.looks.may_hold(error > 0) else None


def constant(operation: Operation) -> Bound:
    """Numbers written in the code: they are rounded to the dtype."""
    fill = operation.args[1] if operation.name == "full" else None
    if isinstance(fill, (int, float)) and floating(operation.result):
        error = operation.arithmetic.lost_of(fill)
        if not error and not operation.arithmetic.largest < abs(fill) < torch.inf:
            return None
        return torch.full_like(operation.result, error, dtype=torch.float64)
    return constant_bound(operation.result, operation.arithmetic.dtype)


def constant_bound(number: Any, dtype: torch.dtype) -> Bound:
    if not floating(number):
        return None
    error = rounding(number, dtype)
    if not bool((error > 0).any()):
        return None
    return torch.where(error < torch.inf, error, 0.0)  # beyond the largest: an overflow, no error


def unknown(operation: Operation) -> Bound:
    return pytree.tree_map_only(Tensor, unbounded_like, operation.result)


def unbounded_like(result: Tensor) -> Tensor:
    if result.layout != torch.strided:
        raise TwinError("Sparse tensors on the way have no rounding rules: use dense ones.")
    if result.is_floating_point() or result.is_complex():
        return torch.full_like(result, torch.inf, dtype=torch.float64)
    return torch.ones_like(result, dtype=torch.bool)


def opened(operation: Operation, but: torch.dtype | None = None) -> bool:
    """Whether rounding could change a boolean or integer argument of another dtype than `but`."""
    return any(
        bool(error.any())
        for arg, error in _pairs(operation.args, operation.errors)
        if isinstance(arg, Tensor) and not floating(arg) and arg.dtype != but and error is not None
    )


def _pairs(args: Any, errors: Any) -> Iterator[tuple[Any, Any]]:
    """Arguments with their bounds, those in lists included."""
    for arg, error in zip(args, errors, strict=True):
        if not isinstance(arg, (list, tuple)):
            yield arg, error
        elif error is not None:
            yield from _pairs(arg, error)


def _on_bounds(operation: Operation) -> list[Any]:
    """The arguments with the bounds in place of the numbers that move."""
    to_floating = floating(pytree.tree_leaves(operation.result)[0])
    masks = operation.name in INDEXED
    args = [
        _fill(arg, error, to_floating, masks)
        for arg, error in zip(operation.args, operation.errors, strict=True)
    ]
    place = _FILL.get(operation.name)
    if place is not None and place < len(args) and isinstance(args[place], (int, float)):
        args[place] = operation.arithmetic.lost_of(operation.args[place])
    return args


def _fill(arg: Any, error: Any, to_floating: bool, masks: bool) -> Any:
    """masks: whether booleans say where, and are no numbers that move."""
    if isinstance(arg, (list, tuple)) and any(isinstance(item, Tensor) for item in arg):
        errors = error if isinstance(error, (list, tuple)) else [None] * len(arg)
        return [_fill(a, e, to_floating, masks) for a, e in zip(arg, errors, strict=True)]
    if not isinstance(arg, Tensor):
        return arg
    if to_floating and not floating(arg) and (masks or arg.dtype != torch.bool):
        return arg  # an index stays what it is
    if error is None:
        return torch.zeros_like(arg) if floating(arg) or not to_floating else arg
    if to_floating:
        return error.to(arg.device, torch.float64).expand(arg.shape)
    return error.expand(arg.shape)
