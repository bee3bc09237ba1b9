"""A report, and one case of a twin, as tables on the terminal."""

import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from torch_ref.report.words import remarks, replay_command, share, summary

if TYPE_CHECKING:
    from torch_ref.compare import Report, Row
    from torch_ref.compare.replay import Line

COLOURS = {"agree": "green", "differ": "bold red", "undecided": "yellow"}


def report_console() -> Console:
    """The terminal, as wide as it is; for a file or a pipe as wide as COLUMNS says, or 100."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=100)


def print_report(report: "Report", console: Console, address: str = "") -> None:
    """One row a quantity, in backward order, then the verdict and what it rests on.

    address: the twin as the command line names it, for the command that replays a case; "" for
    the assignment's.
    """
    table = Table(title=escape(_title(report)), title_justify="left", box=None, header_style="bold")
    table.add_column("gradient", overflow="fold")  # a long name is broken, a number never
    table.add_column("verdict")
    for heading in ("digits\nby hand", "digits\nautograd", "rounding\nused", "undecided"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("worst case", overflow="fold")
    for row in report.rows:
        table.add_row(f"dL/d{escape(row.name)}", _row_verdict(row, report), *_numbers(row))
    console.print(table)
    for reason in (*report.failures, *report.notes, *remarks(report)):
        console.print(reason, highlight=False, markup=False)
    verdict = Text(report.verdict, style=COLOURS[report.verdict])
    console.print(verdict.append(f": {summary(report)}", style="default not bold"))
    if command := replay_command(report, address):  # to copy: never broken into lines
        console.print(f"look at it: {command}", highlight=False, markup=False, soft_wrap=True)
    console.print()


def print_replay(title: str, lines: "list[Line]", console: Console) -> None:
    """Every value forward and every gradient backward, both sides side by side."""
    table = Table(title=escape(title), title_justify="left", box=None, header_style="bold")
    table.add_column("quantity", overflow="fold")
    for heading in ("by hand", "autograd", "difference", "allowed"):
        table.add_column(heading, justify="right", no_wrap=True)  # a name is broken, no number
    table.add_column("verdict", no_wrap=True)
    for line in lines:
        table.add_row(
            escape(line.name),
            _number(line.manual),
            _number(line.reference),
            "" if line.manual is None else f"{abs(line.manual - (line.reference or 0.0)):.2e}",
            "" if line.tolerance is None else f"{line.tolerance:.2e}",
            _coloured(line.verdict) if line.verdict else "",
        )
    console.print(table)


def _title(report: "Report") -> str:
    return (
        f"{report.twin}, {report.cases:,} cases, {report.dtype}, {report.device}, "
        f"seed {report.seed}"
    )


def _row_verdict(row: "Row", report: "Report") -> str:
    """The verdict; of a wrong quantity, also whether the mistake is its own."""
    inherited = row.verdict == "differ" and row.name not in report.mistakes
    return _coloured(row.verdict) + (" (inherited)" if inherited else "")


def _numbers(row: "Row") -> list[str]:
    used = "" if row.worst_ratio is None else share(row.worst_ratio)
    if row.worst_case is None:  # it could not be compared
        return ["", "", "", "", ""]
    digits = (f"{row.digits_manual:.1f}", f"{row.digits_reference:.1f}")
    place = f" {list(row.worst_element)}" if row.worst_element else ""
    return [*digits, used, f"{row.undecided:.1%}", f"{row.worst_case or ''}{place}"]


def _coloured(verdict: str) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.11g}"
