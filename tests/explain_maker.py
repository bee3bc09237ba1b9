"""Hand-made evidence of a wrong gradient, for the tests of `torch_ref.compare.explain`."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torch_ref.compare.explain import Evidence
from torch_ref.compare.explain.arithmetic import plus
from torch_ref.compare.verdict import Side

RELATIVE = 1e-13  # of every bound made here; the noise takes up to half of it
Tensors = dict[str, Tensor]


@dataclass
class Maker:
    """Makes one draw of evidence: values and gradients first, then the wrong gradient."""

    generator: torch.Generator
    values: Tensors = field(default_factory=dict)
    gradients: Tensors = field(default_factory=dict)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def size(self, low: int, high: int) -> int:
        return int(self.integers(low, high + 1, 1))

    def side(self, value: Tensor) -> Side:
        """The value with noise within its bound."""
        if not value.is_floating_point():
            return Side(value, torch.zeros(value.shape, dtype=torch.float64))
        noise = torch.rand(value.shape, generator=self.generator, dtype=torch.float64) - 0.5
        size = torch.where(value.isfinite(), value.abs(), torch.nan)
        bound = RELATIVE * (size + size.nanmean() / 100).nan_to_num(nan=0.0)  # sums may cancel
        return Side(value + bound * noise, bound)

    def evidence(self, name: str, manual: Tensor, paths: Tensors) -> Evidence:
        sides = {path: self.side(value) for path, value in paths.items()}
        expected = sides[next(iter(sides))]
        for side in list(sides.values())[1:]:
            expected = plus(expected, side)
        gradients = {**self.gradients, name: manual}
        return Evidence(
            name=name,
            manual=self.side(manual),
            expected=expected,
            decided=torch.ones_like(manual, dtype=torch.bool),
            values={key: self.side(value) for key, value in self.values.items()},
            gradients={key: self.side(value) for key, value in gradients.items()},
            paths=sides,
        )


Scenario = Callable[[Maker], Evidence]
SCENARIOS: dict[str, tuple[Scenario, str]] = {}


def scenario(phrase: str) -> Callable[[Scenario], Scenario]:
    """Registers a way to be wrong and the phrase that the sentence must contain."""

    def register(make: Scenario) -> Scenario:
        SCENARIOS[make.__name__] = (make, phrase)
        return make

    return register


def draws(make: Scenario, seed: int = 0, count: int = 6) -> list[Evidence]:
    generator = torch.Generator().manual_seed(seed)
    return [make(Maker(generator)) for _ in range(count)]
