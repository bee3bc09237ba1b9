"""Operations written out in others, as torch computes them: what it does not take apart itself."""

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from torch import Tensor


def variance(
    value: Tensor, dims: list[int] | None, correction: float = 1, *, output_dtype: object = None
) -> Tensor:
    """The mean squared deviation from the mean, which is written as torch writes it beside."""
    axes = [axis % value.ndim for axis in dims or range(value.ndim)]
    kept = [1 if axis in axes else size for axis, size in enumerate(value.shape)]
    count = math.prod(value.shape[axis] for axis in axes)
    deviation = value - value.sum(axes).reshape(kept) / float(count)
    return (deviation * deviation).sum(axes) / (count - correction)


def summed(value: Tensor, axes: list[int], *, output_dtype: torch.dtype | None = None) -> Tensor:
    return value.sum(axes, dtype=output_dtype)


def with_new_axes(value: Tensor, shape: list[int], axes: list[int]) -> Tensor:
    """Repeated along the axes of `shape` that are not among its own, `axes`."""
    sizes = dict(zip(axes, value.shape, strict=True))
    placed = value.reshape([sizes.get(axis, 1) for axis in range(len(shape))])
    return placed if list(placed.shape) == list(shape) else placed.expand(shape)


def index_fill(value: Tensor, dim: int, index: Tensor, fill: Any) -> Tensor:
    filled = torch.zeros(value.shape[dim], dtype=torch.bool, device=value.device)
    filled = filled.index_put((index,), torch.ones((), dtype=torch.bool, device=value.device))
    behind = value.ndim - 1 - dim % value.ndim
    return torch.where(filled.reshape(-1, *[1] * behind), fill, value)


def index_put(
    value: Tensor, indices: list[Tensor | None], numbers: Tensor, accumulate: bool = False
) -> Any:
    """One number wherever a mask says so; other ways to put numbers are left."""
    places = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    (axis, mask), *others = places
    if others or mask.dtype != torch.bool or numbers.numel() != 1 or accumulate:
        return NotImplemented
    behind = value.ndim - axis - mask.ndim
    return torch.where(mask.reshape(*mask.shape, *[1] * behind), numbers.reshape(()), value)


