"""The self-test of power is itself tested: its mutants, its judge, and above all its proofs."""

import inspect
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from documented import check
from rich.console import Console
from sympy import Rational, Symbol

import torch_ref.selftest
from manual_bp import functions, network
from torch_ref.cli import main
from torch_ref.report import print_selftest
from torch_ref.selftest import SelftestResult, mutate, run_selftest
from torch_ref.selftest.judge import judge
from torch_ref.selftest.mutate import MUTATED, Mutant, _mutations, mutants, original
from torch_ref.selftest.operators import (
    DropFactor,
    DropTerm,
    FlipSign,
    Operator,
    SwapFunction,
    SwapName,
)
from torch_ref.selftest.prove import EQUAL, EVERY_SHAPE, WITHIN_ROUNDING, prove
from torch_ref.selftest.run import become
from torch_ref.selftest.symbolic import Cell, Formula, Run, SplitError, UnprovableError, all_runs

EVERY = 13  # mutants: the others are left to `gradtwin selftest`
CASES = 1_200


def changed(function: str, before: str, after: str) -> Mutant:
    """A mutant of our own choice."""
    source = original(function).source
    assert source.count(before) == 1, f"{before!r} is no longer a part of {function}"
    return Mutant(function, "ours", 0, before, after, source.replace(before, after))


# the mutants --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_mutants() -> list[Mutant]:
    return mutants()


def test_each_mutant_is_another_program(all_mutants: list[Mutant]) -> None:
    assert len({mutant.source for mutant in all_mutants}) == len(all_mutants) > 1_000
    for mutant in all_mutants:
        assert mutant.source != original(mutant.function).source
        assert mutant.before != mutant.after
        compile(mutant.source, "mutant", "exec")


def test_every_function_and_every_kind_of_change_is_there(all_mutants: list[Mutant]) -> None:
    assert {mutant.function for mutant in all_mutants} == set(MUTATED)
    kinds = Counter(mutant.operator.partition("_")[0] for mutant in all_mutants)
    assert kinds.keys() >= {
        "ReplaceBinaryOperator", "ReplaceComparisonOperator", "ReplaceUnaryOperator",
        "NumberReplacer", "ZeroIterationForLoop", "DropTerm", "DropFactor", "FlipSign", "SwapName",
        "SwapFunction",
    }  # fmt: skip
    afters = {(mutant.function, mutant.after) for mutant in all_mutants}
    assert afters >= {
        ("_backward", "dx4 = dz6 * w36"),
        ("_backward", "dw35 = dx5 * x3"),
        ("_backward", "dx3 = dz6 * w36 + dz4 * w34"),
        ("_backward", "dz3 = dx3 * sigmoid(z3)"),
        ("_backward", "dw46 = -(dz6 * x4)"),
        ("square_derivative", "return 3 * z"),
        ("itakura_saito_derivative", "return (t - t) / x / x"),
        ("sigmoid", "return xp.where(z >= 0, 1 / (1 - decay), decay / (1 + decay))"),
    }


def test_a_mutant_is_run_in_memory_only() -> None:
    mutant = changed("square_derivative", "2 * z", "3 * z")
    before = inspect.getsource(functions)
    names = mutant.namespace()
    assert names["square_derivative"](2.0) == 6.0
    assert names["_backward"].__globals__["square_derivative"](2.0) == 6.0
    assert functions.square_derivative(2.0) == network.square_derivative(2.0) == 4.0
    assert inspect.getsource(functions) == before == Path(str(functions.__file__)).read_text()


