"""The audit of the printed derivation: every mistake found and named, no right line accused."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sympy

import manual_bp.audit
from manual_bp.audit import ContradictionError, Finding, audit, in_ascii, plain, summary
from manual_bp.audit.symbolic import same_value
from manual_bp.derivation import CLAIMS, Claim
from manual_bp.latex import MalformedError, Partial, bracket_problem, read, sigma
from torch_ref.cli import main

# label, what the problem must say, what belongs there
MISTAKES = [
    ("a) chain, line 4", "factor z6", "2(z6² - t)/z6³"),
    ("b) chain, line 2", "factor w56 x5", "∂L/∂z6 × x4"),
    (
        "b) z6 in line 2",
        "w46 w56 x4 x5 stands where w46 x4 + w56 x5 belongs",
        "w36 x3 + w46 x4 + w56 x5 + b6",
    ),
    ("c) chain, line 4", "factor z6", "2(z6² - t)/z6³"),
    (
        "c) z6 in line 2",
        "w46 w56 x4 x5 stands where w46 x4 + w56 x5 belongs",
        "w36 x3 + w46 x4 + w56 x5 + b6",
    ),
    (
        "d) chain, line 16",
        "∂x4/∂z5 stands where ∂x4/∂z4 belongs, and ∂x5/∂z5 stands where ∂x3/∂z3 belongs",
        "∂L/∂z6 × [w36 + w34 w46 ∂x4/∂z4 + w35 w56 ∂x5/∂z5] × ∂x3/∂z3",
    ),
    (
        "d) chain, line 17",
        "breaks off: [ and { opened but never closed; before that, ∂L/∂z5 stands where ∂L/∂z6",
        "∂L/∂z6 × [w36 + w34 w46 ∂x4/∂z4 + w35 w56 ∂x5/∂z5] × ∂x3/∂z3",
    ),
    ("d) from exercise 2", "factor dx/x", "∂σ(x)/∂x"),
    ("d) name of (5)", "the formula is ∂L/∂z6, not ∂L/∂z3", "∂L/∂z6"),
]
WRONG = [label for label, _, _ in MISTAKES]
BY_LABEL = {claim.label: claim for claim in CLAIMS}
RIGHT = [claim for claim in CLAIMS if claim.label not in WRONG]


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.label: finding for finding in audit()}


def judge(claim: Claim, **changes: Any) -> Finding:
    (finding,) = audit([replace(claim, **changes)])
    return finding


# the assignment ----------------------------------------------------------------------------------


def test_labels_are_unique() -> None:
    assert len(BY_LABEL) == len(CLAIMS) == 50


def test_exactly_the_wrong_lines_are_called_wrong(findings: dict[str, Finding]) -> None:
    assert [label for label, finding in findings.items() if not finding.right] == WRONG


@pytest.mark.parametrize(("label", "problem", "belongs"), MISTAKES)
def test_a_mistake_is_named(
    findings: dict[str, Finding], label: str, problem: str, belongs: str
) -> None:
    finding = findings[label]
    assert problem in finding.problem
    assert plain(finding.belongs) == belongs
    assert "of 64 random points" in finding.evidence


def test_a_right_line_has_no_problem(findings: dict[str, Finding]) -> None:
    for claim in RIGHT:
        finding = findings[claim.label]
        assert not finding.problem
        assert not finding.belongs
        assert finding.evidence.startswith("equal at 64 random points")


def test_repeated_lines_name_the_first_of_them(findings: dict[str, Finding]) -> None:
    repeats = {label: finding.repeats for label, finding in findings.items() if finding.repeats}
    assert repeats == {f"d) chain, line {n}": "d) chain, line 6" for n in range(7, 16)}


SUMMARY = (
    "50 printed lines checked: 9 wrong, 32 right, 9 that only repeat the line before\n"
    "remark: d) chain, line 6 is printed 10 times, word for word: once is enough"
)


def test_the_summary_counts_repeats_apart_and_remarks_on_them(
    findings: dict[str, Finding],
) -> None:
    assert summary(tuple(findings.values())) == SUMMARY


@pytest.mark.parametrize("label", ["a) (5)", "a) chain, line 4"])
def test_a_repeat_of_a_right_or_wrong_line_is_neither(label: str) -> None:
    """And there is no remark where nothing is repeated."""
    claim = BY_LABEL[label]
    again = [replace(claim, label=f"again {n}") for n in range(2)]
    wrong, right = (1, 0) if label in WRONG else (0, 1)
    counted = f"printed lines checked: {wrong} wrong, {right} right"
    assert summary(audit([claim, *again])) == (
        f"3 {counted}, 2 that only repeat the line before\n"
        f"remark: {label} is printed 3 times, word for word: once is enough"
    )
    assert summary(audit([claim])) == f"1 {counted}, 0 that only repeat the line before"


# the text itself ---------------------------------------------------------------------------------

TEXT = Path(__file__).parent / "data" / "assignment.md"


def squeezed(latex: str) -> str:
    """Without what is layout in LaTeX: spaces, line ends and the alignment sign."""
    return "".join(latex.replace("&", "").split())


def test_every_claim_is_printed_in_the_text_and_no_equation_is_left_out() -> None:
    """Claim by claim in the text's order; what lies between has no equation but (1) and (2)."""
    text, place, between = squeezed(TEXT.read_text(encoding="utf-8")), 0, ""
    for claim in CLAIMS:
        printed = squeezed(claim.printed)
        if claim.label in ("b) z6 in line 2", "c) z6 in line 2"):  # inside the claim before
            assert text.count(printed) == 2
            continue
        at = text.find(printed, place)
        assert at >= 0, claim.label
        between += text[place:at]
        place = at + len(printed)
    between += text[place:]
    assert between.count("=") == 2
    for start in (r"L(x,t)=\frac{t}{x}-\ln\frac{t}{x}-1\tag{1}", r"\rho(z)=z^2\tag{2}"):
        assert start in between


