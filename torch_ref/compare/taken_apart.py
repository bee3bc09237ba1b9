"""Which of ATen's operations are taken apart before they are bounded, and how."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
# Fused operations have no rule of their own: they are taken apart into those that have.
_TAKEN_APART = (
    aten.native_layer_norm, aten.native_batch_norm, aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional, aten.native_group_norm, aten.elu, aten.leaky_relu,
    aten.celu, aten.selu, aten.mish,
    aten.addmm, aten.addmv, aten.baddbmm, aten.var, aten.var_mean, aten.std, aten.norm,
    aten.linalg_vector_norm, aten.embedding, aten.sigmoid_backward, aten.tanh_backward,
    aten.index_add, aten.lerp, aten.addcmul, aten.addcdiv, aten.xlogy, aten.logit,
    aten.hardtanh, aten.hardshrink, aten.softshrink,
    aten._weight_norm_interface,
)  # fmt: skip
_RULES_OF_THEIR_OWN = (
    aten.max_pool2d_with_indices, aten.max_pool2d_with_indices_backward, aten.gelu,
    aten.gelu_backward,
    aten._softmax, aten._log_softmax, aten.logsumexp,
    aten.mv, aten.dot,  # libraries add their terms in another way than `sum` does
    # torch makes these of indices, each of which rounding might turn
    aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d,
    aten._upsample_nearest_exact1d, aten._upsample_nearest_exact2d,
    aten._upsample_nearest_exact3d, aten.upsample_linear1d, aten.upsample_bilinear2d,
    aten.upsample_trilinear3d, aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa,
)  # fmt: skip


def _variance(
    value: Tensor, dims: list[int] | None, correction: float = 1, *, output_dtype: object = None
) -> Tensor:
    """The mean squared deviation from the mean, which is written as torch writes it beside."""
    axes = [axis % value.ndim for axis in dims or range(value.ndim)]
    kept = [1 if axis in axes else size for axis, size in enumerate(value.shape)]
    count = math.prod(value.shape[axis] for axis in axes)
    deviation = value - value.sum(axes).reshape(kept) / float(count)
    return (deviation * deviation).sum(axes) / (count - correction)


def _sum(value: Tensor, axes: list[int], *, output_dtype: torch.dtype | None = None) -> Tensor:
    return value.sum(axes, dtype=output_dtype)


def _with_new_axes(value: Tensor, shape: list[int], axes: list[int]) -> Tensor:
    """Repeated along the axes of `shape` that are not among its own, `axes`."""
    sizes = dict(zip(axes, value.shape, strict=True))
    placed = value.reshape([sizes.get(axis, 1) for axis in range(len(shape))])
    return placed if list(placed.shape) == list(shape) else placed.expand(shape)


def _index_fill(value: Tensor, dim: int, index: Tensor, fill: Any) -> Tensor:
    filled = torch.zeros(value.shape[dim], dtype=torch.bool, device=value.device)
    filled = filled.index_put((index,), torch.ones((), dtype=torch.bool, device=value.device))
    behind = value.ndim - 1 - dim % value.ndim
    return torch.where(filled.reshape(-1, *[1] * behind), fill, value)


def _split(value: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    length = value.shape[dim]
    starts = range(0, max(length, 1), max(size, 1))
    return [value.narrow(dim, start, min(size, length - start)) for start in starts]


def _unbind(value: Tensor, dim: int = 0) -> list[Tensor]:
    return [value.select(dim, place) for place in range(value.shape[dim])]


def _shrink_backward(upstream: Tensor, value: Tensor, lambd: float) -> Tensor:
    return torch.where(value.abs() <= lambd, 0.0, upstream)


def _weight_norm_backward(
    upstream: Tensor, value: Tensor, length: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Of w = g v / |v|, the norm over all axes but `dim` (Salimans & Kingma 2016, equation 3)."""
    axes = [axis for axis in range(value.ndim) if axis != dim]
    along = (upstream * value).sum(axes, keepdim=True) / norms
    return length / norms * (upstream - value * (along / norms)), along


