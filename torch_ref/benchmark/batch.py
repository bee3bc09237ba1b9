"""What is computed on: random samples and one set of parameters, the same for every peer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import manual_bp


@dataclass(frozen=True)
class Batch:
    """`size` random samples and one set of parameters, in `dtype` on `device`."""

    size: int
    dtype: torch.dtype = torch.float64
    device: str = "cpu"

    @property
    def parameters(self) -> dict[str, Tensor]:
        """By the names in manual_bp.PARAMETERS, shape ()."""
        drawn = manual_bp.init_parameters(seed=0)
        return {name: self._tensor(value) for name, value in drawn.items()}

    @property
    def inputs(self) -> dict[str, Tensor]:
        """x1 and x2 normal, t log-normal: new tensors of shape (size,) at each call."""
        generator = np.random.default_rng(0)
        drawn = {name: generator.normal(size=self.size) for name in manual_bp.INPUTS}
        return {n: self._tensor(np.exp(v) if n == "t" else v) for n, v in drawn.items()}

    def _tensor(self, value: Any) -> Tensor:
        return torch.as_tensor(value).to(self.dtype).to(self.device)
