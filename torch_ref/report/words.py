"""What is said about a report, on the terminal and on a page alike."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch_ref.compare import Report, Row

MOST_NAMES = 3  # in the sentence that says all


def sentence(reports: "Sequence[Report]") -> str:
    """The verdict on one twin, in however many dtypes, in one sentence."""
    worst = worst_verdict(reports)
    chosen = [report for report in reports if report.verdict == worst]
    first, twin = chosen[0], f"“{chosen[0].twin}”"
    where = "" if len(chosen) == len(reports) else f" in {_listed([r.dtype for r in chosen])}"
    if worst == "agree":
        hand = f"The hand-written backward pass of {twin} agrees with autograd"
        return f"{hand}: every difference is rounding."
    if worst == "undecided":
        hand = f"The hand-written backward pass of {twin} is undecided{where}"
        return f"{hand}: of some quantity too little can be judged."
    if not first.first_wrong:
        return f"The hand-written backward pass of {twin} breaks the contract{where}."
    wrong = "reference" if first.diagnosis.blame == "reference" else "hand-written backward pass"
    names = [f"dL/d{name}" for name in first.mistakes]
    enters = "the mistake enters" if len(names) == 1 else "mistakes enter"
    return f"The {wrong} of {twin} is wrong{where}: {enters} at {_listed(names)}."


def worst_verdict(reports: "Sequence[Report]") -> str:
    """ "differ" where any of them does, else "undecided" where any is, else "agree"."""
    verdicts = [report.verdict for report in reports]
    return next(v for v in ("differ", "undecided", "agree") if v in verdicts)


def summary(report: "Report") -> str:
    """The verdict in words: where the mistake enters, and what it looks like."""
    if not report.first_wrong:
        return {
            "agree": "every difference is rounding",
            "differ": "the manual side breaks the contract, see above",
            "undecided": "of some quantity too little can be judged",
        }[report.verdict]
    return "\n".join(report.closing_lines())


def remarks(report: "Report") -> list[str]:
    """What else a reader should know: what was not given, what is a convention."""
    from torch_ref.compare.functions.values import UPSTREAM

    remarks = [report.about_bias(row) for row in report.rows if row.bias is not None]
    wrong = (row.name for row in report.rows if row.verdict == "differ")
    forward = next(filter(UPSTREAM.fullmatch, wrong), None)  # as a Function's twin names it
    if forward:
        remarks.append(f"dL/d{forward} is the forward result: what is wrong there is forward")
    if report.missing:
        names = ", ".join(f"dL/d{name}" for name in report.missing)
        remarks.append(f"not given by hand, so not judged: {names}")
    if report.kinks:
        remarks.append(
            f"{report.kinks:.1%} of the cases meet a kink or a tie exactly, where a gradient is a "
            "convention: torch's is the one judged by"
        )
    return remarks


def share(ratio: float) -> str:
    """0.353 as 35%; a ratio far above 1 as a factor."""
    if math.isinf(ratio):
        return "not a number"
    return f"{ratio:.0%}" if ratio < 10 else f"{ratio:.1e} x"


def first_mistake(report: "Report") -> "Row | None":
    """The row of the first mistake, where it could be compared."""
    row = next((row for row in report.rows if row.name in report.mistakes), None)
    return None if row is None or row.worst_case is None else row


def replay_command(report: "Report", address: str) -> str:
    """The command that shows the worst case of the first mistake, "" where there is none."""
    row = first_mistake(report)
    return "" if row is None or not row.wrong else replay_of(report, row, address)


def replay_of(report: "Report", row: "Row", address: str) -> str:
    """The command that shows a row's worst case."""
    parts = ["gradtwin replay", row.worst_case, address]
    parts += [f"--dtype {report.dtype}"]
    parts += [f"--device {report.device}"] * (report.device != "cpu")
    return " ".join(part for part in parts if part)


def _listed(names: list[str]) -> str:
    """ "a", "a and b", "a, b and c"; of many the first ones."""
    if len(names) > MOST_NAMES + 1:
        names = [*names[:MOST_NAMES], f"{len(names) - MOST_NAMES} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
