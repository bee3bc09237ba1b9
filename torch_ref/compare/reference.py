"""The graph of a side: forward and backward recorded as one list of primitive operations."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from torch_ref.compare.twin import Values


def reference_gradients(
    reference: Callable[[Values], Values], inputs: Values, names: tuple[str, ...] | None = None
) -> Values:
    """dL/d(name) by autograd for the named inputs and intermediates (all of them when None).

    A name that the reference does not know is left out; one that the loss does not depend on has
    gradient zero.
    """
    leaves = {
        name: value.detach().requires_grad_() if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    with torch.enable_grad():
        values = {**leaves, **reference(leaves)}
        wanted = {
            name: values[name]
            for name in (values if names is None else names)
            if name in values and name != "loss" and values[name].requires_grad
        }
        grads = torch.autograd.grad(
            values["loss"].sum(), list(wanted.values()), allow_unused=True, materialize_grads=True
        )
    return dict(zip(wanted, grads, strict=True))


def record(function: Callable[[Values], Values], example: Values) -> GraphModule:
    """The graph of `function` on float64 inputs shaped as `example`, dead operations removed.

    Its `meta["inputs"]` holds the inputs' names, in the order of the graph's placeholders.
    Raises whatever the function raises when it looks at numbers while it is recorded.
    """
    # the function gets a dict of its own: it may take names out of it
    graph = make_fx(lambda values: function(dict(values)))(example)
    graph.meta["inputs"] = tuple(example)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def same_answers(left: Values, right: Values) -> bool:
    """Whether two sets of gradients are equal number for number, NaN equal to NaN."""
    return left.keys() == right.keys() and all(_identical(left[name], right[name]) for name in left)


def _identical(left: Tensor, right: Tensor) -> bool:
    if not (isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape):
        return False
    if "meta" in (left.device.type, right.device.type):  # holds no numbers
        return left.device == right.device
    return bool(((left == right) | (left.isnan() & right.isnan())).all())