@pytest.mark.parametrize(
    ("operator", "line", "expected"),
    [
        (DropTerm(), "y = a - b + c", ["y = - b + c", "y = a + c", "y = a - b"]),
        (DropTerm(), "y = a + b", ["y = b", "y = a"]),
        (DropTerm(), "y = a * b", []),
        (DropFactor(), "y = a * b / c", ["y = b / c", "y = a / c", "y = a * b"]),
        (DropFactor(), "y = a / b", ["y = 1 / b", "y = a"]),
        (DropFactor(), "y = 1 / (a)", ["y = 1"]),
        (DropFactor(), "y = a + b", []),
        (FlipSign(), "y = a + b", ["y = -(a + b)"]),
        (FlipSign(), "y = xp.exp(a)", ["y = -(xp.exp(a))"]),
        (FlipSign(), "y = a < b", []),
        (FlipSign(), "y, x = a, b", []),
        (SwapName(), "y = x3 * w34", ["y = x4 * w34", "y = z3 * w34", "y = x3 * w46"]),
        (SwapName(), "y = f(x3=dz5)", ["y = f(x3=dz4)", "y = f(x3=dx5)"]),
        (SwapName(), "y = x", ["y = t", "y = a"]),
        (SwapName(), "y = t.x3", []),
        (SwapName(), "x3 = y", []),
        (SwapFunction(), "y = square(a)", [
            "y = sigmoid(a)", "y = sigmoid_derivative(a)", "y = square_derivative(a)"]),
        (SwapFunction(), "y = itakura_saito(a, b)", ["y = itakura_saito_derivative(a, b)"]),
    ],
)  # fmt: skip
def test_the_operators_of_this_domain(operator: Operator, line: str, expected: list[str]) -> None:
    head = "def f(x, t, a, x3, x4, z3, w34, w46, dz4, dz5, dx5):\n    "
    tail = "\n    x5 = 1\n"  # known only later
    found = list(_mutations(head + line + tail, operator))
    assert found == [head + text + tail for text in expected]


# what becomes of them -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result() -> SelftestResult:
    done: list[tuple[int, int]] = []
    found = run_selftest(cases=CASES, every=EVERY, progress=lambda *progress: done.append(progress))
    of = len(MUTATED) + len(found.rows)
    assert done == [(number, of) for number in range(1, of + 1)]
    return found


def test_every_mutant_is_caught_or_proved_equivalent(
    result: SelftestResult, all_mutants: list[Mutant]
) -> None:
    assert result.with_verdict("survived") == ()
    assert result.false_alarms == ()
    assert result.ok
    chosen = all_mutants[::EVERY]
    assert [(row.function, row.after) for row in result.rows] == [
        (mutant.function, mutant.after) for mutant in chosen
    ]


def test_the_mutated_line_of_the_backward_pass_is_named(result: SelftestResult) -> None:
    right, of = result.named
    assert right == of > 20


def test_the_counts_are_consistent(result: SelftestResult) -> None:
    told = result.to_dict()
    assert sum(told["counts"].values()) == len(told["rows"])
    for verdict in ("caught", "equivalent"):
        assert sum(told["reasons"][verdict].values()) == told["counts"][verdict] > 0
    assert set(told["reasons"]["equivalent"]) <= {EQUAL, WITHIN_ROUNDING, EVERY_SHAPE}
    for row in result.rows:
        assert (row.twin is not None) == (row.verdict == "caught")
        assert bool(row.reason) == (row.verdict != "survived")
    assert json.loads(json.dumps(told)) == told | {
        "rows": list(told["rows"]), "false_alarms": list(told["false_alarms"])
    }  # fmt: skip


@pytest.mark.parametrize("function", MUTATED)
def test_the_functions_as_they_are_are_not_caught(function: str) -> None:
    assert judge(original(function), CASES) is None


