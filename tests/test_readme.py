"""The README tells the truth: its lines, its commands, its examples, and what they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from as_shown import assert_shown, typed
from test_planted_bugs import broken, run

import torch_ref.assignment
from torch_ref import Twin, assignment_twin
from torch_ref.cli import main
from torch_ref.commands.shared import AGREE, DIFFER

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is run instead of a command that would take minutes or needs a file that its reader has; ""
# where other tests have its parts: the tests themselves, the benchmarks, the measurements.
INSTEAD = {
    "gradtwin --help": "gradtwin --help",
    "python -m torch_ref": "python -m torch_ref --help",
    "gradtwin audit": "gradtwin audit",
    "gradtwin new mine": "gradtwin new mine",
    "gradtwin verify mine.py": "gradtwin new mine && gradtwin verify mine.py --cases 20",
    "gradtwin replay 0:65846": "gradtwin replay 0:65846",
    "gradtwin verify --report page.html": "gradtwin verify --report page.html --cases 500",
    "gradtwin sweep --cases 1e9 --ledger DIR": "gradtwin sweep --cases 1e3 --ledger DIR",
    "gradtwin experiment volatility": "gradtwin experiment volatility --restarts 1 --steps 1",
    "gradtwin selftest": "gradtwin selftest --help",
    "gradtwin bench": "gradtwin bench --help",
    "pytest -m slow": "",
    "pytest bench --benchmark-only": "",
    "pytest tests/test_functions.py -rP": "",
    "python bench/exhaustive.py LEDGER": "",
    "python bench/false_alarms.py": "",
    "python bench/overhead.py": "",
    "python bench/power.py": "",
    "python bench/verify_rate.py": "",
    "python bench/detection_curve.py": "",
}
COMMANDS = sorted(set(re.findall(r"`((?:gradtwin|python|pytest) [^`]*)`", README)))


def test_the_set_up_lines_are_those_of_ci() -> None:
    first, second = re.findall(r"^    (python3 -m venv .*)$", README, flags=re.MULTILINE)
    assert first.endswith("-e . && .venv/bin/gradtwin verify")
    assert second in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command: str, tmp_path: Path) -> None:
    instead = INSTEAD[command]
    if instead:
        output = typed(f"{instead} && echo it ran", tmp_path)
        assert output.endswith("it ran\n"), output


def test_the_table_is_what_verify_prints(tmp_path: Path) -> None:
    shown = README.partition("```text\n")[2].partition("```")[0]
    assert_shown(shown, typed("gradtwin verify --dtype float64", tmp_path))


def test_the_planted_sign_error_is_told_as_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (right, wrong) = ("dw46 = dz6 * x4", "dw46 = -dz6 * x4")
    assert wrong in README
    names = broken("_backward", right, wrong)
    network = assignment_twin()
    twin = Twin(
        network.name,
        network.inputs,
        network.reference,
        lambda values: run(names, values),
        strata=network.strata,
    )
    monkeypatch.setattr(torch_ref.assignment, "assignment_twin", lambda: twin)
    assert main(["verify", "--dtype", "float64", "--cases", "3000"]) == DIFFER
    shown = re.findall(r"^    (differ: .*(?:\n    .*)*)", README, flags=re.MULTILINE)
    assert len(shown) == 1
    assert_shown("...\n" + shown[0], capsys.readouterr().out)
    monkeypatch.undo()
    assert main(["verify", "--dtype", "float64", "--cases", "3000"]) == AGREE


def test_the_examples_run() -> None:
    """The blocks marked python, one after the other."""
    blocks = README.split("```python\n")[1:]
    code = "\n".join(block.partition("```")[0] for block in blocks)
    command = [sys.executable, "-W", "error", "-c", code]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=one_thread, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
