"""The progress bar on long work: there on a terminal, and nowhere else."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

import torch_ref.report
from torch_ref import assignment_twin, verify
from torch_ref.cli import main
from torch_ref.compare.cases import SHARD

CASES = 70_000  # two shards: the bar has steps to show
COMMAND = ["verify", "--cases", str(CASES), "--dtype", "float64"]
BAR = re.compile(r"float64 [━╸╺ ]+ +(\d+)%")
STYLE = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], str]:
    """What the command prints, to a terminal or not, without the colours."""
    monkeypatch.setenv("TERM", "xterm")  # rich moves nothing on a dumb one

    def run(terminal: bool) -> str:
        console = Console(
            file=io.StringIO(), force_terminal=terminal, width=100, legacy_windows=False
        )
        monkeypatch.setattr(torch_ref.report, "report_console", lambda: console)
        assert main(COMMAND) == 0
        return STYLE.sub("", console.file.getvalue())

    return run


def test_a_terminal_shows_how_far_the_work_is(shown: Callable[[bool], str]) -> None:
    output = shown(True)
    steps = [int(share) for share in BAR.findall(output)]
    assert steps, output
    assert steps == sorted(steps)
    assert steps[-1] == 100
    # the bar is gone before the report comes
    assert "agree: every difference is rounding" in output
    assert not BAR.search(output[output.index("assignment, 70,000 cases") :])


def test_what_is_no_terminal_shows_the_report_alone(shown: Callable[[bool], str]) -> None:
    output = shown(False)
    assert not BAR.search(output)
    assert output.startswith("assignment, 70,000 cases, float64, cpu, seed 0")


def test_verify_tells_of_every_shard() -> None:
    told: list[int] = []
    verify(assignment_twin(), cases=CASES, progress=told.append)
    assert told == [SHARD, CASES]
