"""What the audit of the assignment's printed lines found, as tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from manual_bp.audit import Finding


def print_findings(findings: "Sequence[Finding]", console: Console) -> None:
    """One table for each part of the assignment, then the summary in one line."""
    from manual_bp.audit import POINTS, summary  # with SymPy, which only the audit waits for

    for part in sorted({finding.label[:2] for finding in findings}):
        console.print(f"\n[bold]{part}[/]")
        lines = [finding for finding in findings if finding.label.startswith(part)]
        console.print(_table(lines, unicode=console.encoding.startswith("utf")))
    console.print(f"\n{summary(findings)}", highlight=False)
    console.print(f"each one symbolically and at {POINTS} random points", highlight=False)


def _table(findings: "Sequence[Finding]", unicode: bool) -> Table:
    """One row a printed line; under a wrong one what is wrong, what belongs there, the numbers."""
    from manual_bp.audit import in_ascii, plain

    def cell(text: str, style: str = "") -> Text:
        return Text(text if unicode else in_ascii(text), style)

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        if finding.repeats:
            continue  # the first of them says how often
        mark, colour = ("✓", "green") if finding.right else ("✗", "bold red")
        table.add_row(cell(mark, colour), cell(finding.label[3:]), cell(plain(finding.printed)))
        again = sum(other.repeats == finding.label for other in findings)
        if again:
            table.add_row("", "", cell(f"(printed {again} more times, word for word)", "dim"))
        if not finding.right:
            table.add_row("", cell("  problem", colour), cell(finding.problem))
            table.add_row("", cell("  belongs", "bold green"), cell(plain(finding.belongs)))
            table.add_row("", cell("  numbers", "dim"), cell(finding.evidence, "dim"))
    return table
