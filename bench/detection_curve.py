"""How small a wrong gradient is caught, by which tool: `python -m bench.detection_curve`.

One gradient of the hand-written backward pass is multiplied by 1 + error, each of the 21 in turn,
on ordinary cases, and every tool is asked on the same cases, in the same run, whether it is wrong:

    verify          in each dtype, by the bounds that rounding gives
    assert_close    torch.testing.assert_close, hand against autograd, in each dtype, as it is set
    gradcheck       torch.autograd.gradcheck, default and fast mode, in float64 on the first few
                    cases (it is slow), of a Function whose backward is the hand-written one

Shares are of single cases, and of whole runs: of the 21 gradients, how many are called wrong once
all cases are looked at. Error 0 is right code: whatever is caught there is a false alarm.
Writes detection_curve.json, .svg and .png into bench/results.
"""

import argparse
import json
import os
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from manual_bp.functions import itakura_saito, sigmoid, square
from torch_ref import Twin, assignment_twin
from torch_ref.compare import DTYPES, Batch, Cases
from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.cases import SHARD
from torch_ref.compare.judge import Judge

RESULTS = Path(__file__).parent / "results"
CASES, GRADCHECK_CASES = 100_000, 24
ERRORS = (*(10.0**-power for power in range(1, 16)), 0.0)
SHARE = 0.99  # of the cases, for `smallest_caught`
CPU = torch.device("cpu")

Values = dict[str, Tensor]
Shares = dict[str, float]  # by name of the gradient
Errors = tuple[float, ...]
Tool = Callable[[Values, Twin, float], tuple[Shares, Shares]]


@dataclass(frozen=True)
class Series:
    """One tool in one dtype; shares caught, 0 to 1, for each of the errors.

    cases: of single cases, averaged over the 21 gradients; worst: for the gradient caught least;
    runs: of gradients, once all cases are looked at.
    """

    tool: str
    dtype: str
    number_of_cases: int
    cases: tuple[float, ...]
    worst: tuple[float, ...]
    runs: tuple[float, ...]

    def smallest_caught(self, errors: Errors) -> float | None:
        """The smallest error down to which every gradient is caught in SHARE of the cases."""
        smallest = None
        for error, share in zip(errors, self.worst, strict=True):
            if share < SHARE or error == 0:
                break
            smallest = error
        return smallest


def ordinary_twin() -> Twin:
    """The assignment's twin on ordinary cases: away from saturation and cancellation."""
    return replace(assignment_twin(), strata=("ordinary",), stress=())


def planted(twin: Twin, error: float) -> Callable[[Values], Values]:
    """The hand-written gradients, every one multiplied by 1 + error.

    Each is judged on its own, so planting in all at once is planting in each in turn.
    """
    return lambda values: {name: g + error * g for name, g in twin.manual(values).items()}


def by_verify(inputs: Values, twin: Twin, error: float) -> tuple[Shares, Shares]:
    """Shares of cases, and verdicts (0 or 1), by name."""
    count = len(inputs["t"])
    judging = Judge(replace(twin, manual=planted(twin, error)), inputs["t"].dtype, CPU, 0)
    for first in range(0, count, SHARD):
        shard = {name: value[first : first + SHARD] for name, value in inputs.items()}
        judging.judge(Batch(shard, first, len(shard["t"]), batched=True))
    rows = judging.report(count, explain=False).rows
    return (
        {row.name: row.wrong for row in rows},
        {row.name: float(row.verdict == "differ") for row in rows},
    )


def by_assert_close(inputs: Values, twin: Twin, error: float) -> tuple[Shares, Shares]:
    """Shares of cases, and whether all of them pass as one tensor (0 or 1), by name."""
    hand = planted(twin, error)(dict(inputs))
    autograd = gradients_by_autograd(twin.reference, inputs, tuple(hand))
    shares = {name: mismatched(hand[name], autograd[name]) for name in hand}
    return shares, {name: float(share > 0) for name, share in shares.items()}


def mismatched(actual: Tensor, expected: Tensor) -> float:
    """The share of elements that assert_close complains of, with its default tolerances."""
    try:
        torch.testing.assert_close(actual, expected)
    except AssertionError as error:
        found = re.search(r"Mismatched elements: (\d+) / (\d+)", str(error))
        if found is None:  # its message for single numbers
            return 1.0
        return int(found[1]) / int(found[2])
    return 0.0


def by_gradcheck(fast: bool) -> Tool:
    """The same for gradcheck, one case and one gradient at a time."""

    def tool(inputs: Values, twin: Twin, error: float) -> tuple[Shares, Shares]:
        hand = planted(twin, error)(dict(inputs))
        cases = [{n: v[case] for n, v in inputs.items()} for case in range(len(inputs["t"]))]
        caught = {
            name: [_fails(name, at, gradient, fast) for at, gradient in zip(cases, gradients)]
            for name, gradients in hand.items()
        }
        shares = {name: sum(found) / len(found) for name, found in caught.items()}
        return shares, {name: float(any(found)) for name, found in caught.items()}

    return tool


