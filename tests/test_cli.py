"""The command as its users meet it: output, exit codes, files, and what it refuses."""

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import manual_bp
import torch_ref.assignment
from torch_ref.assignment import assignment_twin
from torch_ref.cli import main

ORDER = "x6 z6 w36 w46 w56 b6 x5 z5 w35 b5 x4 z4 w34 b4 x3 z3 w13 w23 b3 x1 x2"
BACKWARD = ORDER.split()


def wrong_twin():
    """The assignment's twin with a sign error in dL/dw46."""
    twin = assignment_twin()

    def manual(values):
        gradients = twin.manual(values)
        return {**gradients, "w46": -gradients["w46"]}

    return replace(twin, manual=manual)


def undecided_twin():
    """A twin that is only ever asked where float32 has lost every digit."""
    twin = assignment_twin()

    def inputs(draw):
        values = twin.inputs(replace(draw, stratum="saturated"))
        return {**values, "b3": torch.full_like(values["b3"], -200.0)}  # sigma' < 1e-80

    return replace(twin, inputs=inputs, stress=())


# verify ------------------------------------------------------------------------------------------


def test_verify_prints_one_row_a_gradient(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--cases", "600"]) == 0
    output = capsys.readouterr().out
    for dtype in ("float64", "float32"):
        start = output.index(f"assignment, 600 cases, {dtype}, cpu, seed 0")
        rows = [line.split() for line in output[start:].splitlines() if "dL/d" in line][:21]
        assert [row[0] for row in rows] == [f"dL/d{name}" for name in BACKWARD]
        assert all(row[1] == "agree" for row in rows)
        assert all(row[-1].startswith("0:") for row in rows)
    assert output.count("agree: every difference is rounding") == 2
    assert "…" not in output


def test_every_dtype_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--cases", "6000", "--dtype", "bfloat16,float16"]) == 0
    assert "bfloat16" in capsys.readouterr().out


def test_device_auto_takes_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--cases", "60", "--device", "auto", "--dtype", "float64"]) == 0
    there = "cuda" if torch.cuda.is_available() else "cpu"
    assert f"60 cases, float64, {there}, seed 0" in capsys.readouterr().out


def test_differ_is_exit_code_1_and_says_how_to_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch_ref.assignment, "assignment_twin", wrong_twin)
    assert main(["verify", "--cases", "60", "--dtype", "float64"]) == 1
    output = capsys.readouterr().out
    assert "differ: The mistake enters at dL/dw46: nothing before it in backward" in output
    command = output[output.index("gradtwin replay") :].split()[1:5]
    assert main(command) == 1
    replayed = capsys.readouterr().out
    (row,) = [line for line in replayed.splitlines() if "dL/dw46" in line]
    assert row.split()[-1] == "differ"


def test_undecided_is_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch_ref.assignment, "assignment_twin", undecided_twin)
    assert main(["verify", "--cases", "60", "--dtype", "float32"]) == 3
    sentence = "undecided: of some quantity too little can be judged"
    assert sentence in capsys.readouterr().out


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        options = ["--cases", "60", "--seed", seed, "--json", str(tmp_path / name)]
        assert main(["verify", *options]) == 0
    first, second, other = ((tmp_path / name).read_text() for name in "abc")
    assert first == second != other


