"""The bounds hold: what a dtype really computes stays within them, and they are not far off."""

from collections.abc import Callable
from dataclasses import replace

import mpmath
import pytest
import torch

import manual_bp
from torch_ref import assignment_twin
from torch_ref.assignment import STRATA
from torch_ref.compare import DTYPES, Cases
from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, Walked, walk

Values = dict[str, torch.Tensor]
NARROW = ("float32", "bfloat16", "float16")


def bounded(function: Callable[[Values], Values], inputs: Values, dtype: str) -> Walked:
    wide = {name: value.double() for name, value in inputs.items()}
    return walk(record(function, wide), wide, Arithmetic.of(DTYPES[dtype]))


def drawn(dtype: str, count: int = 512, **ranges: tuple[float, float]) -> Values:
    """Uniform random numbers that are exact in `dtype`."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (low + (high - low) * torch.rand(count, generator=generator)).to(DTYPES[dtype])
        for name, (low, high) in ranges.items()
    }


FUNCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "sum and product": lambda a, b: a * b + a,
    "cancelling difference": lambda a, b: (a + b) - a,
    "quotient": lambda a, b: (a - 0.3) / (b + 1.7),
    "polynomial": lambda a, b: ((0.1 * a + 0.2) * a + 0.3) * a + b,
    "square root": lambda a, b: (a * a + b * b).sqrt(),
    "exp and log": lambda a, b: (a.exp() + 1).log() * b,
    "sigmoid and tanh": lambda a, b: torch.sigmoid(a * b) - torch.tanh(b),
    "power": lambda a, b: (a * a) ** 3 / (1 + b**2),
    "where": lambda a, b: torch.where(a > b, a * b, a / (b * b + 1)),
    "absolute value": lambda a, b: (a - b).abs() * 3.3,
    "sum over all": lambda a, b: (a * a + 1).sum().expand(a.shape) * b,
    "mean over all": lambda a, b: a.exp().mean().expand(a.shape) * b,
    "stack and select": lambda a, b: torch.stack((a * b, a + b), dim=-1)[..., 1] * 0.7,
    "rolled": lambda a, b: (a * b).roll(1) + b.flip(0),
    "alpha": lambda a, b: torch.add(a, b, alpha=0.3),
    "a constant that rounds": lambda a, b: torch.full_like(a, 0.1) * b,
}


def of_a_and_b(function: Callable[..., torch.Tensor]) -> Callable[[Values], Values]:
    return lambda values: {"y": function(values["a"], values["b"])}


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bound_holds_for_what_the_dtype_computes(name: str, dtype: str) -> None:
    function = FUNCTIONS[name]
    inputs = drawn(dtype, a=(-3.0, 3.0), b=(-2.0, 2.0))
    walked = bounded(of_a_and_b(function), inputs, dtype)
    actual = function(inputs["a"], inputs["b"])
    assert actual.dtype == DTYPES[dtype]
    decided = walked.bounds["y"] <= walked.values["y"].abs() / 2
    error = (actual.double() - walked.values["y"]).abs()
    assert (error <= walked.bounds["y"])[decided].all()
    assert decided.double().mean() > (0.3 if "over all" in name else 0.9)
    assert not walked.unbounded


@pytest.mark.parametrize("dtype", NARROW)
def test_the_bound_is_within_a_hundred_of_the_worst_error(dtype: str) -> None:
    """A bound that is always infinite would hold, too; that of sums, for any order, is loose."""
    for name, function in FUNCTIONS.items():
        if "over all" in name:
            continue
        inputs = drawn(dtype, a=(-3.0, 3.0), b=(-2.0, 2.0))
        walked = bounded(of_a_and_b(function), inputs, dtype)
        error = (function(inputs["a"], inputs["b"]).double() - walked.values["y"]).abs()
        assert (error / walked.bounds["y"].clamp_min(1e-300)).max() > 0.01, name


def test_exact_operations_have_bound_zero() -> None:
    walked = bounded(lambda v: {"y": -v["a"].abs().roll(1)}, drawn("float32", a=(-1, 1)), "float32")
    assert (walked.bounds["y"] == 0).all()


def test_an_open_comparison_takes_both_branches() -> None:
    """3 * (1/3) - 1 is about 0: its sign is rounding, and so is the choice that follows it."""
    inputs = {"a": torch.tensor([1 / 3, 1.0, 0.1], dtype=torch.float32)}

    def choose(values: Values) -> Values:
        difference = values["a"] * 3.0 - 1.0
        return {"y": torch.where(difference > 0, 5 + values["a"], 7 + values["a"])}

    bounds = bounded(choose, inputs, "float32").bounds["y"]
    assert bounds[0] >= 2.0
    assert bounds[1:].max() < 1e-5


def test_overflow_is_that_of_the_dtype() -> None:
    inputs = {"a": torch.tensor([1.0, 200.0], dtype=torch.float16)}
    walked = bounded(lambda v: {"y": (v["a"] * v["a"]) * -v["a"]}, inputs, "float16")
    assert walked.values["y"].tolist() == [-1.0, -torch.inf]
    assert walked.bounds["y"][1] == 0
    edge = {"a": torch.tensor([255.9], dtype=torch.float16)}  # its square is 65472, or 65440
    assert bounded(lambda v: {"y": v["a"] * v["a"] + 16.0}, edge, "float16").bounds["y"] < 65
    walked = bounded(lambda v: {"y": v["a"] * v["a"] + 40.0}, edge, "float16")
    assert walked.bounds["y"] == torch.inf  # it may just fit


def test_underflow_is_covered() -> None:
    """2^-80 squared is 0 in float32; a bound relative to the value would miss it."""
    inputs = {"a": torch.tensor([2.0**-80], dtype=torch.float32)}
    walked = bounded(lambda v: {"y": v["a"] * v["a"]}, inputs, "float32")
    assert walked.bounds["y"] >= walked.values["y"] > 0


def test_bounds_of_underflow_in_float64_are_normal_numbers() -> None:
    """They are computed in float64 themselves: subnormal ones would have few digits."""
    inputs = {"a": torch.tensor([-1e5], dtype=torch.float64)}
    walked = bounded(lambda v: {"y": v["a"].exp() * 1e-3}, inputs, "float64")
    assert walked.values["y"] == 0
    assert torch.finfo(torch.float64).smallest_normal < walked.bounds["y"] < 1e-280


def product_and_sum(values: Values) -> Values:
    product = values["a"] * values["b"]
    return {"product": product, "loss": product.sum()}


def test_what_is_multiplied_by_1_is_itself() -> None:
    """As by the gradient to begin with: nothing is computed, and nothing rounds."""
    inputs = drawn("float64", a=(1.0, 2.0), b=(1.0, 2.0))
    graph = record(lambda values: gradients_by_autograd(product_and_sum, values), inputs)
    assert not any("mul" in str(node.target) for node in graph.graph.nodes)
    walked = walk(graph, inputs, Arithmetic.of(torch.float32))
    assert torch.equal(walked.values["a"], inputs["b"])
    assert walked.bounds["a"].max() == walked.bounds["product"].max() == 0


def test_what_is_multiplied_by_more_ones_is_repeated() -> None:
    inputs = drawn("float64", a=(1.0, 2.0))
    walked = bounded(lambda v: {"y": torch.ones_like(v["a"])[:, None] * v["a"]}, inputs, "float32")
    assert torch.equal(walked.values["y"], inputs["a"].expand(512, 512))
    assert walked.bounds["y"].max() == 0
    whole = {"n": torch.arange(3)}  # times a float it is no integer any more
    made = record(lambda v: {"y": torch.ones(3, dtype=torch.float64) * v["n"]}, whole)
    assert walk(made, whole, Arithmetic.of(torch.float64)).values["y"].dtype == torch.float64


@pytest.mark.parametrize(
    "function",
    [
        lambda a: (torch.ones(2, 1, 1, dtype=a.dtype) * a).reshape(-1) ** 2,
        lambda a: (torch.ones(2, 3, 4, dtype=a.dtype) * a.t()).flatten(),
        lambda a: (torch.ones(3, 4, dtype=a.dtype) * a.t()).as_strided((3, 4), (1, 3)),
        lambda a: (a.t() * torch.ones((), dtype=a.dtype)).contiguous().view(-1),
    ],
)
def test_what_is_multiplied_by_1_lies_in_memory_as_the_product_did(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    a = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    walked = bounded(lambda v: {"y": function(v["a"])}, {"a": a}, "float64")
    assert torch.equal(walked.values["y"], function(a))


def test_what_depends_on_no_input_is_computed_once() -> None:
    """But once for each arithmetic: 257 is exact in float32 and not in bfloat16."""

    def ramp(values: Values) -> Values:
        return {"y": values["a"] * torch.arange(512, dtype=torch.float64)}

    one, other = drawn("float64", a=(1.0, 2.0)), drawn("float64", a=(-2.0, -1.0))
    graph = record(ramp, one)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        walk(graph, one, Arithmetic.of(dtype))
        kept = dict(graph.known[Arithmetic.of(dtype)])
        again = walk(graph, other, Arithmetic.of(dtype))
        expected = walk(record(ramp, one), other, Arithmetic.of(dtype))
        assert kept or dtype == torch.bfloat16
        assert torch.equal(again.values["y"], expected.values["y"])
        assert torch.equal(again.bounds["y"], expected.bounds["y"])
        found = graph.known[Arithmetic.of(dtype)]
        assert all(found[node] is value for node, value in kept.items())


def test_an_operation_without_a_rule_is_named_and_unbounded() -> None:
    inputs = drawn("float32", a=(1.0, 2.0))
    walked = bounded(lambda v: {"y": torch.special.bessel_j0(v["a"] * 3)}, inputs, "float32")
    assert walked.unbounded == {"aten.special_bessel_j0.default"}
    assert walked.bounds["y"].isinf().all()


@pytest.mark.parametrize("stratum", STRATA)
@pytest.mark.parametrize("dtype", NARROW)
def test_autograd_in_the_dtype_stays_within_its_bound(dtype: str, stratum: str) -> None:
    """The module really run in the dtype, against the bound its graph is given."""
    twin = replace(assignment_twin(), strata=(stratum,), stress=())
    inputs = Cases(twin, DTYPES[dtype], torch.device("cpu"), 11).shard(0)
    wide = {name: value.double() for name, value in inputs.items()}
    actual = gradients_by_autograd(twin.reference, inputs)
    walked = walk(
        record(lambda values: gradients_by_autograd(twin.reference, values), wide),
        wide,
        Arithmetic.of(DTYPES[dtype]),
    )
    for name, gradient in actual.items():
        value, bound = walked.values[name], walked.bounds[name]
        decided = value.isfinite() & (bound <= value.abs() / 2)
        error = (gradient.double() - value).abs()
        assert (error <= bound)[decided].all(), name


@pytest.mark.parametrize("stratum", STRATA)
def test_the_float64_reference_is_as_good_as_its_bound_says(stratum: str) -> None:
    """Autograd in float64 against the closed forms in 50 digits, by the bound for float64."""
    twin = replace(assignment_twin(), strata=(stratum,), stress=())
    inputs = Cases(twin, torch.float64, torch.device("cpu"), 13).shard(0)
    inputs = {name: value[:64] for name, value in inputs.items()}
    graph = record(lambda values: gradients_by_autograd(twin.reference, values), inputs)
    walked = walk(graph, inputs, Arithmetic.of(torch.float64))
    for case in range(64):
        exact = fifty_digits({name: value[case].item() for name, value in inputs.items()})
        for name, truth in exact.items():
            value, bound = walked.values[name][case].item(), walked.bounds[name][case].item()
            if bound <= abs(value) / 2:
                assert abs(mpmath.mpf(value) - truth) <= bound, f"dL/d{name}, case {case}"


def fifty_digits(case: dict[str, float]) -> dict[str, mpmath.mpf]:
    """dL/dz6 and dL/dz3 by the assignment's (5) and d), and dL/dx1, in 50 digits."""
    with mpmath.workdps(400):  # 1 - sigma(700) needs 304 digits before the first of its own
        p = {name: mpmath.mpf(number) for name, number in case.items()}
        s = lambda z: 1 / (1 + mpmath.exp(-z))  # noqa: E731
        z3 = p["w13"] * p["x1"] + p["w23"] * p["x2"] + p["b3"]
        z4, z5 = p["w34"] * s(z3) + p["b4"], p["w35"] * s(z3) + p["b5"]
        z6 = p["w36"] * s(z3) + p["w46"] * s(z4) + p["w56"] * s(z5) + p["b6"]
        dz6 = 2 * (z6**2 - p["t"]) / z6**3
        through4 = p["w34"] * p["w46"] * s(z4) * (1 - s(z4))
        through5 = p["w35"] * p["w56"] * s(z5) * (1 - s(z5))
        dz3 = dz6 * (p["w36"] + through4 + through5) * s(z3) * (1 - s(z3))
        return {"z6": dz6, "w46": dz6 * s(z4), "b6": dz6, "z3": dz3, "x1": dz3 * p["w13"]}


def test_every_parameter_has_a_gradient_in_the_reference() -> None:
    twin = assignment_twin()
    inputs = Cases(twin, torch.float64, torch.device("cpu"), 0).shard(0)
    assert set(manual_bp.PARAMETERS) <= set(gradients_by_autograd(twin.reference, inputs))


def test_inputs_are_taken_by_name() -> None:
    """A dict in another order than the recorded one is the same dict."""
    a, b = torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 5.0]).double()
    graph = record(lambda values: {"y": values["a"] - 2 * values["b"]}, {"a": a, "b": b})
    walked = walk(graph, {"b": b, "a": a}, Arithmetic.of(torch.float64))
    assert torch.equal(walked.values["y"], a - 2 * b)
