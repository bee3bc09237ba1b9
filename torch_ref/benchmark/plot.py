"""A benchmark's result as a picture: nanoseconds a sample against the batch's size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from torch_ref.benchmark.limit import ARITHMETIC, MEMORY
from torch_ref.benchmark.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    clear,
    save,
    settings,
)

Result = dict[str, Any]


def _style(color: str, linestyle: Any, marker: str, width: float = 1.3) -> dict[str, Any]:
    return {"color": color, "linestyle": linestyle, "marker": marker, "linewidth": width}


# A colour a family; within one, line and marker differ. Dashes are the limits' alone.
DOTTED, DASH_DOTTED = ":", "-."
STYLES = {
    "fused_gradients, torch": _style(BLUE, "-", "o", 2.4),
    "fused_gradients, NumPy": _style(BLUE, DOTTED, "s", 1.8),
    "fused_gradients, floats": _style(BLUE, "none", "*"),
    "fused_gradients, torch, no loss": _style(BLUE, DASH_DOTTED, "D", 1.8),
    "fused_gradients, NumPy, no loss": _style(BLUE, DOTTED, "v", 1.8),
    "fused_gradients, floats, no loss": _style(BLUE, "none", "P"),
    "manual, NumPy": _style(ORANGE, "-", "s"),
    "manual, torch": _style(ORANGE, DOTTED, "o"),
    "manual, compiled": _style(VERMILION, "-", "^"),
    "manual, compiled, with loss": _style(VERMILION, DOTTED, "v"),
    "manual, compiled in one pass": _style(VERMILION, DASH_DOTTED, "D"),
    "autograd, eager": _style(BLACK, "-", "o", 1.8),
    "autograd, compiled loss": _style(GREEN, "-", "^"),
    "func.grad, compiled": _style(GREEN, DOTTED, "v"),
    "func.grad_and_value, compiled": _style(GREEN, DASH_DOTTED, "D"),
    "jax.jit(grad)": _style(PURPLE, "-", "P"),
    "jax.jit(value_and_grad)": _style(PURPLE, DOTTED, "X"),
    "C loop": _style(SKY, "-", "o"),
    "C loop, with loss": _style(SKY, DOTTED, "s"),
    MEMORY: _style("0.45", (0, (5, 3)), "", 1.2),
    ARITHMETIC: _style("0.45", (0, (2, 2)), "", 1.2),
}


def plot(result: Result, paths: Sequence[Path]) -> None:
    """Draw the gradients' times into files that end in .svg or .png, a column a dtype."""
    entries = [one for one in result["entries"] if one["work"] == "gradients"]
    dtypes = list(dict.fromkeys(one["dtype"] for one in entries))
    with pyplot.rc_context(rc=settings("gradients")):
        figure, grid = pyplot.subplots(
            1, len(dtypes), figsize=(1.6 + 3.6 * len(dtypes), 6.6), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axes, dtype in zip(grid[0], dtypes, strict=True):
            drawn = [one for one in entries if one["dtype"] == dtype]
            _draw(axes, sorted(drawn, key=lambda one: int(one["size"])))
            axes.set_title(dtype, fontweight="bold")
            axes.set_xlabel("samples in the batch")
        grid[0, 0].set_ylabel("nanoseconds a sample (median)")
        known = {name for one in entries for name in (*one["peers"], *one["limits"])}
        handles = [
            Line2D([], [], label=name, markersize=5, **style)
            for name, style in STYLES.items()
            if name in known
        ]
        columns = min(3, len(dtypes) + 1)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
        figure.suptitle(_title(result), fontsize=8, color="0.3")
        try:
            for path in paths:
                save(figure, path)
        finally:
            pyplot.close(figure)


def _draw(axes: Axes, entries: Sequence[Result]) -> None:
    for name, style in STYLES.items():
        places = [
            (one["size"], numbers["median"] / one["size"] * 1e9)
            for one in entries
            for numbers in (_seconds(one, name),)
            if numbers is not None
        ]
        if places:
            sizes, times = zip(*places, strict=True)
            order = 3 if name.startswith("fused") else 2
            axes.plot(sizes, times, markersize=4, zorder=order, clip_on=False, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    clear(axes)


def _seconds(entry: Result, name: str) -> dict[str, float] | None:
    """A peer's time, or a limit's; None where it was not measured."""
    if name in entry["limits"]:
        found: dict[str, float] = entry["limits"][name]
        return found
    return entry["peers"].get(name, {}).get("seconds")  # type: ignore[no-any-return]


def _title(result: Result) -> str:
    """Machine, versions and date, in three lines."""
    where = result["machine"]
    versions = [f"{n} {where[n]}" for n in ("torch", "numpy", "jax") if where.get(n)]
    return (
        f"the mean loss's gradient for 11 parameters: {where['cpu']}, {where['threads']} "
        f"{'thread' if where['threads'] == 1 else 'threads'}, {where['device']}\n"
        f"{', '.join(versions)}, {where['compiler'] or 'no C compiler'}\n"
        f"{result['date']}, load average {result['load_average']['before']} before, "
        f"{result['load_average']['after']} after"
    )