def _trilinear(
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


def _cholesky_solve(right: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.mH if upper else factor
    between = torch.linalg.solve_triangular(lower, right, upper=False)
    found: Tensor = torch.linalg.solve_triangular(lower.mH, between, upper=True)
    return found


def _cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    one = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return _cholesky_solve(one.expand(factor.shape), factor, upper)


def _distances(first: Tensor, second: Tensor, p: float, mode: int | None = None) -> Tensor:
    """Of all pairs of rows: torch.cdist."""
    found: Tensor = torch.linalg.vector_norm(first.unsqueeze(-2) - second.unsqueeze(-3), p, -1)
    return found


def _distances_backward(
    upstream: Tensor, first: Tensor, second: Tensor, p: float, distances: Tensor
) -> Tensor:
    """Of the first rows; 0 from a row at distance 0."""
    apart = first.unsqueeze(-2) - second.unsqueeze(-3)
    upstream, distances = upstream.unsqueeze(-1), distances.unsqueeze(-1)
    if p == 1:
        return (upstream * apart.sign()).sum(-2)
    if p == math.inf:
        return torch.where(apart.abs() == distances, upstream * apart.sign(), 0.0).sum(-2)
    share = apart if p == 2 else apart.sign() * apart.abs() ** (p - 1)
    scaled = upstream * share / (distances if p == 2 else distances ** (p - 1))
    return torch.where(distances == 0, 0.0, scaled).sum(-2)


class WithoutLooking(TorchFunctionMode):
    """Functions that look at their numbers though they need not, by others that can be recorded."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **kwargs)
        if func is Tensor.__deepcopy__:  # it copies the memory, which is no operation
            return args[0].detach().clone().requires_grad_(args[0].requires_grad)
        return func(*args, **kwargs)


@contextmanager
def as_written() -> Iterator[None]:
    """While it is on, what is recorded are operations that can be bounded: attention by its
    formula, since the fused kernels cannot be taken apart, and no look that is not needed."""
    with sdpa_kernel(SDPBackend.MATH), WithoutLooking():
        yield


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if num_classes < 0:  # as many as there are: it must look
        return torch.nn.functional.one_hot(tensor, num_classes)
    classes = torch.arange(num_classes, device=tensor.device)
    return (tensor.unsqueeze(-1) == classes).long()


_TORCHS = {**core_aten_decompositions(), **get_decompositions(_TAKEN_APART)}
_FULL = (torch.float32, torch.float64)


def _in_full_precision(operation: Any, apart: Callable[..., Any]) -> dict[Any, Callable[..., Any]]:
    """An operation taken apart as torch does it, which imports sympy, half a second, to find out
    that nothing needs a wider dtype."""

    def taken_apart(upstream: Tensor, *others: Any) -> Any:
        torchs = _TORCHS[operation] if upstream.dtype not in _FULL else apart
        return torchs(upstream, *others)

    return {operation: taken_apart}


def _cast_before(operation: Any) -> Callable[..., Any]:
    """A softmax that widens its numbers itself, on GPUs: float32's, after the cast it stands for.
    Any other has a rule."""

    def apart(value: Tensor, dim: int, half_to_float: bool) -> Any:
        return operation(value.float(), dim, False) if half_to_float else NotImplemented

    return apart


_BATCH_NORMS = (
    aten.native_batch_norm.default, aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit_functional.default,
)  # fmt: skip


def _batch_norm(operation: Any) -> Callable[..., Any]:
    """As torch's kernels compute it: x a + (b - mean a), where a = weight / sqrt(var + eps), which
    cancels where (x - mean) a + b does not."""

    def apart(
        value: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
        running_var: Tensor | None, training: bool, momentum: float, eps: float,
    ) -> Any:  # fmt: skip
        normalized, *others = _TORCHS[operation](
            value, weight, bias, running_mean, running_var, training, momentum, eps
        )
        if value.dtype not in _FULL:
            return normalized, *others
        if running_mean is None or running_var is None or training:
            mean, scale = others[:2]
        else:
            mean, scale = running_mean, (running_var + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        of_channel = (-1, *(1,) * (value.ndim - 2))
        return value * scale.reshape(of_channel) + shift.reshape(of_channel), *others

    return apart


DECOMPOSITIONS = {
    operation: apart
    for operation, apart in {
        **_TORCHS,
        **_in_full_precision(aten.sigmoid_backward.default, lambda g, y: g * (y * (1 - y))),
        **_in_full_precision(aten.tanh_backward.default, lambda g, y: g * (1 - y * y)),
        **{operation: _batch_norm(operation) for operation in _BATCH_NORMS},
        torch.ops.prims.var.default: _variance,
        # ATen's own do the same, and do not make a class at every call
        torch.ops.prims.sum.default: _sum,
        torch.ops.prims.div.default: torch.div,
        torch.ops.prims.broadcast_in_dim.default: _with_new_axes,
        aten.unbind.int: _unbind,
        aten.split.Tensor: _split,
        aten.index_fill.int_Scalar: _index_fill,
        aten.index_fill.int_Tensor: _index_fill,
        aten.fmax.default: torch.maximum,  # of numbers; where one is none, the walk is off
        aten.fmin.default: torch.minimum,
        aten.softshrink_backward.default: _shrink_backward,
        aten.hardshrink_backward.default: _shrink_backward,
        aten._weight_norm_interface_backward.default: _weight_norm_backward,
        aten._trilinear.default: _trilinear,
        aten.cholesky_solve.default: _cholesky_solve,
        aten.cholesky_inverse.default: _cholesky_inverse,
        aten._cdist_forward.default: _distances,
        aten._cdist_backward.default: _distances_backward,
    }.items()
    if getattr(operation, "overloadpacket", None) not in _RULES_OF_THEIR_OWN
} | {
    softmax: _cast_before(softmax) for softmax in (aten._softmax.default, aten._log_softmax.default)
}
