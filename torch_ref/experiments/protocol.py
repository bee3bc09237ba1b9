"""What was decided before the test years were looked at, and why.

Everything here was chosen by `python -m torch_ref.experiments.selection`, on the training years
alone: mean QLIKE on 2006 to 2013, two years at a time, of a network trained on all years before
them (the mean over all 2012 days; 5 restarts, the one with the lowest training loss judged).
The test years, 2014 to 2018, were not evaluated for any network while choosing. Of them only the
baselines' figures were known, among them that GJR-GARCH does better than GARCH(1,1) there; that it
does so in the validation years as well, 1.5402 against 1.5938, can be seen without them.

Features, 47 pairs of logarithms of exponentially weighted means of past shocks: pairs of a short
symmetric mean and a longer one in which losses count more came first, with 1.520 to 1.523 for
eleven neighbouring pairs; the lowest, 1.5199, is taken. Other pairs reached 1.541 (two leveraged
means) and 1.550 (decay 0.94 for both).

Optimizer: L-BFGS with 3, 10 and 30 steps of up to 20 iterations gave 1.5199 each, so it has
converged; Adam gave 1.5239 (rate 0.03) and 1.5297 (0.01) after 2000 steps, SGD on batches of 256
1.5452 (0.05) and 1.5619 (0.02) after 8000.

The loss of 5 restarts is what was validated, so 5 restarts it is; seed 0, as everywhere.
The test: the network learns from all training years with these settings, once; what comes out is
reported, whatever it is.
"""

from dataclasses import dataclass

from torch_ref.experiments.features import Feature
from torch_ref.experiments.training import Recipe

# The first is the protocol's; the others, for comparison, are the best of the same selection.
RECIPES = {
    "lbfgs": Recipe("lbfgs", learning_rate=1.0, steps=10),
    "adam": Recipe("adam", learning_rate=0.03, steps=2000),
    "sgd": Recipe("sgd", learning_rate=0.05, steps=8000, batch=256),
}


@dataclass(frozen=True)
class Protocol:
    """Features, recipe, restarts and seed: with a series, all that an experiment depends on."""

    features: tuple[Feature, Feature] = (Feature(0.6, 0.0), Feature(0.88, 0.7))
    recipe: Recipe = RECIPES["lbfgs"]
    restarts: int = 5
    seed: int = 0


PROTOCOL = Protocol()
