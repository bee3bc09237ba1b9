"""A benchmark's result on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

Result = dict[str, Any]


def print_result(result: Result, console: Console) -> None:
    """A table a work, dtype and size; then memory, what was refused, and what was skipped."""
    where, loads = result["machine"], result["load_average"]
    console.print(
        f"{where['cpu']}, {where['device']}, threads: {where['threads']} of {where['cores']} "
        f"cores; torch {where['torch']}, NumPy {where['numpy']}, JAX {where['jax'] or 'none'}, "
        f"{where['compiler'] or 'no C compiler'}; load average {loads['before']} before, "
        f"{loads['after']} after",
        highlight=False, markup=False,
    )  # fmt: skip
    for entry in result["entries"]:
        console.print(_entry(entry))
        for message in entry["refused"].values():
            console.print(f"[bold red]refused[/]: {message}", highlight=False)
    if result["memory"]:
        console.print(_memory(result["memory"]))
    for peer, reason in result["skipped"].items():
        console.print(f"skipped: {peer}: {reason}.", highlight=False, markup=False)


def _entry(entry: Result) -> Table:
    size = entry["size"]
    table = _table(f"{entry['work']}, {entry['dtype']}, {size:,} samples, {entry['turns']} turns")
    table.add_column("peer", no_wrap=True)
    table.add_column("returns", no_wrap=True)
    for heading in ("ns a sample", "10%, 90%", "speed,\nx eager", "time,\nx limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, seconds in entry["limits"].items():
        table.add_row(name, "", *_times(seconds, size), "", "", style="dim")
    ordered = sorted(entry["peers"].items(), key=lambda one: float(one[1]["seconds"]["median"]))
    for name, peer in ordered:
        table.add_row(
            name,
            peer["returns"],
            *_times(peer["seconds"], size),
            f"{peer['speed_to_eager']['median']:.2f}",
            f"{peer['time_to_limit']['median']:.2f}",
            style="bold" if name.startswith("fused") else "",
        )
    return table


def _times(seconds: dict[str, float], size: int) -> tuple[str, str]:
    median, low, high = (seconds[name] / size * 1e9 for name in ("median", "low", "high"))
    return _number(median), f"{low / median - 1:+.0%} {high / median - 1:+.0%}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _memory(rows: list[Result]) -> Table:
    table = _table("peak memory, in MiB")
    for heading in ("peer", "dtype"):
        table.add_column(heading, no_wrap=True)
    for heading in ("samples", "inputs", "beyond inputs", "x inputs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        inputs, beyond = row["inputs"], row["beyond_inputs"]
        numbers = (f"{inputs / 2**20:,.1f}", f"{beyond / 2**20:,.1f}", f"{beyond / inputs:.2f}")
        table.add_row(row["peer"], row["dtype"], f"{row['size']:,}", *numbers)
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, header_style="bold")
