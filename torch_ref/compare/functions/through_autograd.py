"""Autograd run through a function of tensors: first-order gradients, and second-order ones."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.twin import Values


def floating(result: Any) -> list[Tensor]:
    """The floating tensors of what a function returns: a tensor, or a tuple or list of things."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [one for one in results if isinstance(one, Tensor) and one.is_floating_point()]


def leaves_of(values: Values) -> Values:
    """The same tensors, the floating ones of which autograd follows from now on."""
    return {n: v.requires_grad_() if v.is_floating_point() else v for n, v in values.items()}


def gradients(
    outputs: Sequence[Tensor],
    leaves: Values,
    upstream: Sequence[Tensor] | None = None,
    *,
    retain_graph: bool = False,
) -> Values:
    """The outputs' gradients of the leaves, zero where there are none.

    upstream: the gradients to start from, in the shapes of the outputs; 1 where none are given.
    """
    wanted = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    found = _grad(outputs, list(wanted.values()), upstream, retain_graph=retain_graph)
    return dict(zip(wanted, found, strict=True))


def first_order(
    function: Callable[..., Any],
    arguments: Sequence[Tensor],
    wanted: Sequence[Tensor],
    upstream: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The gradients of the `wanted` arguments, recorded so that they can be differentiated."""
    return _grad(floating(function(*arguments)), wanted, upstream, create_graph=True)


def second_order(
    function: Callable[..., Any],
    arguments: Values,
    upstream: Values,
    directions: Values,
) -> Tensor:
    """The inner product of the first-order gradients with the directions, shape ().

    directions: a tensor for each argument whose gradient enters, in its shape.

    It is computed whether or not autograd records around it, as under torch.no_grad: the result
    has a gradient where it does.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        leaves = {
            name: value.detach().requires_grad_()
            if value.is_floating_point() and not value.requires_grad
            else value
            for name, value in arguments.items()
        }
        wanted = [leaves[name] for name in directions]
        found = first_order(function, list(leaves.values()), wanted, list(upstream.values()))
        products = [(g * d).sum() for g, d in zip(found, directions.values(), strict=True)]
        product = torch.stack(products).sum()
    return product if recording else product.detach()


def behind_gradients(
    function: Callable[..., Any], arguments: Values, upstream: Values
) -> tuple[str, ...]:
    """The names of the arguments and upstream gradients on which first-order gradients depend, as
    autograd has recorded it; without arguments that have no gradient at all, by the function's own
    word.

    Both are changed: autograd follows them from now on. Raises whatever differentiating twice does.
    """
    leaves = leaves_of({**arguments, **upstream})
    wanted = {name: value for name, value in arguments.items() if value.requires_grad}
    found = _grad(
        floating(function(*arguments.values())),
        list(wanted.values()),
        list(upstream.values()),
        create_graph=True,
        materialize=False,
    )
    constant = [name for name, gradient in zip(wanted, found, strict=True) if gradient is None]
    recorded = [one.sum() for one in found if one is not None and one.requires_grad]
    if not recorded:
        return ()
    # Not by torch.autograd.grad, which does not run what leads to no leaf, as what
    # once_differentiable leaves behind to raise.
    torch.autograd.backward(torch.stack(recorded).sum())
    return tuple(
        name for name, leaf in leaves.items() if leaf.grad is not None and name not in constant
    )


def _grad(
    outputs: Sequence[Tensor],
    wanted: Sequence[Tensor],
    upstream: Sequence[Tensor] | None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
    materialize: bool = True,
) -> tuple[Tensor, ...]:
    starts = upstream or [torch.ones_like(output) for output in outputs]
    moving = [(o, start) for o, start in zip(outputs, starts, strict=True) if o.requires_grad]
    return torch.autograd.grad(
        [output for output, _ in moving],
        wanted,
        [start for _, start in moving],
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
        materialize_grads=materialize,
    )
