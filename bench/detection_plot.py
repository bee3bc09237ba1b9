"""The detection curve as a picture; see `bench/detection_curve.py`, whose JSON it draws.

`python bench/detection_plot.py` draws bench/results/detection_curve.json again.
"""

import json
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # no display is needed, and none is asked for

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

# Okabe and Ito's palette: told apart by colour-blind eyes, too.
COLOURS = {"float64": "#0072B2", "float32": "#009E73", "bfloat16": "#D55E00", "float16": "#CC79A7"}
STYLES = {
    "verify": {"linestyle": "-", "marker": "o", "linewidth": 2.2, "markersize": 4.5},
    "assert_close": {"linestyle": ":", "marker": "s", "linewidth": 1.4, "markersize": 3.5},
    "gradcheck": {"linestyle": "--", "marker": "^", "linewidth": 1.4, "markersize": 4.5},
    "gradcheck, fast mode": {"linestyle": "-.", "marker": "v", "linewidth": 1.4, "markersize": 4.5},
}
NONE_AT = 16.5  # where right code stands on the axis of -log10(error)


def plot(measured: dict[str, Any], into: Path) -> None:
    """Draw detection_curve.svg and .png into the folder."""
    # text stays text in the SVG, and the file is the same for the same numbers
    settings = {"svg.fonttype": "none", "svg.hashsalt": "detection curve", "font.size": 9}
    with pyplot.rc_context(settings):
        figure, (cases, runs) = pyplot.subplots(
            1, 2, figsize=(10, 4.4), sharey=True, layout="constrained"
        )
        many = max(one["number_of_cases"] for one in measured["series"])
        few = min(one["number_of_cases"] for one in measured["series"])
        _draw(cases, measured, "cases")
        cases.set_title("A single case: how often is it caught?", loc="left")
        _draw(runs, measured, "runs")
        runs.set_title(f"A run of {many:,} cases (gradcheck {few}): is it caught?", loc="left")
        cases.set_ylabel("share caught, over 21 gradients")
        figure.legend(handles=_legend(measured), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(into / "detection_curve.svg", metadata={"Date": None})
        figure.savefig(into / "detection_curve.png", dpi=160)
        pyplot.close(figure)


def _draw(axes: Axes, measured: dict[str, Any], what: str) -> None:
    errors = measured["errors"]
    places = [-math.log10(error) if error else NONE_AT for error in errors]
    for one in measured["series"]:
        style: dict[str, Any] = {"color": COLOURS[one["dtype"]], **STYLES[one["tool"]]}
        wrong = [i for i, error in enumerate(errors) if error]
        axes.plot([places[i] for i in wrong], [one[what][i] for i in wrong], **style)
        right = [i for i, error in enumerate(errors) if not error]
        hollow = {**style, "linestyle": "none", "markerfacecolor": "white"}
        axes.plot([places[i] for i in right], [one[what][i] for i in right], **hollow)
    axes.axvspan(NONE_AT - 0.75, NONE_AT + 0.75, color="0.93", zorder=0)
    axes.set_xlim(0.5, NONE_AT + 0.75)
    axes.set_ylim(-0.03, 1.03)
    ticks = [1, 3, 5, 7, 9, 11, 13, 15]
    axes.set_xticks([*ticks, NONE_AT], [*(f"$10^{{-{t}}}$" for t in ticks), "none:\nfalse alarms"])
    axes.set_xlabel("relative error planted in one gradient")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(measured: dict[str, Any]) -> list[Line2D]:
    """The dtypes by colour, then the tools by line."""
    dtypes = [
        Line2D([], [], color=colour, linewidth=4, label=dtype)
        for dtype, colour in COLOURS.items()
        if any(one["dtype"] == dtype for one in measured["series"])
    ]
    tools = [
        Line2D([], [], color="0.25", label=tool, **style)  # type: ignore[arg-type]
        for tool, style in STYLES.items()
    ]
    return [handle for pair in zip(dtypes, tools) for handle in pair]


if __name__ == "__main__":
    results = Path(__file__).parent / "results"
    plot(json.loads((results / "detection_curve.json").read_text()), results)
