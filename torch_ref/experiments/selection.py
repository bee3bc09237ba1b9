"""How the protocol was chosen: candidates on validation years inside the training years alone.

`python -m torch_ref.experiments.selection` takes some minutes and prints the tables that
`protocol.py` quotes. All that it computes is computed on the series that `folds` gives, and these
end before the test years.

Four times a network learns from all years before two years, and is judged by its mean QLIKE on
those two: 2006 and 2007, 2008 and 2009, 2010 and 2011, 2012 and 2013. GARCH and GJR-GARCH, fitted
to the same years, are the yardsticks.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch

from torch_ref.experiments.baselines import garch
from torch_ref.experiments.data import Series, sp500
from torch_ref.experiments.features import Feature, network_inputs
from torch_ref.experiments.ranking import qlike
from torch_ref.experiments.training import DivergedError, Recipe, Training

FIRST_YEARS = (2006, 2008, 2010, 2012)  # of the validation years, two each time
FIRST_LOOK = Recipe("lbfgs", 1.0, steps=10)
RESTARTS = 5

# Pairs of a symmetric and a leveraged mean of past shocks; the first grid is wide, the second looks
# closer where the first was best.
WIDE = tuple(
    (Feature(first, leverage), Feature(second, 1.0))
    for first, leverage, second in product((0.6, 0.8, 0.94, 0.98), (0.0, 1.0), (0.85, 0.9, 0.94))
)
CLOSE = tuple(
    (Feature(first, 0.0), Feature(second, leverage))
    for first, second, leverage in product((0.4, 0.5, 0.6, 0.7), (0.86, 0.88, 0.9), (0.7, 1.0))
)
RECIPES = (
    *(Recipe("lbfgs", 1.0, steps) for steps in (3, 10, 30)),
    *(Recipe("adam", rate, steps) for rate, steps in product((0.01, 0.03), (500, 2000))),
    *(Recipe("sgd", rate, steps, 256) for rate, steps in product((0.02, 0.05), (2000, 8000))),
)


def folds(series: Series) -> Iterator[Series]:
    """The series until the end of each pair of validation years, which are its test years."""
    dates = series.dates[: series.train].astype("datetime64[D]")
    starts = [int(np.searchsorted(dates, np.datetime64(f"{year}-01-01"))) for year in FIRST_YEARS]
    for start, end in zip(starts, [*starts[1:], series.train], strict=True):
        yield series.until(end, train=start)


def validation_qlike(
    series: Series, features: tuple[Feature, Feature], recipe: Recipe, restarts: int = RESTARTS
) -> float:
    """The network's mean QLIKE over all validation days; infinite where a training diverged."""
    losses = []
    for fold in folds(series):
        x = torch.as_tensor(network_inputs(fold, features))
        t = torch.as_tensor(fold.variance)
        training = Training(x[fold.learnt], t[fold.learnt], recipe, restarts=restarts)
        while not training.finished:
            training.advance()
        try:
            forecast = training.result()(x).detach().numpy()
        except DivergedError:
            return float("inf")
        losses.append(qlike(forecast, fold.variance)[fold.judged])
    return float(np.concatenate(losses).mean())


def yardstick(series: Series, *, leverage: bool) -> float:
    """The same of GARCH(1,1), with leverage of GJR-GARCH(1,1)."""
    losses = [
        qlike(garch(fold, leverage=leverage), fold.variance)[fold.judged] for fold in folds(series)
    ]
    return float(np.concatenate(losses).mean())


def best_features(
    series: Series, candidates: tuple[tuple[Feature, Feature], ...]
) -> tuple[Feature, Feature]:
    """Print every candidate's validation QLIKE; the lowest wins."""
    found = {pair: validation_qlike(series, pair, FIRST_LOOK) for pair in candidates}
    for pair, loss in sorted(found.items(), key=lambda item: item[1]):
        print(f"{loss:.4f}  x1: {pair[0]}; x2: {pair[1]}", flush=True)
    return min(found, key=lambda pair: found[pair])


def main() -> None:
    torch.set_num_threads(1)
    series = sp500()
    for name, leverage in (("GARCH(1,1)", False), ("GJR-GARCH(1,1)", True)):
        print(f"{yardstick(series, leverage=leverage):.4f}  {name}")
    best_features(series, WIDE)
    chosen = best_features(series, CLOSE)
    for recipe in RECIPES:
        print(f"{validation_qlike(series, chosen, recipe):.4f}  {recipe}", flush=True)


if __name__ == "__main__":
    main()