def test_json_holds_the_reports(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert main(["verify", "--cases", "60", "--json", str(file)]) == 0
    reports = json.loads(file.read_text())["reports"]
    assert [report["dtype"] for report in reports] == ["float64", "float32"]
    for report in reports:
        assert report["verdict"] == "agree"
        assert report["cases"] == 60
        assert [row["name"] for row in report["rows"]] == BACKWARD
    assert os.listdir(tmp_path) == ["report.json"]  # no temporary file is left


def test_json_has_no_nan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    twin = assignment_twin()

    def manual(values):
        gradients = twin.manual(values)
        return {**gradients, "b6": gradients["b6"] * float("nan")}

    broken = replace(twin, manual=manual)
    monkeypatch.setattr(torch_ref.assignment, "assignment_twin", lambda: broken)
    file = tmp_path / "report.json"
    assert main(["verify", "--cases", "60", "--json", str(file)]) == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report = json.loads(file.read_text(), parse_constant=refuse)["reports"][0]
    row = next(row for row in report["rows"] if row["name"] == "b6")
    assert (row["manual"], row["worst_ratio"]) == ("nan", "inf")


def test_a_file_that_could_not_be_finished_leaves_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "report.json"
    file.write_text("old")
    monkeypatch.setattr(os, "replace", full)
    assert main(["verify", "--cases", "6", "--json", str(file)]) == 2
    assert "could not be written: No space left on device." in capsys.readouterr().err
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


# a twin of the user's ----------------------------------------------------------------------------

USERS = """
import torch
from torch_ref import Twin

def inputs(draw):
    return {"x": draw.normal(), "w": draw.uniform(0.5, 2.0)}

def reference(values):
    y = torch.tanh(values["w"] * values["x"])
    return {"y": y, "loss": y**2}

def manual(values):
    y = torch.tanh(values["w"] * values["x"])
    dy = 2 * y
    return {"y": dy, "w": dy * (1 - y * y) * values["x"]}

def broken(values):
    return {**manual(values), "w": -manual(values)["w"]}

def interrupted(values):
    raise KeyboardInterrupt

def leaving(values):
    raise SystemExit(0)

def raising(values):
    return {"y": values["y"]}

right = Twin("tanh", inputs, reference, manual)
wrong = Twin("wrong tanh", inputs, reference, broken)
stopped = Twin("stopped", inputs, reference, interrupted)
left = Twin("left", inputs, reference, leaving)
bad_inputs = Twin("bad inputs", raising, reference, manual)
bad_reference = Twin("bad reference", inputs, raising, manual)
bad_manual = Twin("bad manual", inputs, reference, raising)
"""


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a file of twins, mine.py; its modules are forgotten afterwards, and
    other tests' of that name before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "mine.py").write_text(USERS)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("address", ["mine.py:right", "mine:right"])
def test_verify_a_file_or_a_module(
    address: str, users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--cases", "60", "--dtype", "float32", "--json", "report.json"]
    assert main(["verify", address, *options]) == 0
    assert "tanh, 60 cases, float32, cpu, seed 0" in capsys.readouterr().out
    (report,) = json.loads((users / "report.json").read_text())["reports"]
    assert (report["twin"], [row["name"] for row in report["rows"]]) == ("tanh", ["y", "w"])


def test_a_wrong_twin_and_its_replay(users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "mine.py:wrong", "--cases", "60", "--dtype", "float64"]) == 1
    assert "differ" in capsys.readouterr().out
    assert main(["replay", "0:0", "mine.py:wrong"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "wrong tanh, case 0:0 (ordinary), float64"
    (row,) = [line for line in lines if "dL/dw" in line]
    assert row.split()[-1] == "differ"


def test_all_twins_of_a_file(users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (users / "two.py").write_text("from mine import right, wrong\n")
    options = ["--cases", "60", "--dtype", "float64,float32"]
    assert main(["verify", "two.py", *options, "--json", "report.json"]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1].strip() == "2 twins: right agree, wrong differ."
    assert "two.py:wrong" in out  # in the command that replays its case
    reports = json.loads((users / "report.json").read_text())["reports"]
    assert [(report["twin"], report["dtype"]) for report in reports] == [
        ("tanh", "float64"), ("tanh", "float32"),
        ("wrong tanh", "float64"), ("wrong tanh", "float32"),
    ]  # fmt: skip
    (users / "three.py").write_text("from mine import bad_reference, right, wrong\n")
    assert main(["verify", "three.py", *options, "--json", "report.json"]) == 1
    last = capsys.readouterr().out.splitlines()[-1].strip()
    assert last == "3 twins: bad_reference not judged, right agree, wrong differ."
    assert len(json.loads((users / "report.json").read_text())["reports"]) == 4
    (users / "three.py").write_text("from mine import bad_reference, right\n")
    assert main(["verify", "three.py", *options]) == 2
    capsys.readouterr()
    assert main(["verify", "two.py", "--report", "page.html"]) == 2
    assert capsys.readouterr().err.strip() == (
        "gradtwin: --report writes a page on one twin, and two.py has 2: say which one, for "
        "example two.py:right."
    )
    assert main(["sweep", "two.py", "--cases", "60", "--ledger", "ledger"]) == 2
    assert "two.py has 2 twins (right, wrong): say which one" in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130(users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "mine.py:stopped", "--cases", "60"]) == 130
    assert capsys.readouterr().err.strip() == "gradtwin: stopped"


@pytest.mark.parametrize("command", [["verify"], ["replay", "0:1"]])
def test_a_twin_that_ends_the_program_does_not_pass(
    command: list[str], users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "mine.py:left"]) == 2
    message = "gradtwin: the twin's own code ended the program (SystemExit: 0): its functions must "
    assert capsys.readouterr().err.strip() == message + "return their tensors."


def test_a_fault_of_its_own_is_not_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def faulty() -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr(torch_ref.assignment, "assignment_twin", faulty)
    assert main(["verify"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "AttributeError: no such thing"
    assert lines[-1] == "gradtwin: this is a fault of gradtwin's own: please report it."


@pytest.mark.parametrize("command", [["verify"], ["replay", "0:1"]])
@pytest.mark.parametrize("which", ["inputs", "reference", "manual"])
def test_a_function_that_raises_is_one_sentence_with_its_line(
    which: str, command: list[str], users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, f"mine.py:bad_{which}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("gradtwin: ")
    assert message.count("\n") == 1
    line = 1 + USERS.splitlines().index('    return {"y": values["y"]}')
    assert f"{which} raised " in message
    assert f"Error at mine.py:{line}: " in message


@pytest.mark.parametrize("command", [["verify"], ["replay", "0:1"]])
def test_a_twin_that_is_not_there(
    command: list[str], users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "mine.py:twin"]) == 2
    names = "right, wrong, stopped, left, bad_inputs, bad_reference, bad_manual"
    message = f"gradtwin: mine.py has no twin twin; the twins there are {names}."
    assert capsys.readouterr().err.strip() == message


# new ---------------------------------------------------------------------------------------------


def test_new_writes_a_file_that_agrees_at_once(
    users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "my_layer"]) == 0
    message = "my_layer.py is written; judge it with: gradtwin verify my_layer.py"
    assert capsys.readouterr().out.strip() == message
    assert "template" not in (users / "my_layer.py").read_text()
    assert main(["verify", "my_layer.py"]) == 0
    output = capsys.readouterr().out
    assert "my_layer, 100 cases, float64, cpu, seed 0" in output
    assert output.count("agree: every difference is rounding") == 2
    for name in ("y", "z", "w", "b", "x", "target"):
        assert f"dL/d{name} " in output


def test_each_line_of_the_starting_file_is_judged(
    users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake in any gradient of it is found, and found there."""
    main(["new", "layer"])
    text = (users / "layer.py").read_text()
    for line, name in {
        "dy = 2 * (y - target)": "y",
        "dz = dy * (1 - y * y)": "z",
        "dw = x.T @ dz": "w",
        "db = dz.sum(0)": "b",
        "dx = dz @ w.T": "x",
    }.items():
        assert text.count(line) == 1
        (users / "layer.py").write_text(text.replace(line, f"{line} * 1.001"))
        assert main(["verify", "layer.py", "--cases", "8", "--dtype", "float64"]) == 1
        output = capsys.readouterr().out
        assert re.search(rf"differ: (The mistake enters|Mistakes enter) at dL/d{name}\b", output)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "mine.py is there already, and is left as it is."),
        ("mine.py", "'mine.py' is no Python name: letters, digits and underscores are needed, "),
        ("2nd", "'2nd' is no Python name"),
        ("class", "'class' is no Python name"),
        ("a/b", "'a/b' is no Python name"),
        ("", "'' is no Python name"),
        ("torch", "torch is the name of an installed module: choose another one."),
        ("random", "random is the name of an installed module"),
    ],
)
def test_new_refuses(
    name: str, message: str, users: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", name]) == 2
    assert capsys.readouterr().err.startswith(f"gradtwin: {message}")
    assert os.listdir(users) == ["mine.py"]
    assert (users / "mine.py").read_text() == USERS


def test_new_leaves_no_part_of_a_file(
    users: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    usual = Path.open

    def open_full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name != "layer.py":
            return usual(path, *arguments, **options)
        path.touch(exist_ok=False)
        return Full()

    monkeypatch.setattr(Path, "open", open_full)
    assert main(["new", "layer"]) == 2
    message = "gradtwin: layer.py cannot be written: No space left on device."
    assert capsys.readouterr().err.strip() == message
    assert os.listdir(users) == ["mine.py"]


# replay ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "code"), [("float64", 0), ("float32", 3)])
def test_replay_shows_every_value_and_gradient(
    dtype: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In float32 this t lies too near to z6^2 for any digit to be left: undecided."""
    assert main(["replay", "0:65551", "--dtype", dtype]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == f"assignment, case 0:65551 (t near z6^2), {dtype}"
    names = [line.split()[0] for line in lines[2:] if line.strip()]
    assert names[-21:] == [f"dL/d{name}" for name in BACKWARD]
    assert set(manual_bp.VALUES) | set(manual_bp.PARAMETERS) <= set(names)
    assert names.index("z3") < names.index("x3") < names.index("z6") < names.index("loss")


def test_replay_meets_the_case_that_verify_met(tmp_path: Path) -> None:
    from torch_ref.compare import replay

    file = tmp_path / "report.json"
    assert main(["verify", "--cases", "40000", "--dtype", "float32", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["reports"][0]["rows"]
    row = max(rows, key=lambda row: row["worst_ratio"])
    seed, index = (int(part) for part in row["worst_case"].split(":"))
    twin = assignment_twin()
    lines = {line.name: line for line in replay(twin, seed, index, dtype=torch.float32)}
    line = lines[f"dL/d{row['name']}"]
    assert line.reference == row["reference"]
    assert line.manual == pytest.approx(row["manual"], rel=1e-6)  # vector lanes may round apart


# what is refused ---------------------------------------------------------------------------------

REFUSED = {
    "no cases": (["verify", "--cases", "0"], "'0': a whole number of cases, 1 to 1e18, is needed"),
    "negative": (["verify", "--cases=-5"], "'-5': a whole number of cases, 1 to 1e18, is needed"),
    "no number": (["verify", "--cases", "many"], "a whole number of cases, 1 to 1e18, is needed"),
    "dtype": (["verify", "--dtype", "float64,double"], "'double' is not a dtype; give one or sev"),
    "integer dtype": (["verify", "--dtype", "int32"], "'int32' is not a dtype"),
    "device": (
        ["verify", "--device", "gpu"],
        "'gpu' is not a device; give cpu, cuda or cuda:N, or auto",
    ),
    "seed": (["verify", "--seed", "-1"], "'-1': a whole number from 0 to 2^64 - 1 is needed"),
    "case": (["replay", "17"], "'17': SEED:INDEX is needed, for example 0:17"),
    "case beyond all": (["replay", f"0:{2**64}"], "a whole number from 0 to 2^64 - 1 is needed"),
    "threads": (["bench", "--threads", "99999999999"], "a whole number of threads, 1 to 4096, is"),
    "case of letters": (["replay", "a:b"], "'a:b': SEED:INDEX is needed, for example 0:17"),
    "no command": ([], "the following arguments are required: COMMAND"),
    "command": (["check"], "invalid choice: 'check'"),
    "option": (["verify", "--tolerance", "1"], "unrecognized arguments: --tolerance"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_bad_usage_is_exit_code_2(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = REFUSED[which]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("command", [["verify"], ["replay", "0:1"]])
def test_cuda_where_there_is_none(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--device", "cuda"]) == 2
    message = "gradtwin: cuda was asked for, but torch finds no CUDA device here; use --device cpu."
    assert capsys.readouterr().err.strip() == message


@pytest.mark.parametrize("place", ["missing/report.json", "."])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--json", str(tmp_path / place)]) == 2
    message = capsys.readouterr().err
    assert "cannot be written: give a file in a folder that exists and is yours." in message


def test_two_files_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "bench.svg")
    for command in (["bench", "--quick", "--plot"], ["verify", "--report"]):
        assert main([*command, place, "--json", place]) == 2
        assert "two of the files to be written are the same" in capsys.readouterr().err


def test_source_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine.py"
    source.write_text("twin = None")
    for option in ("--json", "--report"):
        assert main(["verify", option, str(source)]) == 2
        assert f"{source} would be overwritten: give a name that is no" in capsys.readouterr().err
    assert source.read_text() == "twin = None"


def test_json_to_what_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cases", "6", "--dtype", "float64"]
    assert main(["verify", *options, "--json", os.devnull]) == 0
    assert capsys.readouterr().err == ""


def test_a_seed_too_large_for_a_case(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["replay", f"{2**64}:1"])
    assert "a whole number from 0 to 2^64 - 1 is needed" in capsys.readouterr().err
