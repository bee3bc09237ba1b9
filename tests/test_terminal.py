"""What is printed: it fits the terminal, keeps its numbers, and has colours only where wanted."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from torch_ref.compare import Report, Row
from torch_ref.compare.replay import Line
from torch_ref.report import print_replay, print_report, report_console

LONG = "encoder.layers.11.self_attention.out_projection.weight"


def row(name: str, verdict: str = "differ") -> Row:
    return Row(
        name, verdict, 3.8e14, "18446744073709551615:99999", 1.5, 2.5, 1e-16, 14.3, 12.5, 0.054,
        wrong=0.1, worst_element=(10, 20),
    )  # fmt: skip


REPORT = Report(
    "wide",
    100,
    "float64",
    "cpu",
    0,
    (row("y", "agree"), row(LONG), row("x", "undecided")),
    missing=tuple(f"parameter_{number}" for number in range(12)),
)


def printed(width: int = 80, **options: object) -> str:
    console = Console(width=width, file=io.StringIO(), **options)
    print_report(REPORT, console, "file.py:twin")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """But the command to copy, which is never broken."""
    lines = [line for line in printed(width).splitlines() if "gradtwin replay" not in line]
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_numbers_and_names_are_whole(width: int) -> None:
    output = printed(width)
    assert "…" not in output
    for number in ("3.8e+14 x", "14.3", "12.5", "5.4%"):
        assert number in output
    columns = ["".join(cells) for cells in zip(*map(str.split, lines_of_table(output)))]
    assert LONG in columns[0]


def lines_of_table(output: str) -> list[str]:
    """The first words of each line between the headings and what follows the table."""
    below = output.partition("gradient")[2].split("\n")[1:]
    end = next(number for number, line in enumerate(below) if not line.startswith(" "))
    return [line for line in below[:end] if line[1:2] != " "]


def test_replayed_cases_fit() -> None:
    console = Console(width=80, file=io.StringIO())
    lines = [
        Line(f"{LONG}[10, 20]", -1.2345678901e-300, 1e300, 1e-16, "undecided"),
        Line("z[bold]", 1, 2),
    ]
    print_replay("wide[red], case 0:0", lines, console)
    assert isinstance(console.file, io.StringIO)
    output = console.file.getvalue()
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    assert "wide[red], case 0:0" in output
    assert "-1.2345678901e-300" in output  # a number is never broken
    assert "z[bold]" in output


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[(\d+;)*3\dm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colour.search(printed(force_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(printed(force_terminal=True))
    assert "\x1b" not in printed()


@pytest.mark.parametrize(("columns", "width"), [(None, 100), ("80", 80), ("60", 60)])
def test_a_pipe_is_as_wide_as_asked_for(
    columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert report_console().width == width


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    named = replace(REPORT, twin="[bold]no markup[/]", rows=(row("[/]x[red]"),))
    print_report(named, report_console())
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "[bold]no markup[/]" in output
    assert "dL/d[/]x[red]" in output
