"""Right backward passes as people write them, all of which were once called wrong, and wrong ones
that once passed."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from torch_ref import Draw, Report, Twin, TwinError, verify
from torch_ref.compare import DTYPES
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, rules, walk
from torch_ref.compare.twin import Values

Sides = tuple[Callable[[Draw], Values], Callable[[Values], Values], Callable[[Values], Values]]


def gated(function: Callable[[Tensor], Tensor], like: tuple[int, ...] = (6,)) -> Sides:
    """loss = sum(u f(x)), of which dL/du is f(x) itself."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=like), "u": draw.normal(shape=tuple(function(zeros).shape))}

    zeros = torch.zeros(like, dtype=torch.float64)
    return (
        inputs,
        lambda v: {"loss": (function(v["x"]) * v["u"]).sum()},
        lambda v: {"u": function(v["x"])},
    )


def judged(sides: Sides, dtype: str, **options: Any) -> Report:
    return verify(Twin("mine", *sides), dtype=DTYPES[dtype], **options)


# convolutions, of which not every gradient is wanted ---------------------------------------------


def convolution(manual: Callable[[Values], Values]) -> Sides:
    def inputs(draw: Draw) -> Values:
        n = draw.size(4, 7)
        shapes = {"x": (2, 3, n), "w": (4, 3, 3), "u": (2, 4, n - 2)}
        return {name: draw.normal(shape=shape) for name, shape in shapes.items()}

    def reference(values: Values) -> Values:
        return {"loss": (functional.conv1d(values["x"], values["w"]) * values["u"]).sum()}

    return inputs, reference, manual


def by_numpy(values: Values) -> Values:
    x, u = values["x"].numpy(), values["u"].numpy()
    w = np.zeros(values["w"].shape, x.dtype)
    for k in range(3):
        w[:, :, k] = np.einsum("nfl,ncl->fc", u, x[:, :, k : k + u.shape[2]])
    return {"w": torch.from_numpy(w)}


def by_torch(values: Values) -> Values:
    w = torch.nn.grad.conv1d_weight(values["x"], values["w"].shape, values["u"])
    return {"w": w}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("manual", [by_numpy, by_torch])
def test_the_weight_s_gradient_alone(manual: Any, dtype: str) -> None:
    judged(convolution(manual), dtype).assert_agreement()


# masks -------------------------------------------------------------------------------------------


def hidden(like: Tensor, above: int) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool).triu(above)


def additive(fill: float) -> Callable[[Tensor, int], Tensor]:
    return lambda like, above: like + torch.zeros_like(like).masked_fill(hidden(like, above), fill)


def by_the_smallest(like: Tensor, above: int) -> Tensor:
    return like.masked_fill(hidden(like, above), torch.finfo(like.dtype).min)


def by_triangle(like: Tensor, above: int) -> Tensor:
    n = like.shape[-1]
    return like + torch.full((n, n), -torch.inf, dtype=like.dtype).triu(above)


MASKS = {
    "-inf": additive(-math.inf),
    "-1e4": additive(-1e4),
    "the smallest number": by_the_smallest,
    "the smallest number, added": lambda like, above: additive(torch.finfo(like.dtype).min)(
        like, above
    ),
    "-inf by a triangle": by_triangle,
}


def causal(mask: Callable[[Tensor, int], Tensor], above: int) -> Sides:
    def attention(values: Values, first_hidden: int) -> tuple[Tensor, Tensor]:
        scores = mask(values["q"] @ values["k"].T / 2, first_hidden)
        p = scores.softmax(-1)
        return p, p @ values["v"]

    def inputs(draw: Draw) -> Values:
        n = draw.size(2, 6)
        return {name: draw.normal(shape=(n, 4)) for name in ("q", "k", "v", "u")}

    def manual(values: Values) -> Values:
        p, _ = attention(values, above)
        dp = values["u"] @ values["v"].T
        ds = p * (dp - (dp * p).sum(-1, keepdim=True))
        return {"v": p.T @ values["u"], "q": ds @ values["k"] / 2, "k": ds.T @ values["q"] / 2}

    return inputs, lambda v: {"loss": (attention(v, 1)[1] * v["u"]).sum()}, manual


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MASKS)
def test_masks_of_all_kinds(name: str, dtype: str) -> None:
    judged(causal(MASKS[name], 1), dtype).assert_agreement()


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_that_is_off_by_one_differs(name: str) -> None:
    assert judged(causal(MASKS[name], 2), "float64", explain=False).verdict == "differ"


