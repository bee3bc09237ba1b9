"""Twins made from an nn.Module and from an autograd.Function."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torch_ref import Draw, Twin, TwinError, verify

Values = dict[str, Tensor]
NET = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def net_inputs(draw: Draw) -> Values:
    rows = draw.size(1, 5)
    return {"input": draw.normal(shape=(rows, 3)), "t": draw.normal(shape=(rows, 1))}


def mean_square(output: Tensor, values: Values) -> Tensor:
    return ((output - values["t"]) ** 2).mean()


def net_backward(v: Values) -> Values:
    x = v["input"]
    a = torch.tanh(x @ v["0.weight"].T + v["0.bias"])
    y = a @ v["2.weight"].T + v["2.bias"]
    dy = 2 * (y - v["t"]) / y.numel()
    da = dy @ v["2.weight"]
    dz = da * (1 - a * a)
    return {
        "2": dy, "2.weight": dy.T @ a, "2.bias": dy.sum(0),
        "1": da, "0": dz, "0.weight": dz.T @ x, "0.bias": dz.sum(0),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_module_and_its_submodules(dtype: torch.dtype, device: str) -> None:
    twin = Twin.from_module(NET, mean_square, net_backward, net_inputs)
    report = verify(twin, cases=27, dtype=dtype, device=device)
    report.assert_agreement()
    assert report.twin == "Sequential"
    assert report.missing == ("input", "t")


def test_a_wrong_submodule_is_named_by_its_path() -> None:
    def wrong(values: Values) -> Values:
        found = net_backward(values)
        return {**found, "0": found["1"], "0.bias": found["1"].sum(0)}

    report = verify(Twin.from_module(NET, mean_square, wrong, net_inputs), cases=27)
    assert report.mistakes == ("0",)
    assert "dL/d0 lacks the factor" in report.explanation


def test_the_modules_own_parameters_are_what_is_drawn_around() -> None:
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.fill_(100.0)
        net.bias.zero_()
    twin = Twin.from_module(net, lambda output, v: output.sum(), lambda v: {}, lambda d: {
        "input": d.normal(shape=(1, 2))})  # fmt: skip
    seen = []

    def manual(values: Values) -> Values:
        seen.append(values)
        return {"bias": torch.ones_like(values["bias"])}

    verify(replace(twin, manual=manual, stress=()), cases=20).assert_agreement()
    weights = torch.stack([values["weight"] for values in seen if len(seen) > 1])
    assert weights.mean() == pytest.approx(100, abs=60)
    assert weights.std() > 20
    assert net.weight.mean() == 100


class Cube(torch.autograd.Function):
    """x^3, right in both orders: what backward needs is made from the inputs anew."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * upstream * x * x


class SavedSquare(Cube):
    """The same, with x^2 saved in forward: right once, wrong twice (pytorch/pytorch#76185)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        square = x * x
        ctx.save_for_backward(square)
        return square * x

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (square,) = ctx.saved_tensors
        return 3 * upstream * square


class Once(Cube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * upstream * x * x


class IgnoresUpstream(Cube):
    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x * x * torch.ones_like(upstream)


class WrongForward(Cube):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3 * (1 + 1e-9)


class TakesUpstreamForContiguous(Cube):
    """As a kernel does that walks through memory without looking at strides."""

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        flat = upstream if upstream.is_contiguous() else upstream.flip(-1)
        return 3 * flat * x * x


def cube(x: Tensor) -> Tensor:
    return x * x * x


def of(function: type[torch.autograd.Function]) -> Twin:
    return Twin.from_function(
        function.apply, cube, lambda draw: {"x": draw.normal(shape=(draw.size(2, 5), 3))}
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_function_that_is_right_twice(dtype: torch.dtype) -> None:
    report = verify(of(Cube), cases=27, dtype=dtype)
    report.assert_agreement()
    assert report.twin == "Cube"
    names = ["upstream", "x", "x (twice)", "upstream (twice)", "direction of x"]
    assert [row.name for row in report.rows] == names
    assert report.missing == ()


def test_saved_intermediates_make_the_double_backward_wrong() -> None:
    report = verify(of(SavedSquare), cases=27)
    assert [row.name for row in report.rows if row.verdict == "differ"] == ["x (twice)"]


def test_a_function_that_claims_no_double_backward_is_not_asked_for_one() -> None:
    report = verify(of(Once), cases=27)
    report.assert_agreement()
    assert [row.name for row in report.rows] == ["upstream", "x"]


def test_the_upstream_gradient_is_not_1() -> None:
    report = verify(of(IgnoresUpstream), cases=27)
    assert report.first_wrong == "x"
    assert "lacks the factor upstream" in report.explanation


def test_the_forward_pass_is_the_gradient_of_the_upstream() -> None:
    assert verify(of(WrongForward), cases=27, explain=False).first_wrong == "upstream"


def test_upstream_gradients_of_every_layout() -> None:
    report = verify(of(TakesUpstreamForContiguous), cases=27, explain=False)
    assert report.first_wrong == "x"
    assert report.rows[1].stratum in ("strided", "expanded")


def test_what_autograd_cannot_follow_is_said() -> None:
    twin = Twin.from_function(
        lambda x: x.detach() ** 3, cube, lambda draw: {"x": draw.normal(shape=(3,))}
    )
    with pytest.raises(TwinError, match="autograd cannot follow `apply`"):
        verify(twin, cases=9)
