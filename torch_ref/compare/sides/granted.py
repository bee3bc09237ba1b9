"""What is granted to a hand of whose rounding too little is known: what its reference may be off
by, and more where its own operations, with random errors in them, lose more digits."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.compare.cases import Batch
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.sides.noise import scattered
from torch_ref.compare.twin import Values

# A hand that cannot be seen may round more often than the reference does: NumPy's x * (1 / s)
# twice, and x / s once.
GRANTED = 4


def by_reference(
    reference: Recorded, wide: Values, in_dtype: Walked, batch: Batch, dtype: torch.dtype, *,
    by_norm: bool,
) -> Values:  # fmt: skip
    """GRANTED times the bound on the reference where each of its inputs is off by a rounding, as it
    may be for a backward stable hand (Higham 2002, section 1.5), which may be another formula. At a
    kink they are as they are.

    in_dtype: the reference's walk in the dtype. by_norm: for operations of whose rounding nothing
    is known but that all numbers of a case may share in it, as in a Fourier transform, and in
    LAPACK, whose errors go by a matrix's norm.
    """
    arithmetic = Arithmetic.of(dtype)
    sizes = {name: value.abs() for name, value in wide.items() if value.is_floating_point()}
    if by_norm:
        sizes = _largest(sizes, batch.batched)
    rounded = {name: arithmetic.unit_roundoff * size for name, size in sizes.items()}
    bounds = walk(reference, wide, arithmetic, bounds=rounded, cases=batch.cases).bounds
    kinks = in_dtype.kinks
    if kinks is not None:
        bounds = {
            name: torch.where(_by_case(kinks, bound), in_dtype.bounds[name], bound)
            for name, bound in bounds.items()
        }
    granted = {name: GRANTED * bound for name, bound in bounds.items()}
    return _largest(granted, batch.batched) if by_norm else granted


def by_noise(
    hand: Callable[[], Values], expected: Values, granted: Values, dtype: torch.dtype
) -> Values | None:
    """As far as random errors in the hand's operations move it, where that is more than what is
    granted; None where it is nowhere, or they cannot be put in.

    expected: the hand's numbers in float64.
    """
    try:
        found = scattered(hand, expected, Arithmetic.of(dtype).unit_roundoff)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # anything at all can come out of a stranger's code
        return None
    if not any(bool((found[name] > bound).any()) for name, bound in granted.items()):
        return None
    return {name: torch.maximum(bound, found[name]) for name, bound in granted.items()}


def _largest(sizes: Values, batched: bool) -> Values:
    """The largest finite number of each case, in its place and in that of all smaller ones."""
    return {name: _largest_of(size, batched) for name, size in sizes.items()}


def _largest_of(size: Tensor, batched: bool) -> Tensor:
    if size.ndim <= batched or not size.numel():
        return size
    axes = list(range(int(batched), size.ndim))
    largest = size.nan_to_num(nan=0.0, posinf=0.0).amax(axes, keepdim=True)
    return torch.maximum(size, largest)


def _by_case(kinks: Tensor, bound: Tensor) -> Tensor:
    """Cases, or one in all, in a shape that goes with a bound."""
    return kinks.reshape(-1, *(1,) * (bound.ndim - 1)) if bound.ndim else kinks.any()
