"""What a page shows of a report, as plain values: the template only writes them down."""

import shlex
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from torch_ref.report.graph import Drawing, drawing, nearest
from torch_ref.report.words import first_mistake, remarks, replay_of, share

if TYPE_CHECKING:
    from torch_ref.compare import Report, Row

MOST_LINES = 12  # of reasons, notes or explanations
LONGEST_IN_GRAPH, LONGEST_NAME = 22, 90
SIGNS = {"agree": "✓", "undecided": "?", "unjudged": "–"}  # anything else is wrong: ✗
WORDS = {
    "agree": "agrees",
    "first": "first wrong",
    "mistake": "a mistake of its own",
    "inherited": "wrong, inherited",
    "undecided": "undecided",
    "unjudged": "not judged",
}
IN_GRAPH = {"first": "first wrong", "mistake": "own mistake", "inherited": "inherited"}
BAR, GAP, HEIGHT = 8, 4, 26  # of a histogram, px


@dataclass(frozen=True)
class Detail:
    """How much of a report is shown: rows of the table, quantities in the drawing, and letters of
    a text."""

    rows: int
    quantities: int
    letters: int = 800


def sign(state: str) -> str:
    return SIGNS.get(state, "✗")


def states(report: "Report") -> dict[str, str]:
    """One of WORDS for each row."""
    own = report.mistakes
    found = {}
    for row in report.rows:
        state = row.verdict
        if state == "differ":
            state = "inherited" if row.name not in own else "mistake"
            state = "first" if row.name == own[0] else state
        found[row.name] = state
    return found


def section(report: "Report", address: str | None, detail: Detail, key: str) -> dict[str, object]:
    """Everything about one report; `key` starts every id on the page that belongs to it.

    address: of the twin, for the command that replays a case; None where only Python can.
    """
    state = states(report)
    rows = _chosen(report.rows, detail.rows)
    return {
        "key": key,
        "report": report,
        "sign": {"agree": "✓", "differ": "✗", "undecided": "?"}[report.verdict],
        "points": _points(report),
        "figure": _figure(report, state, detail.quantities),
        "worst": _worst(report, address),
        "rows": [_row(row, state[row.name]) for row in rows],
        "left_out": len(report.rows) - len(rows),
        "one": axis_of_one(),
    }


def cut(text: str, most: int) -> str:
    """A text with dots in the middle, where it is too long."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def shown(value: object, most: int = 800) -> object:
    """Letters that cannot be seen, or change how others are shown, by their number; never more than
    a screen of text."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    visible = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in value)
    return cut(visible, most)


def _points(report: "Report") -> list[str]:
    """The sentences beside the graph."""
    found = _few(report.failures, "reasons")
    if report.first_wrong:
        where, *_, last = [*report.closing_lines(), ""]
        told = [f"{one}." for one in report.diagnosis.explanations]
        found += [where, *_few(told, "explanations"), *_few(report.places(), "places")]
        found += [last] if last and "kink" in last else []
    elif report.verdict == "agree":
        found.append("Every difference is rounding.")
    elif report.verdict == "undecided":
        found.append("Of some quantity too little can be judged.")
    return [
        *found,
        *_few(report.notes, "notes"),
        *(f"{r[0].upper()}{r[1:]}." for r in remarks(report)),
    ]


def _few(lines: "tuple[str, ...] | list[str]", what: str) -> list[str]:
    left = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"… and {left} more {what}."] if left > 0 else [])]


def _chosen(rows: "tuple[Row, ...]", most: int) -> "list[Row]":
    """All rows, or the most telling ones, in their order."""
    telling = sorted(range(len(rows)), key=lambda at: rows[at].verdict == "agree")
    return [rows[at] for at in sorted(telling[:most])]


# the drawing -------------------------------------------------------------------------------------


def _figure(report: "Report", state: dict[str, str], most: int) -> dict[str, object] | None:
    """The graph with a text and a state for each quantity; None where there is no graph."""
    joined = {name for edge in report.graph.edges for name in edge}
    names = tuple(n for n in report.graph.quantities if n in joined or n in state)
    if not names:
        return None
    start = report.mistakes[0] if report.mistakes else "loss"
    chosen = names if len(names) <= most else nearest(names, report.graph.edges, start, most)
    kept = set(chosen)
    edges = [(a, b) for a, b in report.graph.edges if a in kept and b in kept]
    found = {name: state.get(name, "unjudged") for name in chosen}
    texts = {name: _text(name, found[name]) for name in chosen}
    drawn: Drawing = drawing(chosen, edges, texts)
    return {
        "drawing": drawn,
        "state": found,
        "text": texts,
        "word": {name: WORDS[one] for name, one in found.items()},
        "left_out": len(names) - len(chosen),
        "edges": _in_words(chosen, edges),
        "used": [one for one in WORDS if one in found.values()],
    }


