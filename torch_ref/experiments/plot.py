"""An experiment as a picture: forecasts against what came, and how the network learnt."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from torch_ref.benchmark.style import BLACK, BLUE, ORANGE, SKY, clear, save, settings
from torch_ref.experiments.run import NETWORK, Result

BESIDE = "GARCH(1,1)"


def plot(result: Result, path: Path) -> None:
    """Draw it into a file that ends in .svg or .png. Raises OSError."""
    with pyplot.rc_context(rc=settings("experiment")):
        figure, (above, below) = pyplot.subplots(
            2, 1, figsize=(7.2, 6.4), height_ratios=(3, 2), layout="constrained"
        )
        _draw_forecasts(above, result)
        _draw_learning(below, result)
        try:
            save(figure, path)
        finally:
            pyplot.close(figure)


def _draw_forecasts(axes: Axes, result: Result) -> None:
    """The test years: squared returns, and two forecasts of their mean."""
    series, days = result.series, result.series.judged
    dates, losses = series.dates, {row.name: row.qlike for row in result.ranking}
    axes.plot(
        dates[days], series.variance[days], ".", color="0.7", markersize=2.5, rasterized=True,
        label="realised: squared returns",
    )  # fmt: skip
    for name, color in ((BESIDE, ORANGE), (NETWORK, BLUE)):
        axes.plot(
            dates[days], result.forecasts[name][days], color=color, linewidth=1.1,
            label=f"{name}, mean QLIKE {losses[name]:.4f}",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=max(series.variance[days].min(), 1e-4))
    axes.set_ylabel("variance of a day, percent²")
    axes.set_title(f"{series.name}: forecast of the day before, and what came", loc="left")
    axes.legend(loc="lower left", fontsize=8, edgecolor="none", markerscale=2)
    clear(axes)


def _draw_learning(axes: Axes, result: Result) -> None:
    """Every restart's loss above the lowest, the one that was kept in front.

    0 has no logarithm: the lowest stands where the next to it does.
    """
    curves = result.curves.numpy()
    best = int(np.nanargmin(curves[:, -1]))
    above = curves - np.nanmin(curves)
    curves = np.maximum(above, above[above > 0].min(initial=1.0))
    for restart, curve in enumerate(curves):
        kept = restart == best
        axes.plot(
            curve, color=BLACK if kept else SKY, linewidth=1.6 if kept else 1.0,
            zorder=3 if kept else 2, marker="o" if len(curve) < 50 else "", markersize=3,
            label=f"restart {restart}, kept" if kept else None,
        )  # fmt: skip
    axes.set_xlabel(f"step of {result.protocol.recipe.optimizer}")
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("training loss (QLIKE)\nabove the lowest reached")
    axes.set_title(f"learning from {len(curves)} random starts", loc="left")
    axes.legend(frameon=False, fontsize=8)
    clear(axes)
