"""What is compared: a Twin, and the Draw that makes its random cases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Values = dict[str, Tensor]
Shape = tuple[int, ...]

# What the harness does to every twin's inputs of its own accord; see `torch_ref.compare.stress`.
STRESS = (
    "scaled up",
    "scaled down",
    "mixed scales",
    "tied",
    "zeros",
    "grid",
    "equal",
    "strided",
    "expanded",
)


class TwinError(ValueError):
    """A twin that cannot be judged as it stands; the message is one clear sentence."""


@dataclass(frozen=True)
class Draw:
    """Random numbers for some cases, the same on every device and for every dtype.

    Each helper draws float64 numbers from `generator` on the CPU and only then casts to `dtype` and
    moves to `device`. Without a shape it draws one number a case, shape (cases,); a shape is taken
    as it is. `stratum` is the kind of place the cases shall reach.
    """

    generator: np.random.Generator
    dtype: torch.dtype
    device: torch.device
    cases: int
    stratum: str
    sizes: Callable[[int, int], int]

    def normal(self, mean: float = 0.0, std: float = 1.0, shape: Shape | None = None) -> Tensor:
        """Normal numbers of the twin's dtype."""
        return self.cast(self.generator.normal(mean, std, self._shape(shape)))

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: Shape | None = None) -> Tensor:
        """Uniform numbers in [low, high) of the twin's dtype."""
        return self.cast(self.generator.uniform(low, high, self._shape(shape)))

    def log_normal(self, mean: float = 0.0, std: float = 1.0, shape: Shape | None = None) -> Tensor:
        """exp of normal numbers, in the twin's dtype."""
        return self.cast(self.generator.lognormal(mean, std, self._shape(shape)))

    def integers(self, low: int, high: int, shape: Shape | None = None) -> Tensor:
        """Integers in [low, high) as int64."""
        numbers = self.generator.integers(low, high, self._shape(shape))
        return torch.as_tensor(numbers).to(self.device)

    def booleans(self, probability: float = 0.5, shape: Shape | None = None) -> Tensor:
        """True with this probability, as bool."""
        numbers = self.generator.random(self._shape(shape)) < probability
        return torch.as_tensor(numbers).to(self.device)

    def size(self, low: int, high: int) -> int:
        """The size of an axis, low to high inclusive: another one in other cases of a run.

        Few sets of sizes take turns, since each means recording the graphs anew.
        Raises TwinError where low is above high.
        """
        if low > high:
            raise TwinError(f"draw.size({low}, {high}): the smallest size comes first.")
        return self.sizes(low, high)

    def cast(self, numbers: np.ndarray[Any, np.dtype[np.float64]] | float) -> Tensor:
        """Numbers drawn from `generator` directly, in `dtype` on `device`."""
        return torch.as_tensor(numbers, dtype=torch.float64).to(self.dtype).to(self.device)

    def _shape(self, shape: Shape | None) -> Shape:
        return (self.cases,) if shape is None else shape


@dataclass(frozen=True)
class Twin:
    """A backward pass written by hand beside a reference that autograd differentiates.

    inputs(draw): tensors by name: floating ones, which have gradients, and others (integers, bool).
    reference(values): plain differentiable torch on those inputs; returns named intermediates and
        "loss".
    manual(values): hand-written dL/d(name), names being inputs or intermediates, in the order in
        which they were derived. It may leave names out.
    strata: the kinds of cases `inputs` can make, by turns; `dataclasses.replace` picks some.
    stress: what the harness does to the inputs of its own accord, by turns with `strata`; () for
        nothing.
    notes(): what the report says besides, asked for after each case; failures(): what it counts as
        wrong besides the numbers.

    A loss of shape () makes it a *one-case* twin: `inputs` draws one case, each tensor of the shape
    it has in real life. A loss of shape (cases,) makes it a *batched* twin: `draw.cases`
    independent cases, in the first dimension of every tensor.
    """

    name: str
    inputs: Callable[[Draw], Values]
    reference: Callable[[Values], Values]
    manual: Callable[[Values], Values]
    strata: tuple[str, ...] = ("ordinary",)
    stress: tuple[str, ...] = STRESS
    notes: Callable[[], Sequence[str]] = tuple
    failures: Callable[[], Sequence[str]] = tuple

    @staticmethod
    def from_module(
        module: torch.nn.Module,
        loss: Callable[[Tensor, Values], Tensor],
        manual: Callable[[Values], Values],
        inputs: Callable[[Draw], Values],
        *,
        name: str | None = None,
    ) -> "Twin":
        """A twin whose reference is a module; see `torch_ref.compare.from_module`."""
        from torch_ref.compare.from_module import from_module

        return from_module(module, loss, manual, inputs, name=name)

    @staticmethod
    def from_function(
        apply: Callable[..., Tensor | Sequence[Tensor]],
        reference: Callable[..., Tensor | Sequence[Tensor]],
        inputs: Callable[[Draw], Values],
        *,
        name: str | None = None,
    ) -> "Twin":
        """A twin of a custom Function; see `torch_ref.compare.from_function`."""
        from torch_ref.compare.from_function import from_function

        return from_function(apply, reference, inputs, name=name)