# the tester, tested ------------------------------------------------------------------------------

MUTATIONS: dict[str, Callable[[Any], Any]] = {
    "sign": lambda right: -right,
    "factor 2": lambda right: 2 * right,
    "factor z6": lambda right: sympy.Symbol("z6") * right,
    "term": lambda right: right + sympy.Symbol("w36"),
    "zero": lambda right: sympy.Integer(0),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_right_line_once_changed_is_wrong(mutation: str) -> None:
    change = MUTATIONS[mutation]
    changed = [replace(claim, expression=change(claim.expression)) for claim in RIGHT]
    for finding in audit(changed):
        assert not finding.right, finding.label
        assert finding.problem, finding.label
        belongs = read(finding.belongs)
        assert same_value(belongs, BY_LABEL[finding.label].of), (finding.label, finding.belongs)


@pytest.mark.parametrize("label", [claim.label for claim in RIGHT if claim.expression.is_Add])
def test_every_dropped_term_is_found_and_named(label: str) -> None:
    claim = BY_LABEL[label]
    for term in claim.expression.args:
        assert not judge(claim, expression=claim.expression - term).right


@pytest.mark.parametrize(
    "dropped", ["w_{36} + ", "+ w_{35} w_{56} \\frac{\\partial x_5}{\\partial z_5}"]
)
def test_a_dropped_path_is_found_and_named(dropped: str) -> None:
    claim = BY_LABEL["d) chain, line 6"]
    assert dropped in claim.printed
    finding = judge(claim, expression=read(claim.printed[1:].replace(dropped, "")))
    assert not finding.right
    weight = "w36" if "36" in dropped else "w35 w56"
    assert re.search(rf"the term .*{weight}.* is missing", finding.problem)


def test_wrong_sigma_derivative_is_found() -> None:
    claim = BY_LABEL["d) from exercise 2"]
    x = sympy.Symbol("x")
    right = judge(claim, of=Partial(sigma(x), x))
    assert right.right
    assert not judge(claim, of=Partial(sigma(x), x), expression=sigma(x) * (1 + sigma(x))).right


CORRECTED = {
    "a) chain, line 4": r"= \frac{2(z_6^2 - t)}{z_6^3}",
    "b) chain, line 2": r"= \frac{\partial L}{\partial z_6} \times \frac{\partial}{\partial w_{46}}"
    r" \left(w_{36} x_3 + w_{46} x_4 + w_{56} x_5 + b_6 \right)",
    "b) z6 in line 2": "= w_{36} x_3 + w_{46} x_4 + w_{56} x_5 + b_6",
    "c) chain, line 4": r"= \frac{2(z_6^2 - t)}{z_6^3}",
    "c) z6 in line 2": "= w_{36} x_3 + w_{46} x_4 + w_{56} x_5 + b_6",
    "d) chain, line 16": BY_LABEL["d) chain, line 6"].printed,
    "d) chain, line 17": BY_LABEL["d) chain, line 6"].printed,
}


@pytest.mark.parametrize("label", CORRECTED)
def test_a_corrected_line_is_right(label: str) -> None:
    printed = CORRECTED[label]
    assert judge(BY_LABEL[label], printed=printed, expression=read(printed[1:])).right


@pytest.mark.parametrize("label", ["d) from exercise 2", "d) name of (5)"])
def test_a_corrected_name_is_right(findings: dict[str, Finding], label: str) -> None:
    belongs = findings[label].belongs
    assert judge(BY_LABEL[label], of=read(belongs)).right


@pytest.mark.parametrize("label", WRONG)
def test_what_belongs_is_right_itself(findings: dict[str, Finding], label: str) -> None:
    claim = BY_LABEL[label]
    belongs = read(findings[label].belongs)
    if label in ("d) from exercise 2", "d) name of (5)"):
        assert judge(claim, of=belongs).right
    else:
        printed = f"= {findings[label].belongs}"
        assert judge(claim, printed=printed, expression=belongs).right


def test_another_quantity_is_named() -> None:
    finding = judge(BY_LABEL["a) (5)"], of=read(r"\frac{\partial L}{\partial z_4}"))
    assert finding.problem == "the formula is ∂L/∂z6, not ∂L/∂z4"


def test_a_line_that_stops_at_an_operator_is_malformed() -> None:
    finding = judge(BY_LABEL["a) (4), line 2"], printed="= 2z_6 +")
    assert not finding.right
    assert "breaks off" in finding.problem


def test_a_wrong_backward_pass_contradicts_the_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> dict[str, Any]:
        slopes = backward(*arguments)
        return {**slopes, "z6": -slopes["z6"]}

    backward = manual_bp.audit.numeric.backward
    monkeypatch.setattr(manual_bp.audit.numeric, "backward", wrong)
    with pytest.raises(ContradictionError, match=r"a\) chain, line 1: symbolically right"):
        audit()


def test_a_wrong_symbolic_check_contradicts_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manual_bp.audit.findings, "same_value", lambda left, right: True)
    with pytest.raises(ContradictionError, match=r"a\) chain, line 4"):
        audit()


# reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("2z_6", "2*z6"),
        (r"-\frac{t}{x^2} + \frac{1}{x}", "-t/x**2 + 1/x"),
        ("(z_6^2)^2", "z6**4"),
        ("a - b - c", "a - b - c"),
        (r"\ln\frac{t}{x} - 1", "log(t/x) - 1"),
        (r"\sum_{i=4}^5 w_{3i} x_i + 1", "w34*x4 + w35*x5 + 1"),
        (r"2 \times \left[a + b\right] c", "2*(a + b)*c"),
    ],
)
def test_reading(latex: str, expected: str) -> None:
    assert sympy.expand(read(latex) - sympy.sympify(expected)) == 0


@pytest.mark.parametrize(
    ("latex", "message"),
    [
        ("(a + b", r"\( opened but never closed"),
        ("a + b)", r"\) closes nothing"),
        ("(a + b]", "] closes nothing"),
        ("a +", "missing"),
        (r"\frac{a}", "missing"),
        ("a = b", "= stands where the formula should end"),
        (r"\mystery", "stands where a formula should go on"),
        ("z_", "missing"),
    ],
)
def test_what_is_no_formula_is_refused(latex: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        read(latex)


def test_only_the_line_that_breaks_off_has_open_brackets() -> None:
    broken = [claim.label for claim in CLAIMS if bracket_problem(claim.printed)]
    assert broken == ["d) chain, line 17"]


# the command -------------------------------------------------------------------------------------


def test_the_command_shows_every_wrong_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "findings.json"
    assert main(["audit", "--json", str(file)]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert sum(line.startswith("✗") for line in lines) == len(WRONG)
    assert sum(line.startswith("✓") for line in lines) == 50 - len(WRONG) - 9
    assert "(printed 9 more times, word for word)" in output
    assert SUMMARY in output
    assert "…" not in output
    assert max(map(len, lines)) <= 80
    stored = json.loads(file.read_text(encoding="utf-8"))["findings"]
    assert [finding["label"] for finding in stored if not finding["right"]] == WRONG


def test_a_file_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--json", str(tmp_path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_command_speaks_ascii_where_it_must() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "torch_ref", "audit"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"},
        capture_output=True,
        check=True,
    )
    assert b"WRONG chain, line 4" in run.stdout
    assert b"2(z6^2 - t)/z6^3" in run.stdout


def test_ascii_loses_nothing() -> None:
    for claim in CLAIMS:
        assert in_ascii(plain(claim.printed)).isascii()


def test_the_audit_does_without_torch_and_manual_bp_without_sympy() -> None:
    code = (
        "import sys, manual_bp; assert 'sympy' not in sys.modules\n"
        "from torch_ref.cli import main; main(['audit']); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)