# numbers that are the same in every case ---------------------------------------------------------


def mean_square() -> Sides:
    def inputs(draw: Draw) -> Values:
        return {name: draw.normal(shape=(draw.cases, 3)) for name in ("x", "y")}

    def reference(values: Values) -> Values:
        squares = (values["x"] - values["y"]) ** 2
        return {"squares": squares, "loss": squares.mean(1)}

    def manual(values: Values) -> Values:
        third = torch.ones_like(values["x"]) / 3
        x = 2 * (values["x"] - values["y"]) * third
        return {"squares": third, "x": x, "y": -x}

    return inputs, reference, manual


def pixels() -> Sides:
    def inputs(draw: Draw) -> Values:
        return {"w": draw.normal(), "r": draw.integers(0, 256, (draw.cases,)).to(draw.dtype)}

    return (
        inputs,
        lambda v: {"loss": v["w"] * (v["r"] / 255)},
        lambda v: {"w": v["r"] / 255},
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sides", [mean_square(), pixels()], ids=["a third", "pixels"])
def test_numbers_that_round_alike_in_all_cases(sides: Sides, dtype: str) -> None:
    for seed in (0, 1):
        judged(sides, dtype, seed=seed).assert_agreement()


@pytest.mark.parametrize("number", [0.7, math.pi, 1 / 3])
def test_a_constant_that_is_a_float32_tensor(number: float) -> None:
    sides = (
        lambda draw: {"x": draw.normal(shape=(5,)), "u": draw.normal(shape=(5,))},
        lambda v: {"loss": (number * v["x"] * v["u"]).sum()},
        lambda v: {"x": torch.tensor(number) * v["u"]},
    )
    judged(sides, "float32").assert_agreement()
    assert judged(sides, "float64", explain=False).verdict == "differ"  # it has but 7 digits


# others ------------------------------------------------------------------------------------------


def reciprocal(values: Values) -> Values:
    x, s, u = (values[name].numpy() for name in ("x", "s", "u"))
    assert x.shape == u.shape
    return {"x": torch.from_numpy(u * (1 / s))}


def quotient() -> Sides:
    def inputs(draw: Draw) -> Values:
        return {
            "x": draw.normal(shape=(6,)),
            "s": draw.log_normal(shape=(6,)),
            "u": draw.normal(shape=(6,)),
        }

    return inputs, lambda v: {"loss": (v["x"] / v["s"] * v["u"]).sum()}, reciprocal


def scattered() -> Sides:
    def added(values: Values) -> Tensor:
        room = torch.zeros(3, dtype=values["x"].dtype)
        return room.scatter_(0, values["at"], values["x"].exp(), reduce="add")

    def inputs(draw: Draw) -> Values:
        return {
            "x": draw.normal(shape=(12,)),
            "at": draw.integers(0, 3, (12,)),
            "u": draw.normal(shape=(3,)),
        }

    def reference(values: Values) -> Values:
        zeros = torch.zeros(3, dtype=values["x"].dtype)
        sums = zeros.index_add(0, values["at"], values["x"].exp())
        return {"loss": (sums * values["u"]).sum()}

    return inputs, reference, lambda v: {"u": added(v)}


OTHERS: dict[str, tuple[Sides, tuple[str, ...]]] = {
    "a rounding more, in NumPy": (quotient(), ("float64", "float32")),
    "erf": (gated(torch.erf), tuple(DTYPES)),
    "index_fill": (
        gated(lambda x: (3 * x).index_fill(0, torch.tensor([1, 3]), 0.1)),
        tuple(DTYPES),
    ),
    "fmax": (gated(lambda x: torch.fmax(3 * x, x.exp())), tuple(DTYPES)),
    "fmin": (gated(lambda x: torch.fmin(3 * x, x.exp())), tuple(DTYPES)),
    "flattened": (
        gated(lambda x: functional.logsigmoid(x).flatten(1), (2, 3, 4)),
        ("float64", "float32"),
    ),
    "normalized and flattened": (
        gated(lambda x: functional.batch_norm(x, None, None, training=True).flatten(1), (3, 2, 4)),
        ("float64", "float32"),
    ),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, (_, dtypes) in OTHERS.items() for dtype in dtypes]
)
def test_other_right_hands(name: str, dtype: str) -> None:
    judged(OTHERS[name][0], dtype).assert_agreement()


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
@pytest.mark.parametrize("dtype", DTYPES)
def test_scatter_that_adds(dtype: str) -> None:
    judged(scattered(), dtype).assert_agreement()