def _text(name: str, state: str) -> str:
    text = f"{sign(state)} {cut(str(shown(name)), LONGEST_IN_GRAPH)}"
    return f"{text} · {IN_GRAPH[state]}" if state in IN_GRAPH else text


def _in_words(names: tuple[str, ...], edges: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each computed quantity with those that it is computed from."""
    before = {name: [a for a, b in edges if b == name] for name in names}
    return [(name, sources) for name, sources in before.items() if sources]


# a row and its histogram -------------------------------------------------------------------------


def _row(row: "Row", state: str) -> dict[str, object]:
    return {
        "name": cut(str(shown(row.name)), LONGEST_NAME),
        "state": state,
        "sign": sign(state),
        "word": WORDS[state],
        "compared": row.worst_case is not None,
        "used": "" if row.worst_ratio is None else share(row.worst_ratio),
        "undecided": f"{row.undecided:.1%}",
        "place": _place(row),
        "digits": (f"{row.digits_manual:.1f}", f"{row.digits_reference:.1f}"),
        "bars": _bars(row.histogram),
        "says": _says(row.histogram),
    }


def _place(row: "Row") -> str:
    element = f" {list(row.worst_element)}" if row.worst_element else ""
    return f"{row.worst_case or ''}{element}"


def _bars(counts: tuple[int, ...]) -> tuple[str, str]:
    """SVG paths of the bars within what rounding allows, and of those beyond."""
    from torch_ref.compare.histogram import WITHIN

    paths = ["", ""]
    most = max(counts, default=0) or 1
    for at, count in enumerate(counts):
        if count:
            height = max(round(count / most * HEIGHT, 1), 2)  # a single element can be seen
            path = f"M{_left(at)} {HEIGHT}v-{height:g}h{BAR - 1}v{height:g}z"
            paths[at >= WITHIN] += path
    return paths[0], paths[1]


def _left(at: int) -> int:
    return at * BAR + (GAP if at else 0)


def axis_of_one() -> int:
    """Where the line between what rounding allows and what it does not stands, px."""
    from torch_ref.compare.histogram import WITHIN

    return _left(WITHIN) - 1


def _says(counts: tuple[int, ...]) -> str:
    """A histogram in words; "" of nothing."""
    from torch_ref.compare.histogram import WITHIN

    if not sum(counts):
        return ""
    within, beyond = sum(counts[1:WITHIN]), sum(counts[WITHIN:])
    return (
        f"{sum(counts):,} decided elements: {counts[0]:,} equal, {within:,} within what rounding "
        f"allows, {beyond:,} beyond"
    )


# the worst case ----------------------------------------------------------------------------------


def _worst(report: "Report", address: str | None) -> dict[str, object] | None:
    """The first mistake's worst case, or the one that uses most of what is allowed."""
    judged = [row for row in report.rows if row.worst_case and row.worst_ratio is not None]
    row = first_mistake(report) or max(judged, key=lambda r: r.worst_ratio or 0.0, default=None)
    if row is None or row.worst_ratio is None:
        return None
    return {
        "name": row.name,
        "place": _place(row),
        "stratum": row.stratum,
        "manual": _number(row.manual),
        "reference": _number(row.reference),
        "tolerance": "" if row.tolerance is None else f"{row.tolerance:.3g}",
        "used": share(row.worst_ratio),
        "replay": _replay(report, row, address),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def _replay(report: "Report", row: "Row", address: str | None) -> str:
    if address is None:
        seed, _, index = str(row.worst_case).partition(":")
        device = "" if report.device == "cpu" else f', device="{report.device}"'
        return (
            f"torch_ref.compare.replay(twin, {seed}, {index}, dtype=torch.{report.dtype}{device})"
        )
    return replay_of(report, row, shlex.quote(_without_folder(address)) if address else "")


def _without_folder(address: str) -> str:
    """The page may be read by others: folders of the machine that judged are not their business."""
    place, colon, name = address.rpartition(":")
    return f"{PurePath(place).name}{colon}{name}" if colon else PurePath(address).name
