"""One training run, plain gradient descent, taken three ways; a trajectory is all its parameters.

The ways must take the same steps but for rounding: the same start, the same batches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

import manual_bp
from torch_ref.experiments.training import drawn_network
from torch_ref.module import AssignmentNet, ItakuraSaitoLoss

WORLD = 2  # ranks of the distributed way


@dataclass(frozen=True)
class Descent:
    """What all ways do alike: w <- w - learning_rate dL/dw, L the mean loss of each step's batch.

    start: the parameters, in the order of manual_bp.PARAMETERS, shape (11,); x: shape (n, 2);
    t: shape (n,); all float64. batches: indices of samples, int64, shape (steps, samples).
    """

    start: Tensor
    x: Tensor
    t: Tensor
    batches: Tensor
    learning_rate: float

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        chosen = self.batches[step]
        return self.x[chosen], self.t[chosen]

    def part(self, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """A rank's share of the batch: equal ones, for then the mean of means is the mean."""
        x, t = self.batch(step)
        return x.chunk(WORLD)[rank], t.chunk(WORLD)[rank]


def descent(
    x: Tensor, t: Tensor, *, steps: int = 200, samples: int = 256, seed: int = 0
) -> Descent:
    """A start and batches drawn by one generator; `samples` at most, and an even number of them."""
    generator = torch.Generator().manual_seed(seed)
    net = drawn_network(generator)
    start = torch.stack([value.detach() for value in net.parameters()])
    samples = min(samples, len(t) // WORLD * WORLD)
    batches = [torch.randperm(len(t), generator=generator)[:samples] for _ in range(steps)]
    return Descent(start, x, t, torch.stack(batches), learning_rate=0.02)


def named(parameters: Tensor) -> dict[str, Tensor]:
    """A vector of shape (11,) as a parameter dict, each of shape ()."""
    return dict(zip(manual_bp.PARAMETERS, parameters.unbind(), strict=True))


def hand_gradients(parameters: dict[str, Tensor], x: Tensor, t: Tensor) -> dict[str, Tensor]:
    inputs = {"x1": x[:, 0], "x2": x[:, 1], "t": t}
    gradients: dict[str, Tensor] = manual_bp.gradients(parameters, inputs, check_values=False)[1]
    return gradients


def mean_loss(parameters: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
    """The module's loss with these parameters, shape ()."""
    loss: Tensor = ItakuraSaitoLoss()(functional_call(_NET, parameters, (x,)), t)
    return loss


_NET = AssignmentNet(dtype=torch.float64, device="meta")  # its own parameters are never used


def by_hand(
    given: Descent,
    gradients: Callable[[dict[str, Tensor], Tensor, Tensor], dict[str, Tensor]] = hand_gradients,
) -> Tensor:
    """Gradients and steps of manual_bp, without autograd; shape (steps + 1, 11)."""
    parameters, trajectory = named(given.start), [given.start]
    for step in range(len(given.batches)):
        slopes = gradients(parameters, *given.batch(step))
        parameters = manual_bp.sgd_step(parameters, slopes, given.learning_rate)
        trajectory.append(torch.stack(list(parameters.values())))
    return torch.stack(trajectory)


def by_autograd(given: Descent) -> Tensor:
    """The module, autograd and torch.optim.SGD; shape (steps + 1, 11)."""
    net = AssignmentNet(dtype=torch.float64)
    net.load_state_dict(named(given.start))
    return descend(net, given, given.batch)


def descend(
    net: torch.nn.Module, given: Descent, batch: Callable[[int], tuple[Tensor, Tensor]]
) -> Tensor:
    """What every torch user writes; shape (steps + 1, 11)."""
    optimizer = torch.optim.SGD(net.parameters(), lr=given.learning_rate)
    loss = ItakuraSaitoLoss()
    trajectory = [given.start]
    for step in range(len(given.batches)):
        x, t = batch(step)
        optimizer.zero_grad()
        loss(net(x), t).backward()
        optimizer.step()
        trajectory.append(torch.stack([value.detach() for value in net.parameters()]))
    return torch.stack(trajectory)