@pytest.mark.parametrize(
    ("mutant", "twin", "first_wrong"),
    [
        (("_backward", "dw46 = dz6 * x4", "dw46 = dz6 * x5"), "assignment", "w46"),
        (("_forward", "x4 = sigmoid(z4)", "x4 = sigmoid(z3)"), "assignment", "x6"),
        (("_loss", "itakura_saito(x6, t)", "itakura_saito(t, x6)"), "values", "weight_loss"),
        (("_itakura_saito_double", "2 * d - xp", "3 * d - xp"), "functions",
         "weight_itakura_saito"),
        # where t/x is subnormal, and nowhere else
        (("_itakura_saito_far", "xp.log(2 * xp.where", "xp.log(3 * xp.where"), "functions",
         "weight_itakura_saito"),
        # where t + x overflows, and nowhere else
        (("_itakura_saito_near", "large = x > 1", "large = x < 1"), "functions",
         "weight_itakura_saito"),
        # sizes above 256 are objects of their own
        (("_mean_over_batch", "if size != grad", "if size is not grad"), "mean over a batch", None),
        (("_mean_over_batch", "math.prod(gradient.shape)", "2"), "mean over a batch", "w13"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mutant_is_caught_where_it_can_be_seen(
    mutant: tuple[str, str, str], twin: str, first_wrong: str | None
) -> None:
    catch = judge(changed(*mutant), CASES)
    assert catch is not None
    assert (catch.by, catch.first_wrong) == (twin, first_wrong)
    assert first_wrong is None or catch.reason == "differs by more than rounding"


def test_a_mutant_that_raises_is_caught_and_says_so() -> None:
    row = become(changed("_backward", "dx6 = itaku", "dx6 = 1 // 0 * itaku"), CASES)
    assert (row.verdict, row.reason) == ("caught", "raises ZeroDivisionError")
    assert row.first_wrong is None


def test_a_survivor_fails_the_self_test(
    monkeypatch: pytest.MonkeyPatch, result: SelftestResult
) -> None:
    """What can neither be caught nor proved: the textbook sigma', right but for its digits."""
    textbook = changed("_backward", "sigmoid_derivative(z4)", "(x4 * (1 - x4))")
    row = become(textbook, CASES)
    assert (row.verdict, row.reason) == ("survived", "")
    failed = replace(result, rows=(*result.rows, row))
    assert not failed.ok
    assert failed.counts["survived"] == 1


# the proofs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mutant", "proof"),
    [
        (("sigmoid", "z >= 0", "z > 0"), EQUAL),
        (("sigmoid", "1 / (1 + decay)", "1 - decay / (1 + decay)"), EQUAL),
        (("sigmoid_derivative", "decay * (2 + decay)", "2 * decay + decay * decay"), EQUAL),
        (("square", "z * z", "(z + 1) * (z - 1) + 1"), EQUAL),
        (("itakura_saito_derivative", "(x - t) / x / x", "1 / x - t / x / x"), EQUAL),
        (("itakura_saito", "(0.5, 2, _ita", "(0.5, 3, _ita"), EQUAL),  # the next form overwrites it
        (("itakura_saito", "(2, 4, _ita", "(3, 4, _ita"), EQUAL),
        (("itakura_saito", "(2, 4, _ita", "(2, 400, _ita"), EQUAL),
        (("itakura_saito", "(0.5, 2, _ita", "(1.5, 2, _ita"), WITHIN_ROUNDING),
        (("itakura_saito", "(0.5, 2, _ita", "(0.49, 2, _ita"), WITHIN_ROUNDING),
        (("itakura_saito", "ratio >= low", "ratio > low"), WITHIN_ROUNDING),
        (("_itakura_saito_near", "large = x > 1", "large = t > 1"), EQUAL),
        (("_itakura_saito_near", "range(35, 1, -2)", "range(33, 1, -2)"), WITHIN_ROUNDING),
        (("_itakura_saito_double", "1 - math.log(2)", "1 % math.log(2)"), EQUAL),
        (("_itakura_saito_far", "ratio < 0.5", "ratio < 1.5"), EQUAL),
        (("_itakura_saito_far", "subnormal | xp", "subnormal & xp"), EQUAL),
        (("_backward", "dz6 * w36 + dz5 * w35", "w35 * dz5 + w36 * dz6"), EQUAL),
        (("_forward", "w36 * x3 + w46 * x4", "w46 * x4 + w36 * x3"), EQUAL),
        (("_mean_over_batch", "size != grad", "size < grad"), EVERY_SHAPE),
        (("_mean_over_batch", "keepdims=True", "keepdims=False"), EVERY_SHAPE),
    ],
    ids=str,
)  # fmt: skip
def test_an_equivalent_mutant_is_proved_so(mutant: tuple[str, str, str], proof: str) -> None:
    assert prove(changed(*mutant)) == proof


@pytest.mark.parametrize(
    "mutant",
    [
        ("sigmoid", "z >= 0", "z > 1"),
        ("sigmoid", "z >= 0", "z >= -0.001"),
        ("sigmoid_derivative", "2 + decay", "2.0000000000000004 + decay"),
        ("square", "z * z", "z * z * z"),
        ("square", "z * z", "z ** z"),
        ("square_derivative", "2 * z", "2 * z + 1"),
        ("square_derivative", "2 * z", "2 * abs(z)"),
        ("itakura_saito_derivative", "return (x - t)", "return (x - t) * (t // 1 + 1)"),
        ("itakura_saito", "(0.5, 2, _ita", "(0.4, 2, _ita"),  # the series is cut off too early
        ("_itakura_saito_near", "range(35, 1, -2)", "range(25, 1, -2)"),
        ("_itakura_saito_near", "range(35, 1, -2)", "range(35, 3, -2)"),
        ("_itakura_saito_double", "1 - math.log(2)", "1 - math.log(2.0000000000000004)"),
        ("_itakura_saito_far", "xp.log(2 * xp.where", "xp.log(3 * xp.where"),
        ("_itakura_saito_far", "ratio - 1)", "ratio - 2)"),
        ("_backward", "dx4 = dz6 * w46", "dx4 = dz6 * w36"),
        ("_backward", "sigmoid_derivative(z4)", "(x4 * (1 - x4))"),  # knows sigma' by name only
        ("_forward", "x4 = sigmoid(z4)", "x4 = sigmoid(z5)"),
        ("_forward", '"x1": x1', '"x1": x2'),
        ("_mean_over_batch", "size != grad", "size is not grad"),
        ("_mean_over_batch", "(1,) *", "(2,) *"),  # the same but for axes of size 2
        ("_mean_over_batch", "xp.mean(", "xp.sum("),
        ("_mean_over_batch", "if size != gradient.shape[axis]", "if axis"),
    ],
    ids=str,
)
def test_nothing_is_proved_of_a_mutant_that_changes_something(mutant: tuple[str, str, str]) -> None:
    assert prove(changed(*mutant)) is None


R = Symbol("r")


def formula(expression: Any, cell: Cell | None = None) -> Formula:
    return Formula(Run(cell or Cell(R)), sympy.sympify(expression))


def test_a_comparison_splits_its_cell_where_it_changes() -> None:
    number = formula(R, Cell(R, sympy.S.Zero, sympy.oo))
    with pytest.raises(SplitError) as split:
        assert number / 2 >= 3
    assert split.value.points == {6}
    assert number > -1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 6, (True, False)), (6, 6, (False, True)), (6, 9, (False,) * 2)],
)
def test_within_a_cell_a_comparison_has_one_answer(
    low: int, high: int, expected: tuple[bool, bool]
) -> None:
    number = formula(R / 2, Cell(R, sympy.Integer(low), sympy.Integer(high)))
    assert (number < 3, number == 3) == expected


