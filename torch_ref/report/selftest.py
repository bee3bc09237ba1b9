"""What became of the mutants, as tables on the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from torch_ref.selftest import MutantRow, SelftestResult


def print_selftest(result: "SelftestResult", console: Console) -> None:
    """One row a mutated function, how mutants were caught or proved equivalent, and survivors."""
    console.print(_by_function(result))
    console.print(_by_reason(result))
    right, of = result.named
    console.print(
        f"the gradient that the mutated line computes was named first: {right} of {of}",
        highlight=False,
    )
    for row in result.with_verdict("survived"):
        console.print(f"[bold red]survived[/] {row.function}, line {row.line}", highlight=False)
        console.print(f"    {row.before}\n    {row.after}", highlight=False, markup=False)
    for function in result.false_alarms:
        console.print(f"[bold red]false alarm[/] {function} is right as it is", highlight=False)
    console.print(_summary(result), highlight=False)


def _by_function(result: "SelftestResult") -> Table:
    title = f"mutants of manual_bp, {result.cases:,} cases a twin, float64"
    table = _table(title, "function", "mutants", "caught", "equivalent", "survived")
    for function in dict.fromkeys(row.function for row in result.rows):
        rows = [row for row in result.rows if row.function == function]
        table.add_row(function, *_counts(rows))
    table.add_row("all", *_counts(result.rows), style="bold")
    return table


def _by_reason(result: "SelftestResult") -> Table:
    table = _table("", "how", "mutants")
    for verdict, reasons in result.reasons.items():
        for reason, count in reasons.items():
            table.add_row(f"{verdict}: {reason}", f"{count:,}")
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column(first)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _counts(rows: "tuple[MutantRow, ...] | list[MutantRow]") -> list[str]:
    verdicts = [row.verdict for row in rows]
    counts = [verdicts.count(verdict) for verdict in ("caught", "equivalent", "survived")]
    return [f"{count:,}" for count in (len(rows), *counts)]


def _summary(result: "SelftestResult") -> str:
    counts, seconds = result.counts, f"({result.seconds:.0f} s)"
    if result.ok:
        return f"[green]passed[/]: every mutant that is not equivalent was caught {seconds}"
    survived = counts["survived"]
    problems = [f"{survived} survived"] * bool(survived)
    problems += [f"{len(result.false_alarms)} false alarms"] * bool(result.false_alarms)
    return f"[bold red]failed[/]: {', '.join(problems)} {seconds}"
