"""`gradtwin experiment` as its users meet it: output, files, messages, and the network's forms."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from jsonschema import Draft202012Validator
from rich.console import Console
from torch import Tensor, nn

from torch_ref import AssignmentNet
from torch_ref.cli import main
from torch_ref.commands import experiment
from torch_ref.experiments import sp500, volatility
from torch_ref.experiments.export import ONNX, Copy, compared, copies, onnx_bytes, run_onnx
from torch_ref.experiments.run import Result
from torch_ref.experiments.ways import Pair
from torch_ref.report import SCHEMA

QUICK = ["experiment", "volatility", "--restarts", "1", "--steps", "1"]


@pytest.fixture(scope="module")
def chosen() -> Result:
    """The experiment as it was chosen before the test years were looked at."""
    return volatility(sp500())


# what comes out ----------------------------------------------------------------------------------


def test_the_network_ranks_where_it_is_said_to(chosen: Result) -> None:
    """Below GARCH(1,1), a little above GJR-GARCH: what came of the one look at the test years."""
    found = {row.name: row for row in chosen.ranking}
    assert list(found)[:3] == ["GJR-GARCH(1,1)", "AssignmentNet", "GARCH(1,1)"]
    assert found["AssignmentNet"].qlike == pytest.approx(1.6988, abs=1e-3)
    assert found["GARCH(1,1)"].statistic == pytest.approx(-1.84, abs=0.05)
    assert found["GARCH(1,1)"].p == pytest.approx(0.066, abs=0.01)


def test_the_command_prints_and_stores_the_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "out.json"
    assert main([*QUICK, "--json", str(stored)]) == 0
    output = capsys.readouterr().out
    assert "3,772 to 2013-12-31 to learn from, 1,258 to 2018-12-31 as test" in output
    assert "return zero: 2003-01-10, 2008-01-03, 2017-01-10" in output
    assert "lbfgs, 1 times 1 steps on all days, seed 0: not what was chosen" in output
    rows = [line.split() for line in output.splitlines() if line.startswith(" GARCH(1,1)")]
    assert rows[0][1] == "1.7408"
    sentence = "AssignmentNet's mean loss is lower than GARCH(1,1)'s; the difference"
    assert sentence in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 100
    found = json.loads(stored.read_text())
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)
    assert found["format"] == "gradtwin experiment 1"
    assert (found["chosen_before"], found["ways"], found["forms"]) == (False, [], [])
    assert len(found["parameters"]) == 11


def test_what_was_chosen_is_said_to_be(chosen: Result, capsys: pytest.CaptureFixture[str]) -> None:
    from torch_ref.experiments.table import print_ranking
    from torch_ref.report import report_console

    print_ranking(chosen, "AssignmentNet", "GARCH(1,1)", report_console())
    output = capsys.readouterr().out
    assert "seed 0: as chosen before the test (protocol.py)" in output
    assert "the difference could be chance (p = 0.0" in output


def test_nothing_is_cut_off_in_80_columns() -> None:
    from torch_ref.experiments.table import print_copies, print_ways
    from torch_ref.experiments.ways import HAND, RANKS

    console = Console(width=80, file=io.StringIO())
    print_ways([Pair(HAND, RANKS, 2.2e-16, 7.5e-14, 1234.5)], 200, console)
    print_copies([Copy(ONNX, 7e-15, 0.14)], console)
    output = console.file.getvalue()
    assert max(map(len, output.splitlines())) <= 80
    assert "…" not in output
    assert "by hand DDP, 2 gloo ranks 2.2e-16 7.5e-14 123450% differ" in " ".join(output.split())


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_other_optimizers(optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK[:-1], "30", "--optimizer", optimizer, "--seed", "4"]) == 0
    assert f"{optimizer}, 1 times 30 steps on " in capsys.readouterr().out


def test_a_run_is_kept_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "run")
    assert main([*QUICK, "--checkpoint", file]) == 0
    first = capsys.readouterr().out
    assert main([*QUICK, "--checkpoint", file, "--resume"]) == 0
    assert capsys.readouterr().out == first
    assert main([*QUICK, "--checkpoint", file, "--resume", "--seed", "1"]) == 2
    said = capsys.readouterr().err
    assert f"{file} is a checkpoint of another run: seed is 0 there and 1 here." in said
    assert main([*QUICK, "--checkpoint", file]) == 2
    assert "is there already: go on from it with --resume" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_plot(chosen: Result, ending: str, tmp_path: Path) -> None:
    from torch_ref.experiments.plot import plot

    file = tmp_path / f"plot.{ending}"
    plot(chosen, file)
    content = file.read_bytes()
    assert content.startswith(b"<?xml" if ending == "svg" else b"\x89PNG")
    assert len(content) < 300_000


def test_ways_that_differ_are_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pairs(given: object) -> list[Pair]:
        return [Pair("by hand", "autograd", 1e-3, 1e-14, 1e11)]

    monkeypatch.setattr("torch_ref.experiments.ways.three_ways", pairs)
    assert main([*QUICK, "--ways"]) == 1
    assert "differ" in capsys.readouterr().out


# what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume goes on from a file: name it with --checkpoint FILE."),
        (["--plot", "plot.txt"], "plot.txt: give a plot's file an ending, .svg or .png."),
        (["--json", "no/such/folder"], "no/such/folder cannot be written"),
        (["--checkpoint", "no/such/folder"], "no/such/folder cannot be written"),
        (["--onnx", "/dev/null"], "/dev/null is no regular file: give another name."),
        (["--json", "a", "--onnx", "./a"], "two of the files to be written are the same"),
        (["--checkpoint", "none", "--resume"], "there is no checkpoint none to resume from"),
        (["--restarts", "1e6", "--steps", "1e6"], "more than 10000000 in all: give fewer"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, *options]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment", "weather"], "invalid choice: 'weather'"),
        (["experiment", "volatility", "--steps", "0"], "'0': a whole number from 1 to 1e7"),
        (["experiment", "volatility", "--seed", "-1"], "'-1': a whole number from 0 to 2^64 - 1"),
        (["experiment", "volatility", "--optimizer", "lion"], "invalid choice: 'lion'"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("arch", [], "experiments"),
        ("safetensors", ["--ways"], "experiments"),
        ("matplotlib", ["--plot", "a.svg"], "experiments"),
        ("onnxscript", ["--onnx", "a.onnx"], "onnx"),
    ],
)
def test_a_missing_extra_is_named(
    package: str,
    options: list[str],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    there = experiment.find_spec
    monkeypatch.setattr(
        experiment, "find_spec", lambda name: None if name == package else there(name)
    )
    assert main([*QUICK, *options]) == 2
    wanted = f"needs {package}, which is not installed: pip install 'gradtwin[{extra}]'."
    assert wanted in capsys.readouterr().err


def test_a_run_that_diverges_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch_ref.experiments as package

    wild = {"lbfgs": replace(package.RECIPES["sgd"], learning_rate=1e308)}
    monkeypatch.setattr(package, "RECIPES", wild)
    assert main([*QUICK[:-1], "3"]) == 2
    assert "no restart of 1 ended with a finite loss: give another" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main([*QUICK, "--checkpoint", str(tmp_path / "run")]) == 2
    assert "run cannot be written" in capsys.readouterr().err


def test_help_needs_neither_torch_nor_arch() -> None:
    code = (
        "import sys\nfrom torch_ref.cli import main\n"
        "try: main(['experiment', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'arch', 'rich', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# the network in other forms ----------------------------------------------------------------------


def inputs(samples: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 2, generator=generator, dtype=torch.float64)


def test_every_form_gives_what_the_module_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also on batches of other sizes, and the file is one that onnx accepts."""
    file, stored = tmp_path / "net.onnx", tmp_path / "out.json"
    assert main([*QUICK, "--onnx", str(file), "--json", str(stored)]) == 0
    output = capsys.readouterr().out
    names = ["torch.export", "torch.compile", "ONNX, onnxruntime"]
    assert all(f" {name} " in output for name in names)
    found = json.loads(stored.read_text())
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)
    assert [(form["name"], form["agrees"]) for form in found["forms"]] == [
        (name, True) for name in names
    ]
    onnx.checker.check_model(onnx.load_from_string(file.read_bytes()), full_check=True)
    net = AssignmentNet(dtype=torch.float64)
    net.load_state_dict(
        {n: torch.tensor(v, dtype=torch.float64) for n, v in found["parameters"].items()}
    )
    for samples in (1, 7):
        x = inputs(samples)
        (copy,) = compared(net, x, {ONNX: run_onnx(file.read_bytes(), x)})
        assert copy.agrees


def test_a_form_that_computes_something_else_is_seen() -> None:
    torch.manual_seed(0)
    net, other = AssignmentNet(dtype=torch.float64), AssignmentNet(dtype=torch.float64)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other.w34.mul_(1 + 1e-12)
    x = inputs()
    found = {copy.name: copy.agrees for copy in copies(net, x, onnx_bytes(other, x))}
    assert found == {"torch.export": True, "torch.compile": True, ONNX: False}


def test_onnxruntimes_sigmoid_is_granted_to_it_alone() -> None:
    """At z3 = -16 it has lost half of its digits, which is no mistake of the export."""
    net = AssignmentNet(dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.0)
        net.b3.fill_(-16.0)
        net.w36.fill_(1.0)
    x = inputs()
    output = run_onnx(onnx_bytes(net, x), x)
    granted, refused = compared(net, x, {ONNX: output, "torch.compile": output})
    assert granted.difference > 1e-10
    assert granted.agrees
    assert not refused.agrees


def test_no_number_is_no_agreement() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, 0] / 2

    x = inputs()
    wrong: dict[str, Any] = {"nan": torch.full((50,), torch.nan, dtype=torch.float64)}
    assert [copy.agrees for copy in compared(Half(), x, wrong)] == [False]