def test_a_floor_changes_at_whole_numbers() -> None:
    steps = formula(R, Cell(R, sympy.S.Zero, sympy.oo)) // 1
    with pytest.raises(SplitError) as split:
        assert steps >= 2
    assert split.value.points == {2, 3}
    assert (formula(R, Cell(R, sympy.Integer(2), sympy.Integer(3))) // 1) == 2


def test_what_the_cell_leaves_open_is_answered_every_way() -> None:
    other = Symbol("x")
    answers = []
    for run in all_runs(Cell(R)):
        number = Formula(run, other)
        answers.append((number < 1, number == 1, number > 1, number > 2))
    # by signs of x - 1 and of x - 2, each of the nine ways
    assert len(answers) == len(set(answers)) + 3 == 9
    assert all(sum(first[:3]) == 1 for first in answers)


def test_what_is_no_formula_is_refused() -> None:
    with pytest.raises(UnprovableError):
        formula(2) ** formula(R)
    with pytest.raises(UnprovableError):
        formula(R) * 0.5  # not exact
    with pytest.raises(UnprovableError):
        assert formula(sympy.exp(R)) > 2
    assert (formula(Rational(1, 3)) * 3).expression == 1


# in people's hands --------------------------------------------------------------------------------


def shown(result: SelftestResult) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_selftest(result, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_tables_say_what_became_of_the_mutants(result: SelftestResult) -> None:
    text = shown(result)
    counts = result.counts
    total = next(line for line in text.splitlines() if line.strip().startswith("all "))
    assert total.split() == ["all", str(len(result.rows)), *map(str, counts.values())]
    assert f"named first: {result.named[0]} of {result.named[1]}" in text
    assert "passed: every mutant that is not equivalent was caught" in text
    for reason, count in result.reasons["equivalent"].items():
        assert f"equivalent: {reason}" in text
        assert str(count) in text


def test_the_tables_show_survivors_and_false_alarms(result: SelftestResult) -> None:
    row = replace(result.rows[0], verdict="survived", before="a = [b]", after="a = [c]")
    text = shown(replace(result, rows=(row,), false_alarms=("square",)))
    assert "survived sigmoid, line" in text
    assert "a = [c]" in text  # not taken for markup
    assert "false alarm square is right as it is" in text
    assert "failed: 1 survived, 1 false alarms" in text


def test_the_command(
    monkeypatch: pytest.MonkeyPatch,
    result: SelftestResult,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It runs what was asked for, prints it, and writes it in the documented form."""

    def ran(*, cases: int, workers: int, progress: Callable[[int, int], None]) -> SelftestResult:
        assert workers >= 1
        progress(1, 2)
        return replace(result, cases=cases)

    monkeypatch.setattr(torch_ref.selftest, "run_selftest", ran)
    file = tmp_path / "mutants.json"
    assert main(["selftest", "--cases", "500", "--json", str(file)]) == 0
    assert "passed: every mutant" in capsys.readouterr().out
    told = check(file)
    assert told["format"] == "gradtwin selftest 1"
    assert told["ok"]
    assert told["cases"] == 500
    assert len(told["rows"]) == len(result.rows)


def test_the_command_fails_on_a_survivor(
    monkeypatch: pytest.MonkeyPatch, result: SelftestResult, capsys: pytest.CaptureFixture[str]
) -> None:
    row = replace(result.rows[0], verdict="survived")
    failed = replace(result, rows=(row,))
    monkeypatch.setattr(torch_ref.selftest, "run_selftest", lambda **options: failed)
    assert main(["selftest"]) == 1
    assert "failed: 1 survived" in capsys.readouterr().out


@pytest.fixture
def _no_cosmic_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cosmic_ray.operators.provider", None)


@pytest.mark.usefixtures("_no_cosmic_ray")
def test_without_cosmic_ray_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "gradtwin: The self-test makes its mutants with cosmic-ray, which is not installed: "
        "pip install 'gradtwin[selftest]'.\n"
    )


@pytest.mark.parametrize(
    "bad", [{"cases": 0}, {"cases": 1.5}, {"every": 0}, {"every": True}, {"workers": -1}]
)
def test_bad_arguments(bad: dict[str, Any]) -> None:
    ((name, value),) = bad.items()
    with pytest.raises(ValueError, match=f"^{name} must be a positive whole number; got {value!r}"):
        run_selftest(**bad)


def test_two_processes_find_what_one_finds(
    all_mutants: list[Mutant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a program of their own: processes start by importing the main one again."""
    few = ("square", "square_derivative")
    code = (
        "from torch_ref.selftest import mutate, run\n"
        "if __name__ == '__main__':\n"
        "    print(*(mutant.source for mutant in mutate.mutants()))\n"
        f"    mutate.MUTATED = run.MUTATED = {few}\n"
        "    print(*run.run_selftest(cases=200, workers=2).rows, sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for module in (mutate, torch_ref.selftest.run):
        monkeypatch.setattr(module, "MUTATED", few)
    rows = [str(row) for row in run_selftest(cases=200).rows]
    assert len(rows) > 8  # what one process gets at a time
    # and the mutants are the same each time
    sources = [mutant.source for mutant in all_mutants]
    assert done.stdout == "\n".join([" ".join(sources), *rows, ""])


def test_torch_keeps_its_threads(result: SelftestResult) -> None:
    before = torch.get_num_threads()
    judge(original("square"), 100)
    assert torch.get_num_threads() == before
