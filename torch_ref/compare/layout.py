"""How tensors lie in memory: copies that lie as the original does, repeated slices included."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.compare.graphs.recording import being_recorded
from torch_ref.compare.twin import Values


def layout(values: Values) -> tuple[object, ...]:
    """What a recorded graph depends on besides the numbers."""
    return tuple((n, tuple(v.shape), v.stride(), _offset(v), v.dtype) for n, v in values.items())


def integers(values: Values) -> tuple[object, ...]:
    """What it depends on as well where it asks for integers: these."""
    exact = {n: v for n, v in values.items() if not (v.is_floating_point() or v.is_complex())}
    return tuple((n, tuple(v.reshape(-1).tolist())) for n, v in exact.items())


def repeats(values: Values) -> bool:
    """Whether a tensor repeats numbers without a copy, as `expand` does."""
    return any(0 in value.stride() and value.numel() > 1 for value in values.values())


def has_gaps(values: Values) -> bool:
    """Whether a tensor is not contiguous in memory, whatever the reason."""
    return any(not value.is_contiguous() for value in values.values())


def copy_of(value: Tensor, change: Callable[[Tensor], Tensor] = lambda base: base) -> Tensor:
    """The same numbers in memory of their own, laid out alike; with a `change`, numbers of the same
    shape made from them."""
    return laid_out_as(value, change(_once(value, value)))


def backwards(value: Tensor, factor: float) -> Tensor:
    """Other numbers, laid out alike: these in the opposite order, times a factor."""
    return copy_of(value, lambda base: factor * base.flip(tuple(range(base.ndim))))


def copies_of(values: Values) -> Values:
    """The same for each."""
    return {name: copy_of(value) for name, value in values.items()}


def laid_out_as(value: Tensor, numbers: Tensor) -> Tensor:
    """Numbers of the value's shape, in memory as the value lies there; slices that repeat are one.

    numbers: of that shape, or with one slice where the value repeats it.
    """
    like = _once(value, value)
    room = torch.empty_strided(like.shape, like.stride(), dtype=numbers.dtype, device=value.device)
    start = _offset(value)
    if start and not being_recorded():  # where it begins makes no operation another one
        last = sum((size - 1) * step for size, step in zip(like.shape, like.stride()))
        room = room.new_empty(start + max(last, 0) + 1)
        room = room.as_strided(like.shape, like.stride(), start)
    room.copy_(_once(value, numbers))
    return room if room.shape == value.shape else room.expand(value.shape)


def _offset(value: Tensor) -> int:
    """Where it begins in memory, in numbers; of what lies there in a row nobody can tell."""
    return 0 if value.is_contiguous() else int(value.storage_offset())


def _once(value: Tensor, numbers: Tensor) -> Tensor:
    """The first of each slice that the value repeats."""
    for axis, stride in enumerate(value.stride()):
        if stride == 0:
            numbers = numbers.narrow(axis, 0, min(1, numbers.shape[axis]))
    return numbers
