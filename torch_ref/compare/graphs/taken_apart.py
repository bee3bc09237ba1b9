"""Which of ATen's operations are taken apart before they are bounded, and how."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from torch_ref.compare.graphs import aligned, sampled, written_out
from torch_ref.compare.graphs.recording import looks_at

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


class LeavesTorchError(Exception):
    """Numbers are asked for by another library: what it does with them cannot be recorded."""


_LEAVING = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}


class WithoutLooking(TorchFunctionMode):
    """Functions that look at their numbers though they need not, by others that can be recorded.

    stays: whether to raise LeavesTorchError where floats are asked for by another library.
    """

    def __init__(self, stays: bool) -> None:
        super().__init__()
        self.stays = stays

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.stays and func in _LEAVING and args[0].is_floating_point():
            raise LeavesTorchError("it goes on outside torch, as in NumPy")
        if func in _LEAVING or func is Tensor.tolist:
            looks_at(args[0])
        if func is torch.nn.functional.one_hot:
            return _one_hot(*args, **kwargs)
        if func is Tensor.__deepcopy__:  # it copies the memory, which is no operation
            return args[0].detach().clone().requires_grad_(args[0].requires_grad)
        return func(*args, **kwargs)


@contextmanager
def as_written(*, stays: bool = False) -> Iterator[None]:
    """While it is on, what is recorded are operations that can be bounded: attention by its
    formula, since the fused kernels cannot be taken apart, and no look that is not needed.

    stays: as of `WithoutLooking`.
    """
    with sdpa_kernel(SDPBackend.MATH), WithoutLooking(stays):
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


# Taken apart before anything is made pure: `functionalize` would do it otherwise than the kernel.
TAKEN_APART_FIRST = {
    operation: _TORCHS[operation] for operation in (aten.binary_cross_entropy_with_logits.default,)
}
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
        torch.ops.prims.var.default: written_out.variance,
        # ATen's own do the same, and do not make a class at every call
        torch.ops.prims.sum.default: written_out.summed,
        torch.ops.prims.div.default: torch.div,
        torch.ops.prims.broadcast_in_dim.default: written_out.with_new_axes,
        aten.unbind.int: written_out.unbind,
        aten.split.Tensor: written_out.split,
        aten.index_fill.int_Scalar: written_out.index_fill,
        aten.index_fill.int_Tensor: written_out.index_fill,
        aten.fmax.default: torch.maximum,  # of numbers; where one is none, the walk is off
        aten.fmin.default: torch.minimum,
        aten.index_put.default: written_out.index_put,
        aten.softshrink_backward.default: written_out.shrink_backward,
        aten.hardshrink_backward.default: written_out.shrink_backward,
        aten._weight_norm_interface_backward.default: written_out.weight_norm_backward,
        aten._trilinear.default: written_out.trilinear,
        aten.cholesky_solve.default: written_out.cholesky_solve,
        aten.cholesky_inverse.default: written_out.cholesky_inverse,
        **dict.fromkeys((aten.div.Tensor_mode, aten.div.Scalar_mode), written_out.quotient),
        **dict.fromkeys(
            (aten.remainder.Tensor, aten.remainder.Scalar), written_out.remainder("floor")
        ),
        **dict.fromkeys((aten.fmod.Tensor, aten.fmod.Scalar), written_out.remainder("trunc")),
        aten._cdist_forward.default: written_out.distances,
        aten._cdist_backward.default: written_out.distances_backward,
        aten.grid_sampler_2d.default: sampled.grid_sampler,
        aten.grid_sampler_2d_backward.default: sampled.grid_sampler_backward,
        aten._ctc_loss.default: aligned.ctc_loss,
        aten._ctc_loss_backward.default: aligned.ctc_loss_backward,
        aten.dist.default: written_out.distance,
        aten._pdist_forward.default: written_out.distances_of_pairs,
        aten._pdist_backward.default: written_out.distances_of_pairs_backward,
        aten.multi_margin_loss_backward.default: written_out.multi_margin_loss_backward,
    }.items()
    if getattr(operation, "overloadpacket", None) not in _RULES_OF_THEIR_OWN
} | {
    softmax: _cast_before(softmax) for softmax in (aten._softmax.default, aten._log_softmax.default)
}
