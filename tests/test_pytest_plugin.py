"""The pytest plugin, each time in a pytest of its own, as its users meet it."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from torch_ref import assignment_twin, verify
from torch_ref.pytest_plugin import summary_lines

pytest_plugins = ["pytester"]

TWINS = """
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


def wrong(values):
    gradients = manual(values)
    return {**gradients, "w": -gradients["w"]}


def lost(values):
    raise RuntimeError("the table is missing")


right_twin = Twin("tanh", inputs, reference, manual)
wrong_twin = Twin("wrong tanh", inputs, reference, wrong)
lost_twin = Twin("lost tanh", inputs, reference, lost)
"""

TESTS = """
import torch
from twins import right_twin, wrong_twin


def test_right(grad_twin):
    report = grad_twin(right_twin)
    assert report.verdict == "agree"


def test_narrow(grad_twin):
    assert grad_twin(right_twin, dtype=torch.float32, cases=50, seed=7).seed == 7


def test_wrong(grad_twin):
    grad_twin(wrong_twin)


def test_without():
    pass
"""


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """All that a check needs, for good: pytester unloads what is imported in a run of its own, and
    torch cannot be loaded twice."""
    verify(assignment_twin(), cases=1)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A user's folder: a module of twins and a test file."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # several interpreters at a time
    pytester.makepyfile(twins=TWINS, test_twins=TESTS)
    return pytester


# Hypothesis's plugin imports itself at the end of each run, which takes longer than the run.
OPTIONS = ("-W", "error", "-p", "no:hypothesispytest", "--twin-cases", "60")


def run(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    """pytest in this process, every warning an error, which takes a tenth of the time."""
    return project.runpytest_inprocess(*OPTIONS, *options)


def run_program(project: pytest.Pytester, *options: str) -> pytest.RunResult:
    """pytest as a program, in which nothing is imported yet."""
    return project.runpytest_subprocess(*OPTIONS, *options)


# the fixture -------------------------------------------------------------------------------------


def test_a_right_twin_passes_and_a_wrong_one_fails_with_the_sentence(
    project: pytest.Pytester,
) -> None:
    result = run(project)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       grad_twin(wrong_twin)",
            "E       AssertionError: The backward pass is wrong (wrong tanh: 60 cases, float64, *",
            "E       Replay it: gradtwin replay 0:* twins.py:wrong_twin --dtype float64 *",
        ]
    )
    assert "torch_ref/" not in result.stdout.str()  # no line of ours in the traceback


def test_the_replay_command_shows_the_failing_case(project: pytest.Pytester) -> None:
    lines = run_program(project).outlines
    (command,) = {line.partition("Replay it: ")[2] for line in lines if "E       Replay" in line}
    arguments = command.split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "torch_ref", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=project.path,
    )
    assert (done.returncode, done.stderr) == (1, "")
    (row,) = [line for line in done.stdout.splitlines() if "dL/dw" in line]
    assert "differ" in row


def test_a_twin_without_a_name_is_replayed_by_its_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_nameless="""
        from dataclasses import replace
        from twins import wrong_twin

        def test_wrong(grad_twin):
            grad_twin(replace(wrong_twin, name="nameless"), seed=3)
        """
    )
    result = run(project, "test_nameless.py")
    again = "pytest 'test_nameless.py::test_wrong[[]cpu[]]' --twin-cases 60 --twin-seed 3 --twin-*"
    result.stdout.fnmatch_lines([f"E       Replay it: {again}"])


def test_the_command_for_a_nameless_twin_is_for_this_folder(project: pytest.Pytester) -> None:
    below = project.mkdir("below")
    below.joinpath("test_nameless.py").write_text(
        "from dataclasses import replace\n"
        "from twins import wrong_twin\n"
        "def test_wrong(grad_twin):\n"
        "    grad_twin(replace(wrong_twin, name='nameless'))\n"
    )
    project.makeini("[pytest]\npythonpath = .")
    os.chdir(below)
    result = run(project, "test_nameless.py")
    result.stdout.fnmatch_lines(["E * Replay it: pytest 'test_nameless.py::test_wrong[[]cpu[]]' *"])


def test_a_twin_in_a_package_is_named_by_its_module(project: pytest.Pytester) -> None:
    project.mkpydir("layers").joinpath("mine.py").write_text(TWINS)
    project.makepyfile(
        test_layers="""
        from layers.mine import wrong_twin as imported

        def test_wrong(grad_twin):
            grad_twin(imported)
        """
    )
    result = run(project, "test_layers.py")
    result.stdout.fnmatch_lines(["E * Replay it: gradtwin replay 0:* layers.mine:wrong_twin *"])


def test_undecided_does_not_pass(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_undecided="""
        from dataclasses import replace
        import torch
        from twins import inputs, right_twin

        def saturated(draw):
            return {name: value * 0 + 100 for name, value in inputs(draw).items()}

        def test_undecided(grad_twin):
            twin = replace(right_twin, inputs=saturated, stress=())
            grad_twin(twin, dtype=torch.float32)
        """
    )
    result = run(project, "test_undecided.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * AssertionError: The backward pass could not be judged *"])
    result.stdout.fnmatch_lines(["tanh  float32  cpu  *  60 cases  undecided"])


def test_what_the_test_gives_comes_before_the_options(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_given="""
        from twins import right_twin

        def test_given(grad_twin):
            report = grad_twin(right_twin, cases=40, seed=5)
            assert (report.cases, report.seed) == (40, 5)

        def test_left_out(grad_twin):
            report = grad_twin(right_twin)
            assert (report.cases, report.seed) == (60, 9)
        """
    )
    run(project, "--twin-seed", "9", "test_given.py").assert_outcomes(passed=2)


def test_a_twin_that_raises_fails_with_its_own_words(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_lost="""
        from twins import lost_twin

        def test_lost(grad_twin):
            grad_twin(lost_twin)
        """
    )
    result = run(project, "test_lost.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>       raise RuntimeError("the table is missing")',
            ">       grad_twin(lost_twin)",
            "E *: lost tanh: manual raised RuntimeError at twins.py:*: the table is missing.",
        ]
    )
    assert "torch_ref/" not in result.stdout.str()  # no line of ours in the traceback


# devices -----------------------------------------------------------------------------------------


def test_a_test_runs_once_on_each_device(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_devices="""
        import pytest
        from twins import right_twin

        def test_by_hand(grad_twin, twin_device):
            assert grad_twin(right_twin, device=twin_device).device == twin_device

        def test_alone(twin_device):
            assert isinstance(twin_device, str)

        @pytest.mark.parametrize("number, twin_device", [(1, "cpu")], indirect=["twin_device"])
        def test_its_own(number, twin_device):
            assert twin_device == "cpu"

        def test_dynamic(request):
            assert request.getfixturevalue("grad_twin")(right_twin).device == "cpu"
        """
    )
    options = ["--twin-device", "cpu", "--twin-device", "cuda", "--twin-device", "cpu"]
    result = run(project, *options, "test_devices.py", "-v", "-rs")
    there = torch.cuda.is_available()
    result.assert_outcomes(passed=6 if there else 4, skipped=0 if there else 2)
    for name in ("test_by_hand", "test_alone"):
        for device in ("cpu", "cuda"):
            result.stdout.fnmatch_lines([f"test_devices.py::{name}[[]{device}[]] *"])
    result.stdout.fnmatch_lines(["gradtwin: *, cpu, cuda, seed 0"])


MISSING = "cuda:99 was asked for, but torch finds *CUDA device* here"


@pytest.mark.parametrize(
    ("options", "outcome", "line"),
    [
        ([], {"skipped": 1}, f"SKIPPED * {MISSING}"),
        (["--twin-strict"], {"errors": 1}, f"{MISSING} (with --twin-strict that is a failure)."),
    ],
)
def test_a_missing_device_skips_or_is_a_failure_where_strict(
    options: list[str], outcome: dict[str, int], line: str, project: pytest.Pytester
) -> None:
    result = run(project, "-rs", "--twin-device", "cuda:99", "-k", "right", *options)
    result.assert_outcomes(deselected=3, **outcome)
    result.stdout.fnmatch_lines([line])


@pytest.mark.parametrize(("options", "outcome"), [([], "skipped"), (["--twin-strict"], "failed")])
def test_a_missing_device_that_the_test_names(
    options: list[str], outcome: str, project: pytest.Pytester
) -> None:
    project.makepyfile(
        test_named="""
        from twins import right_twin

        def test_named(grad_twin):
            grad_twin(right_twin, device="cuda:99")
        """
    )
    run(project, *options, "test_named.py").assert_outcomes(**{outcome: 1})


# options, mark, header ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--twin-device=gpu", "'gpu' is not a device; give cpu, cuda or cuda:N"),
        ("--twin-seed=-1", "'-1': a whole number from 0 to 2^64 - 1 is needed"),
        ("--twin-cases=0", "'0': a whole number of cases, 1 to 1e18, is needed"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    option: str, message: str, project: pytest.Pytester
) -> None:
    result = run(project, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


def test_the_mark_selects_what_uses_the_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_marked="""
        import pytest

        @pytest.mark.twin
        def test_marked():
            pass
        """
    )
    result = run(project, "--strict-markers", "-m", "twin", "--co", "-q")
    names = {line for line in result.outlines if "::" in line}
    assert names == {
        "test_marked.py::test_marked",
        *(f"test_twins.py::test_{name}[cpu]" for name in ("right", "narrow", "wrong")),
    }


def test_the_header_and_the_marks_of_the_plugin(project: pytest.Pytester) -> None:
    run(project, "--twin-seed", "3", "-k", "without").stdout.fnmatch_lines(
        [f"gradtwin: {version('gradtwin')}, cpu, seed 3"]
    )
    run(project, "--markers").stdout.fnmatch_lines(["@pytest.mark.twin: judges a hand-written *"])
    run(project, "--fixtures").stdout.fnmatch_lines(["twin_device *", "grad_twin *"])


def test_help_lists_the_options_and_does_not_import_torch(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            print("with torch" if "torch" in sys.modules else "no torch yet")
        """
    )
    result = run_program(project, "--help")
    assert result.ret == 0
    for option in ("--twin-device=DEVICE", "--twin-seed=SEED", "--twin-cases=", "--twin-strict"):
        result.stdout.fnmatch_lines([f"  {option}*"])
    result.stdout.fnmatch_lines(["no torch yet"])