def split(value: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    length = value.shape[dim]
    starts = range(0, max(length, 1), max(size, 1))
    return [value.narrow(dim, start, min(size, length - start)) for start in starts]


def unbind(value: Tensor, dim: int = 0) -> list[Tensor]:
    return [value.select(dim, place) for place in range(value.shape[dim])]


def shrink_backward(upstream: Tensor, value: Tensor, lambd: float) -> Tensor:
    return torch.where(value.abs() <= lambd, 0.0, upstream)


def weight_norm_backward(
    upstream: Tensor, value: Tensor, length: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Of w = g v / |v|, the norm over all axes but `dim` (Salimans & Kingma 2016, equation 3)."""
    axes = [axis for axis in range(value.ndim) if axis != dim]
    along = (upstream * value).sum(axes, keepdim=True) / norms
    return length / norms * (upstream - value * (along / norms)), along


def trilinear(
    first: Tensor, second: Tensor, third: Tensor,
    expand1: list[int], expand2: list[int], expand3: list[int],
    sumdim: list[int], unroll_dim: int = 1,
) -> Tensor:  # fmt: skip
    """Three factors, each with new axes, multiplied and summed: nn.Bilinear."""
    factors = ((first, expand1), (second, expand2), (third, expand3))
    product = torch.ones((), dtype=first.dtype, device=first.device)
    for factor, axes in factors:
        for axis in axes:
            factor = factor.unsqueeze(axis)
        product = product * factor
    return product.sum(sumdim)


def quotient(number: Any, divisor: Any, *, rounding_mode: str | None = None) -> Any:
    """The quotient as a whole number, floor or trunc; integers have it as it is."""
    if rounding_mode is None or not _any_floating(number, divisor):
        return NotImplemented
    quotient = number / divisor
    return quotient.floor() if rounding_mode == "floor" else quotient.trunc()


def remainder(rounding_mode: str) -> Callable[..., Any]:
    """What is left of a number beyond that, as torch's kernels have it without an error."""

    def apart(number: Any, divisor: Any) -> Any:
        whole = quotient(number, divisor, rounding_mode=rounding_mode)
        return whole if whole is NotImplemented else number - divisor * whole

    return apart


def _any_floating(*numbers: Any) -> bool:
    return any(
        one.is_floating_point() if isinstance(one, Tensor) else isinstance(one, float)
        for one in numbers
    )


def cholesky_solve(right: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.mH if upper else factor
    between = torch.linalg.solve_triangular(lower, right, upper=False)
    found: Tensor = torch.linalg.solve_triangular(lower.mH, between, upper=True)
    return found


def cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    one = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return cholesky_solve(one.expand(factor.shape), factor, upper)


def distances(first: Tensor, second: Tensor, p: float, mode: int | None = None) -> Tensor:
    """Of all pairs of rows: torch.cdist."""
    found: Tensor = torch.linalg.vector_norm(first.unsqueeze(-2) - second.unsqueeze(-3), p, -1)
    return found


def distances_backward(
    upstream: Tensor, first: Tensor, second: Tensor, p: float, distances: Tensor
) -> Tensor:
    """Of the first rows; 0 from a row at distance 0."""
    apart = first.unsqueeze(-2) - second.unsqueeze(-3)
    return _pulled(upstream.unsqueeze(-1), apart, p, distances.unsqueeze(-1)).sum(-2)


def distance(first: Tensor, second: Tensor, p: float = 2.0) -> Tensor:
    """Of two tensors: torch.dist."""
    found: Tensor = torch.linalg.vector_norm(first - second, p)
    return found


def distances_of_pairs(value: Tensor, p: float = 2.0) -> Tensor:
    """Of each pair of rows once: torch.pdist."""
    first, second = _pairs(value)
    found: Tensor = torch.linalg.vector_norm(value[first] - value[second], p, -1)
    return found


def distances_of_pairs_backward(
    upstream: Tensor, value: Tensor, p: float, distances: Tensor
) -> Tensor:
    first, second = _pairs(value)
    apart = value[first] - value[second]
    pulled = _pulled(upstream.unsqueeze(-1), apart, p, distances.unsqueeze(-1))
    return torch.zeros_like(value).index_add(0, first, pulled).index_add(0, second, -pulled)


def _pairs(value: Tensor) -> tuple[Tensor, Tensor]:
    pairs = torch.tensor(list(combinations(range(len(value)), 2)), device=value.device)
    first, second = pairs.reshape(-1, 2).long().unbind(1)
    return first, second


def _pulled(upstream: Tensor, apart: Tensor, p: float, distances: Tensor) -> Tensor:
    """The derivative of a p-norm by what it is the norm of; 0 at distance 0."""
    if p == 0:
        return torch.zeros_like(upstream * apart)
    if p == 1:
        return upstream * apart.sign()
    if p == math.inf:
        return torch.where(apart.abs() == distances, upstream * apart.sign(), 0.0)
    share = apart if p == 2 else apart.sign() * apart.abs() ** (p - 1)
    scaled = upstream * share / (distances if p == 2 else distances ** (p - 1))
    return torch.where(distances == 0, 0.0, scaled)


def multi_margin_loss_backward(
    upstream: Tensor, value: Tensor, target: Tensor, p: float, margin: float,
    weight: Tensor | None = None, reduction: int = 1,
) -> Tensor:  # fmt: skip
    """Of the mean over classes of max(0, margin - x_target + x)^p (Crammer & Singer 2001)."""
    rows, targets = value.reshape(-1, value.shape[-1]), target.reshape(-1, 1)
    classes = rows.shape[1]
    gap = margin - rows.gather(1, targets) + rows
    others = targets != torch.arange(classes, device=value.device)
    slope = torch.ones_like(gap) if p == 1 else 2 * gap
    if weight is not None:
        slope = slope * weight[targets]
    each = upstream.reshape(-1, 1) / (len(rows) if reduction == 1 else 1)
    pulled = each * torch.where((gap > 0) & others, slope / classes, 0.0)
    pulled = torch.where(others, pulled, -pulled.sum(1, keepdim=True))
    return pulled.reshape(value.shape)
