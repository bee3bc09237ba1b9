"""What the network sees of the past: two numbers a day, made of returns before that day."""

from dataclasses import dataclass

import numpy as np

from torch_ref.experiments.data import BURN_IN, Array, Series


@dataclass(frozen=True)
class Feature:
    """The logarithm of an exponentially weighted mean of past shocks.

    decay: what a day keeps of the weight of the day after it, in (0, 1); 0.94 is RiskMetrics'.
    leverage: how much more a loss counts than a gain, from 0 (squared returns: they count alike)
    to 1 (gains count nothing), as in APARCH (Ding, Granger, Engle, J. Empirical Finance 1(1),
    1993).
    """

    decay: float
    leverage: float

    def __str__(self) -> str:
        return f"decay {self.decay:g} leverage {self.leverage:g}"

    def shocks(self, returns: Array) -> Array:
        """(|r| - leverage r)^2 / (1 + leverage^2), of r^2's mean for a symmetric r; shape (n,)."""
        shocks: Array = (np.abs(returns) - self.leverage * returns) ** 2 / (1 + self.leverage**2)
        return shocks

    def of(self, returns: Array) -> Array:
        """The feature, shape (n,); that of day i is made of returns before i only, from BURN_IN on.

        Before BURN_IN it is the logarithm of the mean of the shocks there, which starts the rest.
        """
        return np.log(weighted_mean(self.shocks(returns), self.decay))


def weighted_mean(shocks: Array, decay: float) -> Array:
    """m[i] = decay m[i - 1] + (1 - decay) shocks[i - 1], shape (n,); to BURN_IN the mean there."""
    means = np.full(shocks.shape, shocks[:BURN_IN].mean())
    for day in range(BURN_IN + 1, len(shocks)):
        means[day] = decay * means[day - 1] + (1 - decay) * shocks[day - 1]
    return means


def network_inputs(series: Series, features: tuple[Feature, Feature]) -> Array:
    """x1 and x2, shape (n, 2): the features, of mean 0 and deviation 1 over the days learnt."""
    columns = np.stack([feature.of(series.returns) for feature in features], axis=-1)
    learnt = columns[series.learnt]
    scaled: Array = (columns - learnt.mean(axis=0)) / learnt.std(axis=0)
    return scaled
