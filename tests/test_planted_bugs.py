"""Every line of the hand derivation, broken the ways people break it: each is caught and named.

A bug is one line of `manual_bp.network` replaced. The bound must not excuse it, in float64 nor in
float32, and the first wrong row must be the quantity whose line was broken.
"""

import inspect
from dataclasses import replace
from functools import partial

import pytest
import torch

import manual_bp
from manual_bp import network
from torch_ref import assignment_twin, verify
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.judge import Judge

CASES = 4096
REFERENCE = Graphs()

# (the right line, the wrong line, the first wrong quantity)
BACKWARD_BUGS = {
    "sign of dL/dx": ("dx6 = itaku", "dx6 = -itaku", "x6"),
    "wrong power in dL/dx": ("derivative(x6, t)", "derivative(x6, t) * x6", "x6"),
    "x and t exchanged": ("derivative(x6, t)", "derivative(t, x6)", "x6"),
    "pre- for post-activation in dL/dx": ("derivative(x6, t)", "derivative(z6, t)", "x6"),
    "missing rho'": ("dz6 = dx6 * square_derivative(z6)", "dz6 = dx6", "z6"),
    "rho' without its 2": ("square_derivative(z6)", "z6", "z6"),
    "rho' of the post-activation": ("square_derivative(z6)", "square_derivative(x6)", "z6"),
    "z6^2 for z6^3, as printed in a)": ("derivative(z6)", "derivative(z6) * z6", "z6"),
    "clipped gradient": ("derivative(z6)", "derivative(z6).clamp(-3.0, 3.0)", "z6"),
    "pre- for post-activation in dL/dw36": ("dw36 = dz6 * x3", "dw36 = dz6 * z3", "w36"),
    "weight for value in dL/dw46": ("dw46 = dz6 * x4", "dw46 = dz6 * w46", "w46"),
    "value of the wrong node": ("dw56 = dz6 * x5", "dw56 = dz6 * x4", "w56"),
    "bias treated as a weight": ("db6 = dz6", "db6 = dz6 * b6", "b6"),
    "mean for sum": ("db6 = dz6", "db6 = dz6 / len(dz6)", "b6"),
    "batch mean for each sample's own": ("db6 = dz6", "db6 = dz6.mean().expand_as(dz6)", "b6"),
    "weight of the wrong edge": ("dx5 = dz6 * w56", "dx5 = dz6 * w46", "x5"),
    "missing weight": ("dx5 = dz6 * w56", "dx5 = dz6", "x5"),
    "stale weight, already updated": ("dz6 * w56", "dz6 * (w56 - 0.01 * dw56)", "x5"),
    "missing sigma' at node 5": ("dz5 = dx5 * sigmoid_derivative(z5)", "dz5 = dx5", "z5"),
    "sigma for sigma'": ("dx5 * sigmoid_derivative(z5)", "dx5 * sigmoid(z5)", "z5"),
    "sigma' of the post-activation": ("derivative(z5)", "derivative(x5)", "z5"),
    "sign in sigma'": ("sigmoid_derivative(z5)", "x5 * (1 + x5)", "z5"),
    "sigma' with exp that overflows": (
        "sigmoid_derivative(z5)", "(-z5).exp() / (1 + (-z5).exp()) ** 2", "z5"),
    "sigma' left out of dL/dw35": ("dw35 = dz5 * x3", "dw35 = dx5 * x3", "w35"),
    "sigma' left out of dL/db5": ("db5 = dz5", "db5 = dx5", "b5"),
    "dL/dx4 overwritten by dL/dx5": ("dx4 = dz6 * w46", "dx4 = dx5", "x4"),
    "chain through the wrong node": ("dz4 = dx4 * sig", "dz4 = dx5 * sig", "z4"),
    "sigma' of the wrong node": ("derivative(z4)", "derivative(z5)", "z4"),
    "clamp that the forward has not": ("derivative(z4)", "derivative(z4.clamp(-8.0, 8.0))", "z4"),
    "own output for input": ("dw34 = dz4 * x3", "dw34 = dz4 * x4", "w34"),
    "sign of a bias": ("db4 = dz4", "db4 = -dz4", "b4"),
    "missing skip connection": ("dx3 = dz6 * w36 + dz5", "dx3 = dz5", "x3"),
    "overwritten instead of accumulated": (
        "dx3 = dz6 * w36 + dz5 * w35 + dz4 * w34", "dx3 = dz4 * w34", "x3"),
    "a path counted twice": ("+ dz4 * w34", "+ 2 * dz4 * w34", "x3"),
    "a path subtracted": ("+ dz4 * w34", "- dz4 * w34", "x3"),
    "weights exchanged between paths": (
        "dz5 * w35 + dz4 * w34", "dz5 * w34 + dz4 * w35", "x3"),
    "a path without its sigma'": ("+ dz5 * w35", "+ dx5 * w35", "x3"),
    "missing sigma' at node 3": ("dz3 = dx3 * sigmoid_derivative(z3)", "dz3 = dx3", "z3"),
    "tanh' for sigma'": ("sigmoid_derivative(z3)", "(1 - x3 * x3)", "z3"),
    "the other input": ("dw13 = dz3 * x1", "dw13 = dz3 * x2", "w13"),
    "the neighbour's input": ("dw13 = dz3 * x1", "dw13 = dz3 * x1.roll(1)", "w13"),
    "missing input": ("dw23 = dz3 * x2", "dw23 = dz3", "w23"),
    "a step too early": ("db3 = dz3", "db3 = dx3", "b3"),
    "weight of the other input": ("dx1 = dz3 * w13", "dx1 = dz3 * w23", "x1"),
    "value for weight": ("dx2 = dz3 * w23", "dx2 = dz3 * x2", "x2"),
    "not a number": ("dx2 = dz3 * w23", "dx2 = dz3 * w23 + 0.0 * (-t).sqrt()", "x2"),
}  # fmt: skip