def test_a_run_without_twins_does_not_import_torch_and_has_no_summary(
    project: pytest.Pytester,
) -> None:
    project.makepyfile(
        test_plain="""
        import sys

        def test_plain():
            assert "torch" not in sys.modules
        """
    )
    result = run_program(project, "test_plain.py")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*worst share*")


# what is reported --------------------------------------------------------------------------------

SUMMARY = [
    "=* gradtwin: worst share of allowed rounding =*",
    "wrong tanh  float64  cpu  *[0-9] x  dL/dw  60 cases  differ",
    "tanh        float*  cpu  *%  *dL/d*  *0 cases  agree",
    "tanh        float*  cpu  *%  *dL/d*  *0 cases  agree",
]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_summary_and_junit_xml_alone_and_from_workers(
    workers: list[str], project: pytest.Pytester
) -> None:
    """One line a checked twin, the worst first; verdict, ratio and replay command of each test."""
    result = run_program(project, "--junitxml=junit.xml", *workers)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(SUMMARY, consecutive=True)
    result.stdout.fnmatch_lines(["tanh *float32*cpu*50 cases*agree"])
    found = properties(project.path / "junit.xml")
    right, wrong = found["test_right[cpu]"], found["test_wrong[cpu]"]
    assert right["gradtwin.tanh.float64.cpu.verdict"] == "agree"
    assert 0 <= float(right["gradtwin.tanh.float64.cpu.worst_ratio"]) < 1
    assert wrong["gradtwin.wrong tanh.float64.cpu.verdict"] == "differ"
    assert wrong["gradtwin.wrong tanh.float64.cpu.quantity"] == "w"
    assert float(wrong["gradtwin.wrong tanh.float64.cpu.worst_ratio"]) > 1e6
    replay = wrong["gradtwin.wrong tanh.float64.cpu.replay"]
    assert replay.startswith("gradtwin replay 0:")
    assert replay.endswith(" twins.py:wrong_twin --dtype float64 --device cpu")
    assert found["test_without"] == {}


