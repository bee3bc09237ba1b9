"""Right backward passes where functions have poles, where something overflows on the way, and where
0/0 or NaN arise: all of them were once called wrong, or hid what was wrong."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from torch_ref import Draw, Twin, verify
from torch_ref.compare import DTYPES
from torch_ref.compare.pooled import BIAS_IN_FLOAT64, Pool
from torch_ref.compare.twin import Values

LOW = ["float32", "bfloat16", "float16"]


def of_one(*names: str) -> Callable[[Draw], Values]:
    return lambda draw: {name: draw.normal() for name in names}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("dtype", LOW)
def test_tan_near_its_poles(dtype: str, seed: int) -> None:
    def reference(v: Values) -> Values:
        s = v["a"] * v["b"]
        y = torch.tan(s)
        return {"s": s, "y": y, "loss": y * v["a"]}

    def manual(v: Values) -> Values:
        y = torch.tan(v["a"] * v["b"])
        return {"y": v["a"] * 1, "s": v["a"] * (1 + y * y)}

    verify(
        Twin("tan", of_one("a", "b"), reference, manual), dtype=dtype, seed=seed
    ).assert_agreement()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_reciprocal_of_what_may_be_0(seed: int) -> None:
    def difference(v: Values) -> Tensor:
        return v["a"] * v["b"] - v["c"] * v["d"]

    def reference(v: Values) -> Values:
        s = difference(v)
        y = 1 / s
        return {"s": s, "y": y, "loss": y * v["a"]}

    def manual(v: Values) -> Values:
        s = difference(v)
        return {"y": v["a"] * 1, "s": -v["a"] * (1 / (s * s))}

    twin = Twin("reciprocal", of_one("a", "b", "c", "d"), reference, manual)
    verify(twin, dtype="bfloat16", seed=seed, cases=300_000).assert_agreement()


@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_as_kernels_compute_it(training: bool, offset: float) -> None:
    def normalized(x: Tensor, w: Tensor, b: Tensor, m: Tensor, v: Tensor) -> Tensor:
        mean, var = (None, None) if training else (m.detach(), v.detach())
        return functional.batch_norm(x, mean, var, w, b, training)

    def inputs(draw: Draw) -> Values:
        return {
            "x": draw.normal(offset, 1.0, shape=(6, 4, 5)),
            **{name: draw.normal(shape=(4,)) for name in ("w", "b")},
            "m": draw.normal(offset, 0.1, shape=(4,)),
            "v": draw.uniform(0.5, 2.0, shape=(4,)),
        }

    twin = Twin.from_function(normalized, normalized, inputs, name="batch norm")
    assert verify(twin, dtype="float32", cases=100).verdict == "agree"


def test_a_row_of_zeros_normalized() -> None:
    """In float16 eps is 0, and 0/0 no number on either side."""
    twin = Twin.from_function(
        functional.normalize, functional.normalize, lambda draw: {"x": draw.normal(shape=(4, 3))}
    )
    assert verify(twin, dtype="float16", cases=100).verdict == "agree"


def test_a_gradient_that_overflows_by_a_partial_sum() -> None:
    def norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return functional.layer_norm(x, (8,), w, b)

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(3, 8)), "w": draw.normal(shape=(8,)),
                "b": draw.normal(shape=(8,))}  # fmt: skip

    twin = Twin.from_function(norm, norm, inputs)
    assert verify(twin, dtype="float16", cases=120).verdict == "agree"


@pytest.mark.parametrize(("dtype", "decades"), [("float32", 15), ("float16", 2), ("bfloat16", 15)])
def test_products_that_overflow_and_underflow_on_the_way(dtype: str, decades: int) -> None:
    def inputs(draw: Draw) -> Values:
        sizes = 10.0 ** draw.generator.uniform(-decades, decades, size=6)
        return {"x": draw.cast(sizes * draw.generator.choice([-1, 1], 6)),
                "c": draw.normal(shape=(1,))}  # fmt: skip

    def reference(v: Values) -> Values:
        y = v["x"].prod(0)
        return {"y": y, "loss": (y * y * v["c"]).sum()}

    def manual(v: Values) -> Values:
        y = v["x"].prod(0)
        return {"y": 2 * y * v["c"][0], "c": (y * y)[None]}

    twin = Twin("prod", inputs, reference, manual, stress=())
    assert verify(twin, dtype=dtype, cases=300).verdict != "differ"


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_cumprod_behind_what_rounds_is_decided(factor: float, rounded: bool) -> None:
    sign = -1 if rounded else 1

    def factors(v: Values) -> Tensor:
        return 1 - v["a"] if rounded else v["a"]

    def inputs(draw: Draw) -> Values:
        return {"a": draw.uniform(0.05, 0.9, shape=(4,)), "c": draw.normal(shape=(4,))}

    def manual(v: Values) -> Values:
        passed = v["c"] * factors(v).cumprod(0)
        return {"a": factor * sign * passed.flip(0).cumsum(0).flip(0) / factors(v)}

    twin = Twin(
        "rays",
        inputs,
        lambda v: {"loss": (factors(v).cumprod(0) * v["c"]).sum()},
        manual,
        stress=(),
    )
    for dtype in ("float64", "float32"):
        expected = "agree" if factor == 1 else "differ"
        assert verify(twin, dtype=dtype, cases=40).verdict == expected


def test_a_number_that_is_none_decides_nothing() -> None:
    """inf - inf on both sides: what is then chosen says nothing of the hand."""

    def reference(v: Values) -> Values:
        d = v["a"].exp() - v["b"].exp() + 1
        return {"d": d, "loss": d.relu()}

    def manual(v: Values) -> Values:
        d = v["a"].exp() - v["b"].exp() + 1
        return {"d": (d > 0).to(d.dtype)}

    twin = Twin("hinge", of_one("a", "b"), reference, manual)
    verify(twin, dtype="float32").assert_agreement()


def test_exp_of_a_few_numbers_may_be_off_the_same_way_in_all_cases() -> None:
    """An exponential written in C and torch's are not the same at 1: in float64 no mistake."""
    unit = 2.0**-53
    pool = Pool(signed=1.8 * unit * 1e36, squares=1e36, spread=1e36, cases=10**6, deviations=1e3)
    assert pool.allowed(unit) > BIAS_IN_FLOAT64 * unit
    assert not pool.biased(unit)
    assert pool.biased(unit / 4)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_number_is_wrong_where_no_digit_is_left(dtype: str) -> None:
    """0 / 0 where tanh is 1, of whose slope rounding leaves nothing."""

    def manual(values: Values) -> Values:
        y = torch.tanh(values["x"])
        slope = 1 - y * y
        return {"x": 2 * y * slope * (slope / slope)}

    twin = Twin(
        "tanh",
        lambda draw: {"x": draw.normal(std=3.0, shape=(8,))},
        lambda values: {"loss": torch.tanh(values["x"]).square().sum()},
        manual,
    )
    report = verify(twin, dtype=DTYPES[dtype])
    assert report.verdict == "differ"
    assert report.explanation.startswith("dL/dx is not a number")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_mistake_beside_one_hot_is_explained(dtype: str) -> None:
    """The witness records the reference, too."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(4, 3)), "t": draw.integers(0, 3, shape=(4,))}

    def reference(v: Values) -> Values:
        z = 2 * v["x"]
        chosen = functional.one_hot(v["t"], 3).to(z.dtype)
        return {"z": z, "loss": -(z.log_softmax(1) * chosen).sum() / len(z)}

    def manual(v: Values) -> Values:
        z = 2 * v["x"]
        return {"z": z.softmax(1) - functional.one_hot(v["t"], 3).to(z.dtype)}

    report = verify(Twin("choice", inputs, reference, manual), dtype=DTYPES[dtype], cases=40)
    assert report.verdict == "differ"
    assert "dL/dz is 4 times the truth" in report.explanation


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_reference_may_ask_what_is_true_of_its_numbers(dtype: str) -> None:
    def inputs(draw: Draw) -> Values:
        return {"m": draw.normal(shape=(5,)), "t": draw.normal(shape=(5,)),
                "s": draw.log_normal(shape=(5,))}  # fmt: skip

    def reference(v: Values) -> Values:
        assert (v["s"] > 0).all()
        return {"loss": functional.gaussian_nll_loss(v["m"], v["t"], v["s"], reduction="sum")}

    def manual(v: Values) -> Values:
        gap = v["m"] - v["t"]
        return {"m": gap / v["s"], "s": 0.5 / v["s"] - 0.5 * (gap / v["s"]) ** 2}

    twin = Twin("nll", inputs, reference, manual, stress=("equal", "scaled up"))
    report = verify(twin, dtype=DTYPES[dtype], cases=60)
    report.assert_agreement()
    assert "asks what is true of its numbers (if, assert)" in " ".join(report.notes)


def test_a_witness_abstains_where_the_reference_raises() -> None:
    """Moved by a step, a variance leaves the domain."""

    def reference(v: Values) -> Values:
        assert (v["s"] > 0).all()
        return {"loss": functional.gaussian_nll_loss(v["m"], 0 * v["m"], v["s"], reduction="sum")}

    def without_its_clamp(v: Values) -> Values:
        return {"m": v["m"] / v["s"], "s": 0.5 / v["s"] - 0.5 * (v["m"] / v["s"]) ** 2}

    def inputs(draw: Draw) -> Values:
        return {"m": draw.normal(shape=(5,)), "s": draw.log_normal(-16, 2, shape=(5,))}

    report = verify(Twin("nll", inputs, reference, without_its_clamp, stress=()), cases=40)
    assert report.verdict == "differ"
    assert "dL/dm" in report.explanation


def test_a_reference_that_stops_a_gradient_on_purpose_is_not_blamed() -> None:
    """A straight-through estimator, and a hand that differentiates the rounding."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(6,)), "u": draw.normal(shape=(6,))}

    def reference(v: Values) -> Values:
        y = 2 * v["x"]
        q = y + (y.round() - y).detach()
        return {"y": y, "loss": (q * v["u"]).sum()}

    report = verify(Twin("STE", inputs, reference, lambda v: {"y": 0 * v["u"]}), cases=40)
    assert report.verdict == "differ"
    assert "dL/dy is 0" in report.explanation
    assert "the reference's dL/dy is wrong" not in report.explanation


def test_a_target_worked_out_without_gradients_is_stopped_on_purpose() -> None:
    """Temporal differences, and a hand that goes on through the target."""

    def reference(v: Values) -> Values:
        with torch.no_grad():
            target = v["reward"] + 0.9 * v["w"] * v["next"]
        return {"loss": (v["w"] * v["now"] - target) ** 2}

    def manual(v: Values) -> Values:
        apart = v["w"] * v["now"] - v["reward"] - 0.9 * v["w"] * v["next"]
        return {"w": 2 * apart * (v["now"] - 0.9 * v["next"])}

    names = ("w", "now", "next", "reward")
    twin = Twin("TD", lambda draw: {n: draw.normal() for n in names}, reference, manual)
    report = verify(twin, cases=500)
    assert report.first_wrong == "w"
    assert "the reference's dL/dw is wrong" not in report.explanation