def _fails(name: str, inputs: Values, gradient: Tensor, fast: bool) -> bool:
    loss, at = one_case(name, inputs, gradient), point(name, inputs)
    return not torch.autograd.gradcheck(loss, (at,), fast_mode=fast, raise_exception=False)


STEPS: dict[str, Callable[[Values], Tensor]] = {
    "z3": lambda v: v["w13"] * v["x1"] + v["w23"] * v["x2"] + v["b3"],
    "x3": lambda v: sigmoid(v["z3"]),
    "z4": lambda v: v["w34"] * v["x3"] + v["b4"],
    "x4": lambda v: sigmoid(v["z4"]),
    "z5": lambda v: v["w35"] * v["x3"] + v["b5"],
    "x5": lambda v: sigmoid(v["z5"]),
    "z6": lambda v: v["w36"] * v["x3"] + v["w46"] * v["x4"] + v["w56"] * v["x5"] + v["b6"],
    "x6": lambda v: square(v["z6"]),
    "loss": lambda v: itakura_saito(v["x6"], v["t"]),
}


def forward(inputs: Values, **fixed: Tensor) -> Values:
    """The network's values; one of them can be fixed, and what comes after follows from it."""
    values = {**inputs, **fixed}
    for name, step in STEPS.items():
        if name not in fixed:
            values[name] = step(values)
    return values


def point(name: str, inputs: Values) -> Tensor:
    """Where gradcheck differentiates: the case's value of the quantity."""
    return forward(inputs)[name].clone().requires_grad_()


def one_case(name: str, inputs: Values, gradient: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss as a function of one quantity, with this gradient for its backward pass."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, quantity: Tensor) -> Tensor:
            return forward(inputs, **{name: quantity})["loss"]

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> Tensor:
            return upstream * gradient

    apply: Callable[[Tensor], Tensor] = Loss.apply
    return apply


def measure(cases: int, gradcheck_cases: int, errors: Errors) -> list[Series]:
    """Every tool in every dtype that it is made for."""
    series = []
    for dtype in DTYPES:
        inputs = drawn(DTYPES[dtype], cases)
        series.append(_series("verify", dtype, inputs, by_verify, errors))
        series.append(_series("assert_close", dtype, inputs, by_assert_close, errors))
    few = drawn(torch.float64, gradcheck_cases)
    for tool, fast in (("gradcheck", False), ("gradcheck, fast mode", True)):
        series.append(_series(tool, "float64", few, by_gradcheck(fast), errors))
    return series


def drawn(dtype: torch.dtype, cases: int) -> Values:
    """The first cases of seed 0."""
    batches = list(Cases(ordinary_twin(), dtype, CPU, 0).batches(cases))
    return {n: torch.cat([batch.inputs[n] for batch in batches]) for n in batches[0].inputs}


def _series(tool: str, dtype: str, inputs: Values, ask: Tool, errors: Errors) -> Series:
    twin = ordinary_twin()
    found = [ask(inputs, twin, error) for error in errors]
    return Series(
        tool, dtype, len(inputs["t"]),
        cases=tuple(_mean(shares) for shares, _ in found),
        worst=tuple(min(shares.values()) for shares, _ in found),
        runs=tuple(_mean(verdicts) for _, verdicts in found),
    )  # fmt: skip


def _mean(shares: Shares) -> float:
    return sum(shares.values()) / len(shares)


def result(series: list[Series], errors: Errors) -> dict[str, Any]:
    """Everything measured, and on what, for the JSON file."""
    return {
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "gradients": len(ordinary_twin().manual(drawn(torch.float64, 1))),
        "stratum": "ordinary",
        "errors": errors,
        "series": [
            asdict(one)
            | {
                "smallest_caught": one.smallest_caught(errors),
                "false_alarms": one.cases[errors.index(0.0)],
            }
            for one in series
        ],
    }


def cpu_name() -> str:
    """The processor's model, as Linux gives it; the architecture elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--gradcheck-cases", type=int, default=GRADCHECK_CASES)
    parser.add_argument("--into", type=Path, default=RESULTS, help="folder for the results")
    options = parser.parse_args()
    from bench.detection_plot import plot

    torch.set_num_threads(1)
    series = measure(options.cases, options.gradcheck_cases, ERRORS)
    measured = result(series, ERRORS)
    text = json.dumps(measured, indent=1)
    (options.into / "detection_curve.json").write_text(text + "\n")
    plot(measured, options.into)


if __name__ == "__main__":
    main()
