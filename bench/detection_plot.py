"""The detection curve as a picture; see `bench/detection_curve.py`, whose JSON it draws.

`python -m bench.detection_plot` draws bench/results/detection_curve.json again.
"""

import json
import math
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from torch_ref.benchmark.style import BLUE, GREEN, PURPLE, VERMILION, clear, save, settings

# line and marker differ as well as the colour
STYLES: dict[str, dict[str, Any]] = {
    "verify": {"color": BLUE, "linestyle": "-", "marker": "o", "linewidth": 2.4},
    "assert_close": {"color": VERMILION, "linestyle": ":", "marker": "s", "linewidth": 1.6},
    "gradcheck": {"color": GREEN, "linestyle": "--", "marker": "^", "linewidth": 1.6},
    "gradcheck, fast mode": {
        "color": PURPLE, "linestyle": "-.", "marker": "v", "linewidth": 1.6
    },
}  # fmt: skip
ROWS = {"cases": "share of single\ncases caught", "runs": "share of whole\nruns that catch it"}
NONE_AT = 17.2  # where right code stands on the axis of -log10(error)


def plot(measured: dict[str, Any], into: Path) -> None:
    """Draw detection_curve.svg and .png into the folder: a column a dtype."""
    dtypes = list(dict.fromkeys(one["dtype"] for one in measured["series"]))
    with pyplot.rc_context(rc=settings("detection curve")):
        figure, grid = pyplot.subplots(
            len(ROWS), len(dtypes), figsize=(2.75 * len(dtypes), 4.6), sharex=True, sharey=True,
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for column, dtype in enumerate(dtypes):
            grid[0, column].set_title(dtype, fontweight="bold")
            for axes, what in zip(grid[:, column], ROWS, strict=True):
                _draw(axes, measured, dtype, what)
        for axes, label in zip(grid[:, 0], ROWS.values(), strict=True):
            axes.set_ylabel(label)
        figure.supxlabel(
            "relative error planted in one gradient (none: right code, so false alarms)",
            fontsize=9,
        )
        handles = [
            Line2D([], [], label=_label(measured, tool), markersize=5, **style)
            for tool, style in STYLES.items()
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
        save(figure, into / "detection_curve.svg")
        save(figure, into / "detection_curve.png")
        pyplot.close(figure)


def _draw(axes: Axes, measured: dict[str, Any], dtype: str, what: str) -> None:
    """The tools' shares in one dtype; hollow where the code is right, so that it is false alarms"""
    errors = measured["errors"]
    places = [-math.log10(error) if error else NONE_AT for error in errors]
    wrong = [i for i, error in enumerate(errors) if error]
    right = [i for i, error in enumerate(errors) if not error]
    axes.axvspan(NONE_AT - 1.2, NONE_AT + 1.2, color="0.92", zorder=0)
    clear(axes)
    for order, one in enumerate(s for s in measured["series"] if s["dtype"] == dtype):
        shares = one[what]
        style = STYLES[one["tool"]] | {"markersize": 5, "zorder": 4 - order, "clip_on": False}
        axes.plot([places[i] for i in wrong], [shares[i] for i in wrong], **style)
        style |= {"linestyle": "none", "markerfacecolor": "white"}
        axes.plot([places[i] for i in right], [shares[i] for i in right], **style)
    axes.set_xlim(0.4, NONE_AT + 1.2)
    axes.set_ylim(-0.04, 1.04)
    ticks = [1, 4, 7, 10, 13]
    axes.set_xticks([*ticks, NONE_AT], [*(f"$10^{{-{t}}}$" for t in ticks), "none"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "½", "", "1"])


def _label(measured: dict[str, Any], tool: str) -> str:
    """The tool, and on how many cases it was asked."""
    count = next(one["number_of_cases"] for one in measured["series"] if one["tool"] == tool)
    return f"{tool} ({count:,} cases)"


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    plot(json.loads((results / "detection_curve.json").read_text()), results)