@pytest.mark.parametrize("cut", [True, False])
def test_a_long_summary_has_the_worst_and_is_cut_unless_verbose(cut: bool) -> None:
    check = {"twin": "a", "dtype": "float64", "device": "cpu", "quantity": "x", "cases": 1000}
    checks = [check | {"verdict": "agree", "ratio": number / 100} for number in range(1, 24)]
    checks.append(check | {"verdict": "undecided", "ratio": None, "quantity": ""})
    checks.append(check | {"verdict": "differ", "ratio": 2.5e8})
    checks.append(check | {"verdict": "differ", "ratio": None, "quantity": ""})
    lines = summary_lines(checks, cut=cut)
    assert lines[:5] == [
        "a  float64  cpu  2.5e+08 x  dL/dx  1,000 cases  differ",
        "a  float64  cpu  -                 1,000 cases  differ",
        "a  float64  cpu  -                 1,000 cases  undecided",
        "a  float64  cpu  23%        dL/dx  1,000 cases  agree",
        "a  float64  cpu  22%        dL/dx  1,000 cases  agree",
    ]
    assert len(lines) == (21 if cut else 26)
    assert (lines[-1] == "... and 6 that used less of it (all with -v)") == cut


def properties(file: Path) -> dict[str, dict[str, str]]:
    """Each test's properties by name."""
    return {
        case.attrib["name"]: {
            entry.attrib["name"]: entry.attrib["value"] for entry in case.iter("property")
        }
        for case in ElementTree.parse(file).iter("testcase")
    }
