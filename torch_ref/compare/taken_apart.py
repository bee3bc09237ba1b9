"""Which of ATen's operations are taken apart before they are bounded, and how."""

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

aten = torch.ops.aten
# Fused operations have no rule of their own: they are taken apart into those that have.
_TAKEN_APART = (
    aten.native_layer_norm, aten.native_batch_norm, aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional, aten.native_group_norm, aten._softmax,
    aten._log_softmax, aten.elu, aten.leaky_relu, aten.celu, aten.selu, aten.mish,
    aten.addmm, aten.addmv, aten.baddbmm, aten.var, aten.var_mean, aten.std, aten.norm,
    aten.linalg_vector_norm, aten.embedding, aten.sigmoid_backward, aten.tanh_backward,
    aten.index_add, aten.lerp, aten.addcmul, aten.addcdiv, aten.xlogy, aten.hypot, aten.logit,
    aten.hardtanh, aten.hardshrink, aten.softshrink,
    aten._weight_norm_interface,
)  # fmt: skip
_RULES_OF_THEIR_OWN = (
    aten.max_pool2d_with_indices, aten.max_pool2d_with_indices_backward, aten.gelu,
    aten.gelu_backward,
)  # fmt: skip


def _variance(
    value: Tensor, dims: list[int] | None, correction: float = 1, *, output_dtype: object = None
) -> Tensor:
    """The mean squared deviation from the mean, as it is defined."""
    axes = dims or list(range(value.ndim))
    deviation = value - value.mean(axes, keepdim=True)
    count = 1
    for axis in axes:
        count *= value.shape[axis]
    return (deviation * deviation).sum(axes) / (count - correction)


def _shrink_backward(upstream: Tensor, value: Tensor, lambd: float) -> Tensor:
    return torch.where(value.abs() <= lambd, 0.0, upstream)


def _weight_norm_backward(
    upstream: Tensor, value: Tensor, length: Tensor, norms: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    """Of w = g v / |v|, the norm over all axes but `dim` (Salimans & Kingma 2016, equation 3)."""
    axes = [axis for axis in range(value.ndim) if axis != dim]
    along = (upstream * value).sum(axes, keepdim=True) / norms
    return length / norms * (upstream - value * (along / norms)), along


DECOMPOSITIONS = {
    operation: apart
    for operation, apart in {
        **core_aten_decompositions(),
        **get_decompositions(_TAKEN_APART),
        torch.ops.prims.var.default: _variance,
        aten.softshrink_backward.default: _shrink_backward,
        aten.hardshrink_backward.default: _shrink_backward,
        aten._weight_norm_interface_backward.default: _weight_norm_backward,
    }.items()
    if getattr(operation, "overloadpacket", None) not in _RULES_OF_THEIR_OWN
}
