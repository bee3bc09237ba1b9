"""Whether numbers are the very same, in whatever tensors they come, or but for the last digits."""

import torch
from torch import Tensor

from torch_ref.compare.twin import Values

# What is looked for is gross: a path dropped, a number from another call. So numbers may differ by
# so many unit roundoffs of the largest, where that is little.
_ROOM, _MOST = 2.0**10, 2.0**-4


def near(left: Tensor, right: Tensor) -> bool:
    """Whether tensors of one shape are equal but for the last digits, NaN equal to NaN."""
    if not right.numel():
        return True
    relative = min(_ROOM * torch.finfo(right.dtype).eps, _MOST)
    room = relative * float(right.nan_to_num().abs().max())
    return bool(torch.isclose(left, right, rtol=0.0, atol=room, equal_nan=True).all())


def same_answers(left: Values, right: Values) -> bool:
    """Whether two sets of gradients are equal number for number, NaN equal to NaN."""
    return left.keys() == right.keys() and all(_identical(left[name], right[name]) for name in left)


def changed(before: Values, after: Values) -> list[str]:
    """The names of `before` that are gone, or whose numbers are others now."""
    return [
        name
        for name, value in before.items()
        if name not in after or not _identical(after[name], value)
    ]


def _identical(left: Tensor, right: Tensor) -> bool:
    if not (isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape):
        return False
    if left.layout != torch.strided:
        return left.layout == right.layout and _identical(left.to_dense(), right.to_dense())
    if "meta" in (left.device.type, right.device.type):  # holds no numbers
        return left.device == right.device
    return bool(((left == right) | (left.isnan() & right.isnan())).all())