def test_complex_numbers_are_not_exact() -> None:
    report = judged(gated(lambda x: torch.fft.rfft(x).abs()), "float32")
    assert report.verdict == "undecided"
    assert any("aten._fft_r2c" in note and "no rounding rule" in note for note in report.notes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_windows_that_are_cut_off(dtype: str) -> None:
    judged(
        gated(lambda x: functional.max_pool2d(3 * x, 2, ceil_mode=True), (1, 2, 5, 5)), dtype
    ).assert_agreement()


def test_a_few_zeros_are_no_agreement() -> None:
    """Behind an operation without a rule only exact zeros can be decided."""

    def inputs(draw: Draw) -> Values:
        n = draw.size(2, 6)
        return {
            "x": draw.uniform(0.5, 3, shape=(n, 4)),
            "w": draw.normal(shape=(4, 3)).relu(),
            "u": draw.normal(shape=(n, 3)),
        }

    def reference(values: Values) -> Values:
        h = torch.special.zeta(3.0, values["x"]) - 1
        return {"h": h, "loss": ((h @ values["w"]).relu() * values["u"]).sum()}

    def wrong(values: Values) -> Values:
        open_units = (torch.special.zeta(3.0, values["x"]) - 1) @ values["w"] > 0
        return {"h": 1.5 * (values["u"] * open_units) @ values["w"].T}

    for dtype in ("float64", "float32"):
        assert judged((inputs, reference, wrong), dtype).verdict == "undecided"


def test_an_eps_of_float64_s_own_is_told() -> None:
    def manual(values: Values) -> Values:
        x = values["x"]
        eps = torch.finfo(x.dtype).eps
        return {"u": x * (x.square().mean(1, keepdim=True) + eps).rsqrt()}

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(3, 8)), "u": draw.normal(shape=(3, 8))}

    def reference(values: Values) -> Values:
        return {"loss": (functional.rms_norm(values["x"], (8,)) * values["u"]).sum()}

    judged((inputs, reference, manual), "float64").assert_agreement()
    report = judged((inputs, reference, manual), "float32")
    assert report.verdict == "differ"
    assert any("adds float64's own eps, 2.2e-16" in note for note in report.notes)


# what is recorded, and rules that meet what they seldom do ----------------------------------------


def masks(values: Values) -> Tensor:
    """Masks that rounding can turn, as numbers beside numbers."""
    positive = values["x"].exp() > 1
    return positive.amax(1, keepdim=True) + values["x"] * 2 + torch.maximum(positive, positive)


def written_through_a_view(values: Values) -> Tensor:
    sums = torch.tensor([0.0, 0.0], dtype=values["x"].dtype)
    sums[0] = values["x"].sum()
    return values["x"] * sums[0].item()


