"""A report, and one case of a twin, as tables on the terminal."""

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from torch_ref.compare import Report, Row
    from torch_ref.compare.replay import Line

COLOURS = {"agree": "green", "differ": "bold red", "undecided": "yellow"}


def report_console() -> Console:
    """The terminal; 100 columns where the output goes to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


def print_report(report: "Report", console: Console) -> None:
    """One row a quantity, in backward order, then the verdict in one line."""
    table = Table(title=_title(report), title_justify="left", box=None, header_style="bold")
    table.add_column("gradient")
    table.add_column("verdict")
    for heading in ("digits by hand", "digits autograd", "allowed rounding used", "undecided"):
        table.add_column(heading, justify="right")
    table.add_column("worst case")
    for row in report.rows:
        table.add_row(f"dL/d{row.name}", _coloured(row.verdict), *_numbers(row))
    console.print(table)
    for reason in (*report.failures, *report.notes):
        console.print(reason, highlight=False)
    console.print(f"[{COLOURS[report.verdict]}]{_verdict(report)}[/]", highlight=False)
    console.print()


def print_replay(title: str, lines: "list[Line]", console: Console) -> None:
    """Every value forward and every gradient backward, both sides side by side."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    table.add_column("quantity")
    for heading in ("by hand", "autograd", "difference", "allowed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for line in lines:
        table.add_row(
            line.name,
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


def _numbers(row: "Row") -> list[str]:
    used = "" if row.worst_ratio is None else _share(row.worst_ratio)
    digits = (f"{row.digits_manual:.1f}", f"{row.digits_reference:.1f}")
    return [*digits, used, f"{row.undecided:.1%}", row.worst_case or ""]


def _share(ratio: float) -> str:
    """0.353 as 35 %; a ratio far above 1 as a factor."""
    if math.isinf(ratio):
        return "not a number"
    return f"{ratio:.0%}" if ratio < 10 else f"{ratio:.1e} x"


def _verdict(report: "Report") -> str:
    if report.first_wrong:
        row = next(row for row in report.rows if row.name == report.first_wrong)
        return (
            f"differ: the mistake enters at dL/d{row.name}; look at it with "
            f"gradtwin replay {row.worst_case} --dtype {report.dtype}"
        )
    return {
        "agree": "agree: every difference is rounding",
        "differ": "differ: the manual side breaks the contract, see above",
        "undecided": "undecided: for some quantity rounding leaves no digit in any case",
    }[report.verdict]


def _coloured(verdict: str) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.11g}"
