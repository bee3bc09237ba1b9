"""The peers that the benchmark times, and the check that they all compute the same.

Each computes the mean loss and its gradient for PARAMETERS over one batch, as training needs them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

import manual_bp
from torch_ref import AssignmentNet, ItakuraSaitoLoss
from torch_ref.compare.reference import record
from torch_ref.compare.rounding import Arithmetic, walk

Gradients = dict[str, Any]
Step = Callable[[], Gradients]


@dataclass(frozen=True)
class Batch:
    """`size` random samples and one set of parameters, in `dtype` on `device`."""

    size: int
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        drawn = manual_bp.init_parameters(seed=0)
        return {name: self._tensor(value) for name, value in drawn.items()}

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        generator = np.random.default_rng(0)
        drawn = {name: generator.normal(size=self.size) for name in manual_bp.INPUTS}
        return {n: self._tensor(np.exp(v) if n == "t" else v) for n, v in drawn.items()}

    def _tensor(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(value).to(self.dtype).to(self.device)


def manual_numpy(batch: Batch) -> Step:
    parameters = {name: value.numpy() for name, value in batch.parameters.items()}
    inputs = {name: value.numpy() for name, value in batch.inputs.items()}
    return lambda: manual_bp.gradients(parameters, inputs, check_values=False)[1]


def manual_torch(batch: Batch) -> Step:
    parameters, inputs = batch.parameters, batch.inputs
    return lambda: manual_bp.gradients(parameters, inputs, check_values=False)[1]


def manual_compiled(batch: Batch) -> Step:
    torch.compiler.reset()
    parameters, inputs = batch.parameters, batch.inputs

    @torch.compile(dynamic=False)
    def gradients(parameters: Gradients, inputs: Gradients) -> Gradients:
        return manual_bp.gradients(parameters, inputs, check_values=False)[1]

    return lambda: gradients(parameters, inputs)


def autograd_eager(batch: Batch) -> Step:
    return _autograd(batch, compiled=False)


def autograd_compiled(batch: Batch) -> Step:
    torch.compiler.reset()
    return _autograd(batch, compiled=True)


def _autograd(batch: Batch, *, compiled: bool) -> Step:
    net = AssignmentNet(dtype=batch.dtype, device=batch.device)
    net.load_state_dict(batch.parameters)
    inputs, criterion = batch.inputs, ItakuraSaitoLoss()
    x = torch.stack((inputs["x1"], inputs["x2"]), dim=-1)

    def mean_loss() -> torch.Tensor:
        loss: torch.Tensor = criterion(net(x), inputs["t"])
        return loss

    forward = torch.compile(mean_loss, dynamic=False) if compiled else mean_loss
    named = dict(net.named_parameters())

    def step() -> Gradients:
        return dict(zip(named, torch.autograd.grad(forward(), list(named.values())), strict=True))

    return step


PEERS: dict[str, Callable[[Batch], Step]] = {
    "manual, NumPy": manual_numpy,
    "manual, torch": manual_torch,
    "manual, torch.compile": manual_compiled,
    "autograd, eager": autograd_eager,
    "autograd, torch.compile": autograd_compiled,
}


@dataclass(frozen=True)
class Judge:
    """The gradient in float64 and, for each parameter, what rounding allows a peer.

    A peer computes by the manual formulas or by autograd's; the two bounds, walked in the batch's
    dtype, are added. Every batch of one dtype and size needs its own judge.
    """

    truth: dict[str, float]
    allowed: dict[str, float]

    @staticmethod
    def of(batch: Batch) -> "Judge":
        wide = Batch(batch.size, batch.dtype)
        values = {n: v.double() for n, v in {**wide.parameters, **wide.inputs}.items()}
        arithmetic = Arithmetic.of(batch.dtype)
        sides = [walk(record(f, values), values, arithmetic) for f in (_by_hand, _by_autograd)]
        return Judge(
            {name: value.item() for name, value in sides[1].values.items()},
            {n: sum(side.bounds[n].item() for side in sides) for n in manual_bp.PARAMETERS},
        )

    def check(self, name: str, gradients: Gradients) -> None:
        """Raise AssertionError where a gradient is off by more than rounding allows."""
        for parameter, truth in self.truth.items():
            value = float(gradients[parameter])
            if not abs(value - truth) <= self.allowed[parameter]:
                raise AssertionError(
                    f"{name}: d(mean loss)/d{parameter} is {value}; {truth} is right, and "
                    f"rounding allows {self.allowed[parameter]:.1e}."
                )


def _by_hand(values: Gradients) -> Gradients:
    parameters = {name: values[name] for name in manual_bp.PARAMETERS}
    inputs = {name: values[name] for name in manual_bp.INPUTS}
    return manual_bp.gradients(parameters, inputs, check_values=False)[1]


def _by_autograd(values: Gradients) -> Gradients:
    leaves = {name: values[name].detach().requires_grad_() for name in manual_bp.PARAMETERS}
    x = torch.stack((values["x1"], values["x2"]), dim=-1)
    with torch.enable_grad():
        x6 = functional_call(AssignmentNet(dtype=torch.float64), leaves, (x,))
        loss = ItakuraSaitoLoss()(x6, values["t"])
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