def loss_of(function: Callable[[Values], Tensor]) -> Sides:
    def gated_too(values: Values) -> Values:
        return {"loss": (function(values) * values["u"]).sum()}

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(4, 3)), "u": draw.normal(shape=(4, 3))}

    return inputs, gated_too, lambda v: {"u": function(v)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_count_as_numbers(dtype: str) -> None:
    judged(loss_of(masks), dtype).assert_agreement()


def test_a_number_that_was_written_through_a_view_is_looked_at() -> None:
    with pytest.raises(TwinError, match="it looks at its numbers"):
        judged(loss_of(written_through_a_view), "float64")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_products_in_float32_on_the_way(dtype: str) -> None:
    def product(values: Values) -> Tensor:
        found = functional.linear(values["x"].float(), values["w"].float())
        return found.to(values["x"].dtype)

    def inputs(draw: Draw) -> Values:
        shapes = {"x": (5, 8), "w": (3, 8), "u": (5, 3)}
        return {name: draw.normal(shape=shape) for name, shape in shapes.items()}

    sides = (
        inputs,
        lambda v: {"loss": (product(v) * v["u"]).sum()},
        lambda v: {"u": product(v)},
    )
    report = judged(sides, dtype)
    report.assert_agreement()
    assert any("computes in float32 on the way" in note for note in report.notes)


def test_what_a_rule_cannot_do_is_said_by_the_twin_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(operation: Any) -> Any:
        raise RuntimeError("no such kernel")

    sides = gated(torch.sinh)
    monkeypatch.setitem(rules._BY_NAME, "sinh", broken)
    says = r"mine: the reference's rounding cannot be bounded .*no such kernel"
    with pytest.raises(TwinError, match=says):
        judged(sides, "float64")


def test_inference_mode_is_left_out() -> None:
    with torch.inference_mode():
        judged(gated(torch.sin), "float64").assert_agreement()


def test_a_product_that_overflows_is_no_number_of_the_dtype() -> None:
    """1/(a b) is 0 in float16 where a b lies half a rounding beyond its largest number."""

    def inverse(values: Values) -> Values:
        return {"y": values["c"] / (values["a"] * values["b"])}

    given = {
        name: torch.tensor([number], dtype=torch.float64)
        for name, number in {"a": 256.25, "b": 255.75, "c": 1e4}.items()
    }
    walked = walk(record(inverse, given), given, Arithmetic.of(torch.float16))
    assert bool(walked.bounds["y"].isinf().all())


# hands that ask what is true of their numbers ----------------------------------------------------


def normalized(values: Values) -> Values:
    x = values["x"]
    y = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    return {"loss": (y * values["u"]).sum()}


def by_one_pass(values: Values, *, wrong: float = 1.0) -> Values:
    """The variance as the mean square less the squared mean, which loses digits."""
    x, u = values["x"], values["u"]
    mean = x.mean(1, keepdim=True)
    scale = ((x * x).mean(1, keepdim=True) - mean * mean + 1e-5).rsqrt()
    y = (x - mean) * scale
    dx = scale * (u - u.mean(1, keepdim=True) - wrong * y * (u * y).mean(1, keepdim=True))
    assert torch.isfinite(y).all()
    if bool((x > 0).all()):
        return {"u": y * 1.0, "x": dx}
    return {"u": y, "x": dx}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_hand_that_asks_is_bounded_as_it_computes(dtype: str) -> None:
    def inputs(draw: Draw) -> Values:
        return {name: draw.normal(mean=3.0, shape=(3, 8)) for name in "xu"}

    twin = Twin("norm", inputs, normalized, by_one_pass, stress=("zeros", "strided"))
    report = verify(twin, dtype=DTYPES[dtype])
    report.assert_agreement()
    assert "The manual side asks what is true of its numbers" in " ".join(report.notes)
    assert "no rounding bound of its own" not in " ".join(report.notes)
    broken = Twin("norm", inputs, normalized, lambda values: by_one_pass(values, wrong=1.01))
    assert verify(broken, dtype=DTYPES[dtype]).mistakes == ("x",)


# gradients that are 0, and counts -----------------------------------------------------------------


def test_a_gradient_that_is_0_but_for_rounding_says_so() -> None:
    """Softmax does not change with what is added to all of its numbers."""

    def inputs(draw: Draw) -> Values:
        return {
            "x": draw.normal(shape=(5,)),
            "b": draw.normal(shape=()),
            "u": draw.normal(shape=(5,)),
        }

    def manual(values: Values) -> Values:
        p, u = (values["x"] + values["b"]).softmax(0), values["u"]
        dz = p * (u - (p * u).sum())
        return {"x": dz, "b": dz.sum()}

    def reference(values: Values) -> Values:
        return {"loss": ((values["x"] + values["b"]).softmax(0) * values["u"]).sum()}

    report = verify(Twin("shift", inputs, reference, manual))
    assert {row.name: row.verdict for row in report.rows} == {"x": "agree", "b": "undecided"}
    with pytest.raises(AssertionError, match="no digit of autograd's own: the truth may be 0"):
        report.assert_agreement()


@pytest.mark.parametrize("least", [1, 2])
def test_a_mask_is_counted_exactly(least: int) -> None:
    """Where one is left c > 1 is false for sure, so that the mistake c > 1 for c >= 1 shows."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(3,)), "m": draw.booleans(0.4, shape=(3,))}

    def mean(values: Values, least: int = 1) -> tuple[Tensor, Tensor]:
        kept = values["m"].to(values["x"].dtype)
        count = kept.sum()
        weight = torch.where(count >= least, kept / count.clamp(min=1), 0.0)
        return (values["x"] * weight).sum(), weight

    def manual(values: Values) -> Values:
        found, weight = mean(values, least)
        return {"x": 2 * found * weight}

    twin = Twin("mean", inputs, lambda values: {"loss": mean(values)[0] ** 2}, manual)
    assert verify(twin).verdict == ("agree" if least == 1 else "differ")
