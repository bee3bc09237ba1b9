"""What an open index reaches: any number of its line may come from there, or go there.

gather, scatter and scatter_add have an index for each number, which stays on its line along one
axis; index, index_select and index_put have one for a whole slice across the axis.
"""

from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.rounding.operation import Operation

ALONG = {"gather", "scatter", "scatter_add"}
ACROSS = {"index", "_unsafe_index", "index_select", "index_put", "_unsafe_index_put"}


def can_be_followed(operation: Operation) -> bool:
    """Whether there is one index of whole numbers, along one axis."""
    return operation.name in ALONG or (operation.name in ACROSS and _axis(operation) is not None)


def taken(operation: Operation, bound: Tensor) -> Tensor:
    """The bound on numbers that an index takes, `bound` where it is not open."""
    mask, axis = _open(operation), _axis(operation)
    if mask is None:
        return bound
    line = (operation.args[0].abs() + operation.error(0)).amax(axis, keepdim=True)
    if operation.name in ALONG:
        line = line[tuple(slice(0, n) for n in mask.shape)] if mask.ndim else line.reshape(())
    else:
        line = line.squeeze(axis)[(slice(None),) * axis + (None,) * mask.ndim]
    return torch.where(_as_slices(operation, mask), operation.size + line, bound)


def put(operation: Operation, bound: Tensor, numbers: Any, error: Any) -> Tensor:
    """The bound where an index puts numbers over others: what an open one leaves, or covers, is any
    number of the line, or the one that was there before."""
    mask = _open(operation)
    if mask is None:
        return bound
    touched = _lines(operation, mask, 1.0, "amax") > 0
    all_written = torch.ones_like(mask)
    largest = _lines(operation, all_written, abs(numbers) + error, "amax")
    other = torch.maximum(operation.args[0].abs() + operation.error(0), largest)
    return torch.where(touched, torch.maximum(bound, operation.size + other), bound)


def added(operation: Operation, sizes: Tensor) -> tuple[Tensor, Tensor] | None:
    """What open indices may bring to each place of a sum besides, in all and in how many numbers;
    None where none is open. sizes: of the numbers that are added."""
    mask = _open(operation)
    if mask is None:
        return None
    return _lines(operation, mask, sizes, "sum"), _lines(operation, mask, 1.0, "sum")


def _axis(operation: Operation) -> Any:
    """The axis along which the index tells places; None where several indices, or masks, do."""
    if operation.name in ALONG or operation.name == "index_select":
        return operation.args[1] % max(operation.args[0].ndim, 1)
    given = [axis for axis, index in enumerate(operation.args[1]) if index is not None]
    one = len(given) == 1 and operation.args[1][given[0]].dtype != torch.bool
    return given[0] if one else None


def _open(operation: Operation) -> Tensor | None:
    """The places at which rounding could turn the index; None where there are none."""
    if operation.name in ALONG or operation.name == "index_select":
        mask = operation.errors[2]
    else:
        masks = operation.errors[1]
        mask = None if masks is None else masks[_axis(operation)]
    return mask if mask is not None and bool(mask.any()) else None


def _as_slices(operation: Operation, mask: Tensor) -> Tensor:
    """The mask in a shape that goes with the numbers that are taken, or put."""
    if operation.name in ALONG:
        return mask
    behind = operation.args[0].ndim - 1 - _axis(operation)
    return mask[(...,) + (None,) * behind]


def _lines(operation: Operation, mask: Tensor, sizes: Any, reduced: str) -> Tensor:
    """What open indices may bring to each line: the largest of it, or all. 1 long on the axis."""
    axis, shape = _axis(operation), list(operation.result.shape)
    sizes = torch.as_tensor(sizes, dtype=torch.float64, device=mask.device)
    if operation.name in ALONG:
        if sizes.ndim:
            sizes = sizes[tuple(slice(0, n) for n in mask.shape)]
        found: Tensor = getattr(torch.where(mask, sizes, 0.0), reduced)(axis, keepdim=True)
        lines = found.new_zeros([1 if at == axis else n for at, n in enumerate(shape)])
        lines[tuple(slice(0, n) for n in found.shape)] = found
        return lines
    sizes = sizes.expand(*shape[:axis], *mask.shape, *shape[axis + 1 :])
    moved = torch.where(_as_slices(operation, mask), sizes, 0.0)
    over = tuple(range(axis, axis + mask.ndim))
    across: Tensor = getattr(moved, reduced)(over) if over else moved  # over no axes it would all
    return across.unsqueeze(axis)
