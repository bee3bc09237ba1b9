"""The hand-written formulas as a graph: `manual_bp` run once on symbols instead of numbers.

`manual_bp` is written for any library with an array namespace, so a symbol needs only be one more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from manual_bp.network import INPUTS, PARAMETERS, _backward, _forward, _loss
from torch_ref.native.symbols import Graph

ARGUMENTS = (*PARAMETERS, *INPUTS)
# What `manual_bp` refuses unless it is finite; every gradient besides.
WATCHED = ("z3", "z4", "z5", "loss")


@dataclass(frozen=True)
class Recording:
    """The network on one sample: every value and, in backward order, every gradient by name."""

    values: Mapping[str, Any]
    gradients: Mapping[str, Any]

    @property
    def watched(self) -> list[Any]:
        """What must be finite, each once."""
        return list(dict.fromkeys([*(self.values[n] for n in WATCHED), *self.gradients.values()]))

    @property
    def watched_without_loss(self) -> list[Any]:
        """What is finite where `watched` is, for code that needs no loss: it is half of the work.

        L = r - ln(r) - 1 with r = t/x6 is finite where t > 0 and dL/dx6 = (1 - r)/x6 is.
        """
        t = self.values["t"]
        positive = t.graph.where(t > 0, 0.0, math.inf)
        return [positive, *(value for value in self.watched if value is not self.values["loss"])]


@cache
def record(dtype: str) -> Recording:
    """`manual_bp`'s forward and backward formulas in the NumPy dtype of this name."""
    graph = Graph(np.dtype(dtype))
    given = {name: graph.symbol("argument", name) for name in ARGUMENTS}
    values = _forward(**given)
    gradients = _backward(**{name: given[name] for name in PARAMETERS}, **values)
    return Recording({**values, "loss": _loss(values["x6"], values["t"])}, gradients)
