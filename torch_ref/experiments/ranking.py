"""Forecasts ranked by mean QLIKE, and whether a difference in it could be chance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from torch_ref.experiments.data import Array


@dataclass(frozen=True)
class Ranked:
    """One forecast: its mean QLIKE, and the Diebold-Mariano test of the network against it.

    statistic: negative where the network's loss is lower; p: of no difference, two-sided. Both
    None for the network itself.
    """

    name: str
    qlike: float
    statistic: float | None = None
    p: float | None = None


def qlike(forecast: Array, variance: Array) -> Array:
    """Per day t/x - ln(t/x) - 1 of a forecast x and the proxy t, both (n,); infinite at t = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = variance / forecast
        loss: Array = ratio - np.log(ratio) - 1
    return loss


def rank(forecasts: Mapping[str, Array], variance: Array, network: str) -> list[Ranked]:
    """The forecasts in order, best first; `network` names the one that the others are tested with.

    All of shape (n,), of the days that are judged. Raises ValueError where a loss is not finite.
    """
    losses = {name: qlike(forecast, variance) for name, forecast in forecasts.items()}
    for name, loss in losses.items():
        if not np.isfinite(loss).all():
            day = int(np.flatnonzero(~np.isfinite(loss))[0])
            raise ValueError(
                f"{name}: QLIKE needs a forecast and a proxy above 0 on every day; on day {day} "
                f"they are {forecasts[name][day]} and {variance[day]}."
            )
    rows = [
        Ranked(name, float(loss.mean()))
        if name == network
        else Ranked(name, float(loss.mean()), *diebold_mariano(losses[network], loss))
        for name, loss in losses.items()
    ]
    return sorted(rows, key=lambda row: row.qlike)


def diebold_mariano(first: Array, second: Array) -> tuple[float, float]:
    """Statistic and two-sided p of equal mean losses; both of shape (n,), day by day.

    Negative where the first is lower; normal under the null hypothesis (Diebold, Mariano, J.
    Business & Economic Statistics 13(3), 1995). NaN, 1 for two losses that are the same.
    """
    difference = first - second
    deviation = math.sqrt(long_run_variance(difference) / len(difference))
    if deviation == 0:
        return math.nan, 1.0
    statistic = float(difference.mean()) / deviation
    return statistic, math.erfc(abs(statistic) / math.sqrt(2))


def long_run_variance(series: Array) -> float:
    """sum of c[k] (1 - |k|/(L + 1)) over |k| <= L, c[k] the autocovariances; of a series (n,).

    Bartlett's weights keep it from being negative (Newey, West, Econometrica 55(3), 1987), with
    L = 4 (n/100)^(2/9) rounded down (Newey, West, Review of Economic Studies 61(4), 1994).
    """
    n = len(series)
    lags = min(int(4 * (n / 100) ** (2 / 9)), n - 1)
    centred = series - series.mean()
    total = float(centred @ centred) / n
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag]) / n
    return total
