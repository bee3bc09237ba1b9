"""What is compared: a Twin, and the Draw that makes its random cases."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Values = dict[str, Tensor]

# Cases are drawn in whole shards, each with a counter of its own, and then cut: case 17 of a seed
# is the same whether 100 cases are asked for or a million. 2^14 float64 numbers are 128 KiB.
SHARD = 16_384


@dataclass(frozen=True)
class Draw:
    """Random numbers for one shard of cases, the same on every device and for every dtype.

    Each helper draws `cases` float64 numbers from `generator` on the CPU and only then casts to
    `dtype` and moves to `device`. `stratum` is the kind of place the cases shall reach.
    """

    generator: np.random.Generator
    dtype: torch.dtype
    device: torch.device
    cases: int
    stratum: str

    def normal(self, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """Normal numbers, shape (cases,)."""
        return self.cast(self.generator.normal(mean, std, self.cases))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high), shape (cases,)."""
        return self.cast(self.generator.uniform(low, high, self.cases))

    def log_normal(self, mean: float = 0.0, std: float = 1.0) -> Tensor:
        """exp of normal numbers, shape (cases,)."""
        return self.cast(self.generator.lognormal(mean, std, self.cases))

    def integers(self, low: int, high: int) -> Tensor:
        """Integers in [low, high) as int64, shape (cases,)."""
        return torch.as_tensor(self.generator.integers(low, high, self.cases)).to(self.device)

    def cast(self, numbers: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensor:
        """Numbers drawn from `generator` directly, in `dtype` on `device`."""
        return torch.as_tensor(numbers).to(self.dtype).to(self.device)


@dataclass(frozen=True)
class Twin:
    """A backward pass written by hand beside a reference that autograd differentiates.

    inputs(draw): `draw.cases` independent cases, the first dimension of every tensor.
    reference(values): plain differentiable torch on those inputs; returns named intermediates and
        "loss", one number a case, shape (cases,).
    manual(values): hand-written dL/d(name) of every case, names being inputs or intermediates, in
        the order in which they were derived.
    strata: the kinds of cases `inputs` can make, by turns; `dataclasses.replace` picks some.
    """

    name: str
    inputs: Callable[[Draw], Values]
    reference: Callable[[Values], Values]
    manual: Callable[[Values], Values]
    strata: tuple[str, ...] = ("ordinary",)


def draw_shard(
    twin: Twin, seed: int, shard: int, dtype: torch.dtype, device: torch.device
) -> Values:
    """The inputs of cases shard * SHARD to (shard + 1) * SHARD - 1; strata by turns."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, shard]))
    strata = len(twin.strata)
    each = -(-SHARD // strata)
    parts = [twin.inputs(Draw(generator, dtype, device, each, name)) for name in twin.strata]
    return {
        name: torch.stack([part[name] for part in parts], dim=1).flatten(0, 1)[:SHARD]
        for name in parts[0]
    }


def stratum_of(twin: Twin, index: int) -> str:
    """The stratum of the case with this index."""
    return twin.strata[index % SHARD % len(twin.strata)]
