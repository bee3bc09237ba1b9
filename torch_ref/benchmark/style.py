"""How this project's plots look, and how they are written; needs matplotlib."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # no display is needed, and none is asked for

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torch_ref.report.files import replace_file

# Okabe and Ito's palette, told apart by colour-blind eyes.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PNG_DOTS = 160  # an inch


def settings(name: str) -> Any:
    """For matplotlib's rc_context; name: of the plot, so that the same numbers give one file."""
    return {"svg.hashsalt": name, "font.size": 9}


def clear(axes: Axes) -> None:
    """A light grid, and no frame above and on the right."""
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """SVG or PNG by the ending; written whole or not at all. Raises OSError."""
    options: Mapping[str, Any] = {"metadata": {"Date": None}}
    if path.suffix.lower() == ".png":
        options = {"dpi": PNG_DOTS}
    written = io.BytesIO()
    figure.savefig(written, format=path.suffix[1:].lower(), **options)
    replace_file(path, written.getvalue())