FORWARD_BUGS = {
    "the plus missing in z6, as printed in b)": ("+ w56 * x5", "* w56 * x5", "x6"),
    "a node left out of z6": (" + w56 * x5", "", "x6"),
    "bias left out": ("w34 * x3 + b4", "w34 * x3", "x6"),
    "rho left out": ("x6 = square(z6)", "x6 = z6", "x6"),
    "activation left out": ("x4 = sigmoid(z4)", "x4 = z4", "x6"),
}


def broken(name: str, right: str, wrong: str) -> dict:
    """`manual_bp.network` with one line of one function replaced, and its lines' numbers."""
    lines, first = inspect.getsourcelines(getattr(network, name))
    source = "\n" * (first - 1) + "".join(lines)
    assert right in source, f"{right!r} is no longer a line of {name}"
    namespace = dict(vars(network))
    exec(compile(source.replace(right, wrong, 1), network.__file__, "exec"), namespace)
    return namespace


def run(namespace: dict, values: dict) -> dict:
    parameters = {name: values[name] for name in manual_bp.PARAMETERS}
    inputs = {name: values[name] for name in manual_bp.INPUTS}
    known = namespace["_forward"](**parameters, **inputs)
    return namespace["_backward"](**parameters, **known)


def check(namespace: dict, first_wrong: str) -> None:
    """In both dtypes; recording the reference once for all bugs saves most of the time."""
    twin, graphs = replace(assignment_twin(), manual=partial(run, namespace)), Graphs()
    for dtype in (torch.float64, torch.float32):
        judging = Judge(twin, dtype, torch.device("cpu"), seed=0)
        judging.recorder.share_graphs(REFERENCE, graphs)
        for batch in judging.cases.batches(CASES):
            judging.judge(batch)
        report = judging.report(CASES, explain=False)  # test_explain_planted.py has the rest
        assert (report.verdict, report.first_wrong) == ("differ", first_wrong), dtype
        with pytest.raises(AssertionError, match=f"The mistake enters at dL/d{first_wrong}:"):
            report.assert_agreement()


@pytest.mark.parametrize("bug", BACKWARD_BUGS)
def test_a_bug_in_the_backward_pass_is_caught_and_named(bug: str) -> None:
    right, wrong, first_wrong = BACKWARD_BUGS[bug]
    check(broken("_backward", right, wrong), first_wrong)


@pytest.mark.parametrize("bug", FORWARD_BUGS)
def test_a_bug_in_the_forward_pass_is_caught_and_named(bug: str) -> None:
    right, wrong, first_wrong = FORWARD_BUGS[bug]
    check(broken("_forward", right, wrong), first_wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_the_textbook_sigma_prime_is_no_bug(dtype: torch.dtype) -> None:
    """x (1 - x) loses digits in the tails, but that is rounding: the report shows it as digits."""
    twin = replace(assignment_twin(), strata=("saturated",), stress=())
    namespace = broken("_backward", "sigmoid_derivative(z4)", "x4 * (1 - x4)")
    textbook = verify(replace(twin, manual=partial(run, namespace)), cases=CASES, dtype=dtype)
    ours = verify(twin, cases=CASES, dtype=dtype)
    assert textbook.verdict == ours.verdict == "agree"
    digits = [next(r.digits_manual for r in x.rows if r.name == "z4") for x in (textbook, ours)]
    assert digits[0] < digits[1] - 0.5
