"""An experiment on the terminal; needs no torch."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from torch_ref.experiments.export import Copy
    from torch_ref.experiments.ranking import Ranked
    from torch_ref.experiments.run import Result
    from torch_ref.experiments.ways import Pair


def print_ranking(result: "Result", network: str, rival: str, console: Console) -> None:
    """What was learnt from and judged on, the forecasts in order, and who won."""
    for line in _about(result):
        console.print(line, highlight=False, markup=False)
    table = _table("forecast", "mean\nQLIKE", "Diebold-\nMariano", "p")
    for row in result.ranking:
        numbers = ("", "") if row.statistic is None else (f"{row.statistic:+.2f}", f"{row.p:.3f}")
        table.add_row(row.name, f"{row.qlike:.4f}", *numbers)
    console.print(table)
    rows = {row.name: row for row in result.ranking}
    console.print(_verdict(rows[network], rows[rival]), highlight=False, markup=False)


def _about(result: "Result") -> list[str]:
    series, protocol = result.series, result.protocol
    recipe, zero = protocol.recipe, series.zero_days
    first, second = protocol.features
    samples = "all days" if recipe.batch is None else f"{recipe.batch} days"
    return [
        f"{series.name}, percent log returns: {series.train:,} to {series.date(series.train - 1)} "
        f"to learn from, {series.test:,} to {series.date(-1)} as test",
        f"left out of both, return zero: {', '.join(zero) or 'none'}",
        f"x1, x2: log of weighted means of past shocks, {first}; {second}",
        f"{recipe.optimizer}, {protocol.restarts} times {recipe.steps} steps on {samples}, "
        f"seed {protocol.seed}: {_chosen(result)}",
        "",
    ]


def _chosen(result: "Result") -> str:
    from torch_ref.experiments.protocol import PROTOCOL

    if result.protocol == PROTOCOL:
        return "as chosen before the test (protocol.py)"
    return "not what was chosen before the test (protocol.py): a look, no evidence"


def _verdict(network: "Ranked", rival: "Ranked") -> str:
    """In a sentence; 5 % is the level that tables of this kind go by."""
    order = "lower" if network.qlike < rival.qlike else "not lower"
    chance = "could be chance" if rival.p is None or rival.p >= 0.05 else "is hardly chance"
    return (
        f"Diebold-Mariano: below 0 where {network.name}'s loss is lower than the row's. "
        f"{network.name}'s mean loss is {order} than {rival.name}'s; "
        f"the difference {chance} (p = {rival.p:.3f})."
    )


def print_ways(pairs: "list[Pair]", steps: int, console: Console) -> None:
    """The three ways in pairs, and why the bound is what it is."""
    console.print(
        f"\none training run three ways, {steps} steps of SGD, float64: manual_bp with sgd_step, "
        "the module with torch.optim.SGD, and in DistributedDataParallel",
        highlight=False,
    )
    numbers = ("largest\ndifference", "allowed\nthere", "rounding\nused")
    table = _table("two ways", "", *numbers, "verdict")
    for pair in pairs:
        table.add_row(
            pair.first, pair.second, f"{pair.difference:.1e}", f"{pair.allowed:.1e}",
            f"{pair.used:.0%}", _coloured(pair.agree),
        )  # fmt: skip
    console.print(table)
    console.print(
        "allowed: each step's bound on the rounding of the two gradients and updates, carried on "
        "by the steps after it through I - k H, k the learning rate and H the loss's Hessian "
        "(torch_ref/experiments/ways.py)",
        highlight=False,
    )


def print_copies(copies: "list[Copy]", console: Console) -> None:
    """Each form of the trained network against the module."""
    console.print("\nthe trained network in other forms, float64", highlight=False)
    table = _table("form", "relative\ndifference", "rounding\nused", "verdict")
    for copy in copies:
        table.add_row(
            copy.name, f"{copy.difference:.1e}", f"{copy.used:.0%}", _coloured(copy.agrees)
        )
    console.print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column(first, no_wrap=True)
    for heading in others:
        words = heading in ("", "verdict")
        table.add_column(heading, justify="left" if words else "right", no_wrap=words)
    return table


def _coloured(agree: bool) -> str:
    return "[green]agree[/]" if agree else "[bold red]differ[/]"
