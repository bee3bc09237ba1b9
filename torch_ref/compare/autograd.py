"""Gradients of a reference by autograd, with others put in on the way where these are given."""

from collections.abc import Callable

import torch
from torch import Tensor

from torch_ref.compare.twin import Values


def gradients_by_autograd(
    reference: Callable[[Values], Values],
    inputs: Values,
    names: tuple[str, ...] | None = None,
    given: Values | None = None,
    upstream: Tensor | None = None,
) -> Values:
    """dL/d(name) by autograd for the named inputs and intermediates (all of them when None).

    A name that the reference does not know is left out; one that the loss does not depend on has
    gradient zero. All are asked for, whatever is wanted: torch's group_norm ends the process where
    only its weight's is, and its input is channels_last.

    given: gradients to go on with instead, by name: what autograd has found for a quantity is
    still what is returned for it, but what lies further back is found from the given one.
    upstream: the gradient to start from, in the shape of the loss; 1 where there is none.
    """
    leaves = {
        name: value.detach().requires_grad_() if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    with torch.enable_grad():
        values = {**leaves, **reference(dict(leaves))}
        wanted = {
            name: values[name] for name in values if name != "loss" and values[name].requires_grad
        }
        replaced = {name: value for name, value in (given or {}).items() if name in wanted}
        found: Values = {}
        hooks = [_replace(wanted[name], name, value, found) for name, value in replaced.items()]
        loss = values["loss"] if upstream is None else values["loss"] * upstream
        grads = torch.autograd.grad(
            loss.sum(), list(wanted.values()), allow_unused=True, materialize_grads=True
        )
        for hook in hooks:
            hook.remove()
    found = {**dict(zip(wanted, grads, strict=True)), **found}
    return {name: found[name] for name in (found if names is None else names) if name in found}


def _replace(
    quantity: Tensor, name: str, given: Tensor, found: Values
) -> torch.utils.hooks.RemovableHandle:
    """Keep the gradient that arrives at a quantity, and go on with the given one."""

    def hook(gradient: Tensor) -> Tensor:
        found[name] = gradient
        return given

    register: Callable[..., torch.utils.hooks.RemovableHandle] = quantity.register_hook
    return register(hook)


def unused(reference: Callable[[Values], Values], inputs: Values) -> tuple[str, ...]:
    """The named quantities that the loss does not depend on, as the reference returns them."""
    leaves = {n: v.detach().requires_grad_() for n, v in inputs.items() if v.is_floating_point()}
    with torch.enable_grad():
        values = {**leaves, **reference({**inputs, **leaves})}
        wanted = {n: v for n, v in values.items() if n != "loss" and v.requires_grad}
        grads = torch.autograd.grad(
            values["loss"].sum(), list(wanted.values()), allow_unused=True, retain_graph=False
        )
    return tuple(name for name, grad in zip(wanted, grads, strict=True) if grad is None)
