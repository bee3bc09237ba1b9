"""torch's own ways to the gradients: autograd and torch.func, eager and compiled."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import manual_bp
from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.formulas import INTERMEDIATE, losses
from torch_ref.module import AssignmentNet, ItakuraSaitoLoss

Step = Callable[[], dict[str, Any]]
# Inductor told to make everything one pass over the inputs: sooner computed again than stored.
ONE_PASS: dict[str, Any] = {"realize_opcount_threshold": 10_000, "realize_reads_threshold": 10_000}


def compiled(function: Callable[..., Any], options: dict[str, Any] | None = None) -> Any:
    """Compiled as one graph for the shapes it meets; fails rather than falling back to eager."""
    return torch.compile(function, dynamic=False, fullgraph=True, options=options)


def mean_loss(p: dict[str, Tensor], x1: Tensor, x2: Tensor, t: Tensor) -> Tensor:
    loss: Tensor = losses(p, x1, x2, t, torch, None).mean()
    return loss


def forward_of_module(batch: Batch, *, fast: bool) -> Step:
    """The nn.Module and its loss, as a training step calls them."""
    mean, _ = _module(batch, fast)
    return lambda: {"loss": mean()}


def loss_then_backward(batch: Batch, *, fast: bool) -> Step:
    """The same, then torch.autograd.grad."""
    mean, named = _module(batch, fast)

    def step() -> dict[str, Any]:
        loss = mean()
        found = torch.autograd.grad(loss, list(named.values()))
        return {"loss": loss, **dict(zip(named, found, strict=True))}

    return step


def _module(batch: Batch, fast: bool) -> tuple[Callable[[], Tensor], dict[str, Tensor]]:
    net = AssignmentNet(dtype=batch.dtype, device=batch.device)
    net.load_state_dict(batch.parameters)
    inputs, criterion = batch.inputs, ItakuraSaitoLoss()
    x, t = torch.stack((inputs.pop("x1"), inputs.pop("x2")), dim=-1), inputs.pop("t")

    def mean() -> Tensor:
        loss: Tensor = criterion(net(x), t)
        return loss

    return compiled(mean) if fast else mean, dict(net.named_parameters())


def compiled_grad(batch: Batch) -> Step:
    function = compiled(torch.func.grad(mean_loss))
    parameters, inputs = batch.parameters, batch.inputs
    return lambda: dict(function(parameters, **inputs))


def compiled_grad_and_value(batch: Batch) -> Step:
    function = compiled(torch.func.grad_and_value(mean_loss))
    parameters, inputs = batch.parameters, batch.inputs

    def step() -> dict[str, Any]:
        gradients, loss = function(parameters, **inputs)
        return {"loss": loss, **gradients}

    return step


def per_sample(batch: Batch, *, fast: bool) -> Step:
    """vmap(grad) for parameters, inputs, and zeros that are added to every value in between."""

    def loss(
        p: dict[str, Tensor], added: dict[str, Tensor], x1: Tensor, x2: Tensor, t: Tensor
    ) -> Tensor:
        found: Tensor = losses(p, x1, x2, t, torch, added)
        return found

    gradient = torch.func.grad(loss, argnums=(0, 1, 2, 3))
    mapped = torch.func.vmap(gradient, in_dims=(None, None, 0, 0, 0))
    function = compiled(mapped) if fast else mapped
    parameters, inputs = batch.parameters, list(batch.inputs.values())
    zero = torch.zeros((), dtype=batch.dtype, device=batch.device)
    added = dict.fromkeys(INTERMEDIATE, zero)

    def step() -> dict[str, Any]:
        of_parameters, of_added, x1, x2 = function(parameters, added, *inputs)
        return {**of_parameters, **of_added, "x1": x1, "x2": x2}

    return step


def compiled_manual(batch: Batch, work: str, options: dict[str, Any] | None = None) -> Step:
    """torch.compile of manual_bp: its "forward", "gradients", "both" or "per-sample" part."""
    parameters, inputs = batch.parameters, batch.inputs
    function = compiled(MANUAL[work], options)
    return lambda: dict(function(parameters, inputs))


def _mean_of_losses(parameters: Any, inputs: Any) -> dict[str, Any]:
    return {"loss": manual_bp.forward(parameters, inputs, check_values=False)["loss"].mean()}


def _gradients(parameters: Any, inputs: Any) -> dict[str, Any]:
    return manual_bp.gradients(parameters, inputs, check_values=False, loss=False)[1]


def _both(parameters: Any, inputs: Any) -> dict[str, Any]:
    loss, gradients = manual_bp.gradients(parameters, inputs, check_values=False)
    return {"loss": loss, **gradients}


def _each(parameters: Any, inputs: Any) -> dict[str, Any]:
    values = manual_bp.forward(parameters, inputs, check_values=False, loss=False)
    return manual_bp.backward(parameters, values, check_values=False)


MANUAL = {"forward": _mean_of_losses, "gradients": _gradients, "both": _both, "per-sample": _each}
