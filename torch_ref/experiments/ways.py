"""How far rounding alone may take the three ways apart, and how far they went.

Let d be the difference of two ways' parameters before a step w <- w - k g(w). After it,

    d' = J d + r,    J = I - k H,    |r| <= k (e + e') + (|k g| + |w'|) (u + u)

to first order, with H the loss's Hessian, e and e' the bounds on the rounding of the two gradients
(running error analysis of the recorded arithmetic, `compare.rounding`), and u the unit roundoff for
the product and the difference of each way's update. So after n steps

    |d[n]| <= sum over j < n of |J[n-1] ... J[j+1]| |r[j]|,

element by element: a bound with nothing chosen in it. The products of the J are taken before their
absolute values, so a descent that forgets small deviations has a bound that forgets them, too. What
is left out is of second order: d^2, some 1e-26 here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, walk
from torch_ref.experiments.ranks import by_ranks
from torch_ref.experiments.trajectory import (
    WORLD,
    Descent,
    by_autograd,
    by_hand,
    hand_gradients,
    mean_loss,
    named,
)

HAND, AUTOGRAD, RANKS = "by hand", "autograd", f"DDP, {WORLD} gloo ranks"
UNIT_ROUNDOFF = torch.finfo(torch.float64).eps / 2
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Pair:
    """Two ways: the largest difference of a parameter, in any step, and what was allowed there.

    used: the largest difference over its own bound; at most 1 where rounding explains all.
    """

    first: str
    second: str
    difference: float
    allowed: float
    used: float

    @property
    def agree(self) -> bool:
        return self.used <= 1  # never of NaN


def three_ways(given: Descent) -> list[Pair]:
    """The run by hand, by autograd and on ranks, compared in pairs."""
    return compared(
        given, {HAND: by_hand(given), AUTOGRAD: by_autograd(given), RANKS: by_ranks(given)}
    )


def compared(given: Descent, trajectories: Values) -> list[Pair]:
    """Every pair of the ways, each a trajectory of shape (steps + 1, 11), by their names above."""
    path = trajectories[HAND]
    roundings = {name: gradient_roundings(given, name, path) for name in trajectories}
    jacobians = step_jacobians(given, path)
    names = list(trajectories)
    pairs = []
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            rounding = roundings[first] + roundings[second]
            bound = accumulated(jacobians, local_differences(given, path, rounding))
            difference = (trajectories[first] - trajectories[second]).abs()
            pairs.append(_pair(first, second, difference[1:], bound))
    return pairs


def _pair(first: str, second: str, difference: Tensor, bound: Tensor) -> Pair:
    place = difference.argmax()
    used = (difference / bound).max()
    largest, allowed = difference.flatten()[place], bound.flatten()[place]
    return Pair(first, second, largest.item(), allowed.item(), used.item())


# one step ----------------------------------------------------------------------------------------


def autograd_gradients(parameters: Values, x: Tensor, t: Tensor) -> Values:
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    with torch.enable_grad():
        found = torch.autograd.grad(mean_loss(leaves, x, t), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def ranks_gradients(parameters: Values, x: Tensor, t: Tensor) -> Values:
    """As DDP computes it: each rank its own mean, then the mean of these."""
    parts = zip(x.chunk(WORLD), t.chunk(WORLD), strict=True)
    first, *others = (autograd_gradients(parameters, *part) for part in parts)
    total = {name: value / WORLD for name, value in first.items()}
    for other in others:
        total = {name: value + other[name] / WORLD for name, value in total.items()}
    return total


GRADIENTS = {HAND: hand_gradients, AUTOGRAD: autograd_gradients, RANKS: ranks_gradients}


def gradient_roundings(given: Descent, way: str, path: Tensor) -> Tensor:
    """Bounds on the rounding of every step's gradient, shape (steps, 11)."""
    graph = _recorded(GRADIENTS[way], given)
    arithmetic = Arithmetic.of(torch.float64)
    found = []
    for step, parameters in enumerate(path[:-1]):
        x, t = given.batch(step)
        bounds = walk(graph, {**named(parameters), "x": x, "t": t}, arithmetic).bounds
        found.append(torch.stack(list(bounds.values())))
    return torch.stack(found)


def _recorded(gradients: Callable[[Values, Tensor, Tensor], Values], given: Descent) -> Recorded:
    """The gradient's arithmetic: every step has the same, on other numbers."""

    def function(values: Values) -> Values:
        return gradients({name: values[name] for name in start}, values["x"], values["t"])

    start = named(given.start)
    x, t = given.batch(0)
    return record(function, {**start, "x": x, "t": t})


def step_jacobians(given: Descent, path: Tensor) -> Tensor:
    """I - k H at every step, shape (steps, 11, 11)."""

    def loss(parameters: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return mean_loss(named(parameters), x, t)

    identity = torch.eye(path.shape[-1], dtype=path.dtype)
    # reverse twice: forward mode would load parts of torch that are deprecated
    hessian = torch.func.jacrev(torch.func.grad(loss))
    return torch.stack(
        [
            identity - given.learning_rate * hessian(parameters, *given.batch(step))
            for step, parameters in enumerate(path[:-1])
        ]
    )


def local_differences(given: Descent, path: Tensor, rounding: Tensor) -> Tensor:
    """|r| of every step, shape (steps, 11); rounding: the two gradients' bounds together."""
    moved = (path[1:] - path[:-1]).abs()  # k g
    return given.learning_rate * rounding + 2 * UNIT_ROUNDOFF * (moved + path[1:].abs())


def accumulated(jacobians: Tensor, local: Tensor) -> Tensor:
    """The bound after each step, shape (steps, 11)."""
    count, size = local.shape
    products = torch.empty((count, size, size), dtype=local.dtype)
    bounds = []
    for step, jacobian in enumerate(jacobians):
        products[:step] = jacobian @ products[:step]
        products[step] = torch.eye(size, dtype=local.dtype)
        reach = products[: step + 1].abs() @ local[: step + 1, :, None]
        bounds.append(reach.sum(dim=0).squeeze(-1))
    return torch.stack(bounds)
