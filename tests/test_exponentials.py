"""Softmax and its kin: bounds that are reached and never passed, and chains of them."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_ref import Twin, verify
from torch_ref.compare.graphs.recording import recorded
from torch_ref.compare.graphs.side import record
from torch_ref.compare.graphs.taken_apart import DECOMPOSITIONS
from torch_ref.compare.rounding import Arithmetic, walk
from torch_ref.compare.twin import Values

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
}
EXACT = Arithmetic.of(torch.float64).of_constants_only()
NUMBERS = st.lists(st.floats(-30, 30), min_size=1, max_size=5)
SIZES = st.lists(st.floats(0, 3), min_size=5, max_size=5)


def bound_of(name: str, value: Tensor, error: Tensor) -> Tensor:
    graph = record(lambda values: {"y": FUNCTIONS[name](values["x"])}, {"x": value})
    return walk(graph, {"x": value}, EXACT, bounds={"x": error}).bounds["y"]


@settings(deadline=None)
@given(numbers=NUMBERS, sizes=SIZES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_farthest_corner_of_the_errors_is_the_bound(
    name: str, numbers: list[float], sizes: list[float]
) -> None:
    value = torch.tensor(numbers, dtype=torch.float64)
    error = torch.tensor(sizes[: len(numbers)], dtype=torch.float64)
    function = FUNCTIONS[name]
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=len(numbers))), dtype=torch.float64)
    moved = (function(value + corners * error) - function(value)).abs().amax(0)
    bound = bound_of(name, value, error)
    torch.testing.assert_close(bound, moved, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("mask", [-math.inf, -1e38])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_mask_takes_no_part(name: str, mask: float) -> None:
    value = torch.tensor([1.0, mask, 2.0], dtype=torch.float64)
    error = torch.tensor([0.1, 0.0 if math.isinf(mask) else 1e31, 0.2], dtype=torch.float64)
    masked, alone = bound_of(name, value, error), bound_of(name, value[::2], error[::2])
    torch.testing.assert_close(masked[::2] if masked.ndim else masked, alone)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_may_be_infinite_is_open(name: str) -> None:
    error = torch.tensor([0.0, math.inf], dtype=torch.float64)
    assert bound_of(name, torch.tensor([1.0, -800.0]).double(), error).isinf().all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_s_own_keep_within_the_bounds(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    for scale, size in product((1e-3, 1.0, 30.0, 300.0), (1, 7, 1000)):
        value = (scale * torch.randn(20, size, generator=generator)).to(dtype)
        value[value < -2.5 * scale] = -math.inf
        wide = value.double()
        graph = record(lambda values: {"y": FUNCTIONS[name](values["x"])}, {"x": wide})
        walked = walk(graph, {"x": wide}, Arithmetic.of(dtype))
        found, expected = FUNCTIONS[name](value).double(), walked.values["y"]
        near = (found - expected).abs() <= walked.bounds["y"]
        assert (near | (found == expected) | expected.isnan()).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_axis_of_size_0_has_nothing_to_bound(name: str) -> None:
    bound = bound_of(name, torch.zeros(2, 0).double(), torch.zeros(2, 0).double())
    assert not bound.any()


def test_the_largest_number_stays_what_it_is_only_where_the_others_are_nothing_beside_it() -> None:
    def bounds(numbers: list[float], dtype: torch.dtype) -> Values:
        inputs = {"x": torch.tensor(numbers).double()}
        graph = record(
            lambda v: {"so far": v["x"].logcumsumexp(0), "in all": v["x"].logsumexp(0)}, inputs
        )
        return walk(graph, inputs, Arithmetic.of(dtype)).bounds

    least = torch.finfo(torch.float16).min
    assert not any(bound.any() for bound in bounds([-least, 1.0], torch.float16).values())
    twice = bounds([least, least], torch.float16)  # log 2 is half of the last place's thirty-second
    assert twice["so far"][0] == 0
    assert twice["so far"][1] >= math.log(2)
    assert twice["in all"] >= math.log(2)


def masked(values: Values) -> Tensor:
    """Attention's weights with a mask as libraries write it; the first row is masked altogether."""
    scores = values["q"] @ values["k"].mT
    rows = torch.arange(len(scores))[:, None]
    return scores.masked_fill(rows <= torch.arange(len(scores)), torch.finfo(scores.dtype).min)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_mask_by_the_dtype_s_own_least_number_is_decided(dtype: torch.dtype) -> None:
    def manual(values: Values) -> Values:
        p, v = masked(values).softmax(-1), values["v"]
        up = 2 * (p @ v)
        scores = p * (up @ v.mT - (up * (p @ v)).sum(-1, keepdim=True))
        scores = scores.masked_fill(masked(values) < -1e30, 0.0)
        return {"q": scores @ values["k"], "k": scores.mT @ values["q"], "v": p.mT @ up}

    twin = Twin(
        "masked",
        lambda draw: {name: draw.normal(shape=(4, 3)) for name in "qkv"},
        lambda values: {"loss": ((masked(values).softmax(-1) @ values["v"]) ** 2).sum()},
        manual,
    )
    report = verify(twin, cases=40, dtype=dtype)
    assert report.verdict == "agree"
    if dtype != torch.bfloat16:
        assert max(row.undecided for row in report.rows if row.name == "v") < 0.2


