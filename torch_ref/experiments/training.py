"""The loop: a network learns from many random starts, one after the other; the best is kept."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_ref.module import AssignmentNet, ItakuraSaitoLoss


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: `steps` steps of an optimizer, each on `batch` samples drawn anew.

    optimizer: a name in OPTIMIZERS; batch: None for all samples at once.
    """

    optimizer: str
    learning_rate: float
    steps: int
    batch: int | None = None


def _lbfgs(parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
    return torch.optim.LBFGS(parameters, lr=learning_rate, line_search_fn="strong_wolfe")


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float], Optimizer]] = {
    "sgd": lambda parameters, learning_rate: torch.optim.SGD(parameters, lr=learning_rate),
    "adam": lambda parameters, learning_rate: torch.optim.Adam(parameters, lr=learning_rate),
    "lbfgs": _lbfgs,
}


class DivergedError(ValueError):
    """No restart ended with a finite loss; the message is one clear sentence."""


class Training:
    """AssignmentNet learns t from x, in float64: `restarts` times `recipe.steps` steps.

    x: float64, shape (n, 2); t: float64, shape (n,), positive. All randomness comes from one
    generator, so a seed decides every number. `advance` takes one step; what decides all later
    ones is in `state`, and `load_state` goes on from there to the same bits.
    """

    def __init__(
        self, x: Tensor, t: Tensor, recipe: Recipe, *, seed: int = 0, restarts: int = 1
    ) -> None:
        self.x, self.t, self.recipe = x, t, recipe
        self.loss = ItakuraSaitoLoss()
        self.generator = torch.Generator().manual_seed(seed)
        self.restart = self.step = 0
        self.curves = torch.full((restarts, recipe.steps + 1), math.nan, dtype=torch.float64)
        self.best = torch.full((), math.inf, dtype=torch.float64)
        self.best_parameters: dict[str, Tensor] = {}
        self._begin()

    @property
    def finished(self) -> bool:
        return self.restart == len(self.curves)

    @property
    def done(self) -> int:
        """Steps taken, in all restarts."""
        return self.restart * self.recipe.steps + self.step

    @property
    def total(self) -> int:
        return len(self.curves) * self.recipe.steps

    def advance(self) -> None:
        """One step; the last one of a restart judges it, and begins the next."""
        chosen = self._drawn_batch()
        x, t = (self.x, self.t) if chosen is None else (self.x[chosen], self.t[chosen])

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss: Tensor = self.loss(self.net(x), t)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        before = self.optimizer.step(closure)  # type: ignore[arg-type]  # torch's says float
        self.curves[self.restart, self.step] = torch.as_tensor(before).detach()
        self.step += 1
        if self.step == self.recipe.steps:
            self._judge()
            self.restart, self.step = self.restart + 1, 0
            if not self.finished:
                self._begin()

    def result(self) -> AssignmentNet:
        """The network whose loss over all samples was lowest. Raises DivergedError."""
        if not self.best_parameters:
            raise DivergedError(
                f"no restart of {len(self.curves)} ended with a finite loss: give another seed, "
                "more restarts, or a smaller learning rate."
            )
        net = AssignmentNet(dtype=torch.float64)
        net.load_state_dict(self.best_parameters)
        return net

    def state(self) -> dict[str, Any]:
        """All that decides how the run goes on: dicts and lists of tensors and plain values."""
        return {
            "restart": self.restart,
            "step": self.step,
            "parameters": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "curves": self.curves,
            "best": self.best,
            "best_parameters": self.best_parameters,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of a run with the same arguments."""
        self.restart, self.step = state["restart"], state["step"]
        self.net.load_state_dict(state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.curves, self.best = state["curves"], state["best"]
        self.best_parameters = state["best_parameters"]

    def _begin(self) -> None:
        self.net = drawn_network(self.generator)
        make = OPTIMIZERS[self.recipe.optimizer]
        self.optimizer = make(self.net.parameters(), self.recipe.learning_rate)

    def _drawn_batch(self) -> Tensor | None:
        if self.recipe.batch is None or self.recipe.batch >= len(self.t):
            return None
        return torch.randperm(len(self.t), generator=self.generator)[: self.recipe.batch]

    def _judge(self) -> None:
        with torch.no_grad():
            last = self.loss(self.net(self.x), self.t)
        self.curves[self.restart, self.step] = last
        if last < self.best:  # never of NaN
            self.best = last
            self.best_parameters = self.net.state_dict()  # the next restart has another network


def drawn_network(generator: torch.Generator) -> AssignmentNet:
    """AssignmentNet in float64 with parameters that the generator decides; torch's own stays."""
    seed = torch.randint(2**62, (), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return AssignmentNet(dtype=torch.float64)