def test_a_softmax_that_widens_its_numbers_itself_is_one_after_a_cast() -> None:
    graph = recorded(
        lambda x: (torch.ops.aten._softmax(x, -1, True), torch.ops.aten._log_softmax(x, -1, True)),
        torch.ones(3, dtype=torch.float16),
        decompositions=DECOMPOSITIONS,
    )
    value = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16)
    for found, function in zip(graph(value), (torch.softmax, torch.log_softmax), strict=True):
        torch.testing.assert_close(found, function(value.float(), -1))


def sinkhorn(x: Tensor) -> Tensor:
    """Rows and columns normalized by turns: a doubly stochastic matrix (Sinkhorn 1964)."""
    for _ in range(3):
        x = x.log_softmax(0).log_softmax(1)
    return x


def sinkhorn_by_hand(values: Values) -> Values:
    x, kept = values["x"], []
    for _ in range(3):
        for axis in (0, 1):
            x = x.log_softmax(axis)
            kept.append((axis, x))
    g = 2 * x
    for axis, y in reversed(kept):
        g = g - y.exp() * g.sum(axis, keepdim=True)
    return {"x": g}


def twin_of(manual: Callable[[Values], Values]) -> Twin:
    return Twin(
        "Sinkhorn",
        lambda draw: {"x": draw.normal(shape=(draw.size(2, 5), draw.size(2, 5)))},
        lambda values: {"loss": (sinkhorn(values["x"]) ** 2).sum()},
        manual,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chain_of_them_is_decided(dtype: torch.dtype) -> None:
    report = verify(twin_of(sinkhorn_by_hand), cases=40, dtype=dtype)
    assert report.verdict == "agree", str(report)


def test_a_chain_with_a_mistake_differs() -> None:
    wrong = twin_of(lambda values: {"x": sinkhorn_by_hand(values)["x"] * 1.01})
    assert verify(wrong, cases=40, dtype=torch.float32).verdict == "differ"


def test_a_sum_lost_in_float32_is_no_mistake() -> None:
    """Where one number is by far the largest float32 returns it as it is, and float64 does not."""
    x = torch.tensor([[44.0, 18.0], [30.0, 4.0], [3.0, 2.0]], dtype=torch.float64)
    narrow, wide = (
        walk(record(function, {"x": x}), {"x": x}, Arithmetic.of(torch.float32))
        for function in (
            lambda v: {"y": v["x"].float().logsumexp(1).double()},
            lambda v: {"y": v["x"].logsumexp(1)},
        )
    )
    assert (narrow.values["y"] != wide.values["y"])[:2].all()
    assert ((narrow.values["y"] - wide.values["y"]).abs() <= narrow.bounds["y"]).all()
