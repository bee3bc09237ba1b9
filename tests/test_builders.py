"""Twins made from an autograd.Function; those from an nn.Module have a file of their own."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torch_ref import Draw, Twin, TwinError, verify

Values = dict[str, Tensor]


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


class SavedSlope(Cube):
    """x^2, with its derivative saved in forward: right once, wrong twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        slope = 2 * x
        ctx.save_for_backward(slope)
        return x * x

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return upstream * slope


class Once(Cube):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * upstream * x * x


class Twofold(torch.autograd.Function):
    """2 x: its gradient depends on no x; it forgets its own backward where `backward` is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x


class Double(Twofold):
    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return 2 * upstream


class Both(torch.autograd.Function):
    """x s and x^2 s, and which x are positive."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x, s)
        ctx.mark_non_differentiable(positive := x > 0)
        return x * s, positive, x * x * s

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        x, s = ctx.saved_tensors
        first, _, second = upstream
        return first * s + 2 * second * x * s, (first * x + second * x * x).sum()


class HalfOfBoth(Both):
    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        x, s = ctx.saved_tensors
        return upstream[0] * s, (upstream[0] * x).sum()


class Raises(Cube):
    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        raise KeyError("scale")


class NotRecorded(Cube):
    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * upstream.detach() * x.detach() ** 2


class HasNoDerivative(Cube):
    """Its backward uses an operation for which torch has none."""

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return Twofold.apply(upstream) * 1.5 * x * x


class ShapeOfDoubleBackward(Cube):
    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return WrongShape.apply(upstream) * 3 * x * x


class WrongShape(Twofold):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream.new_ones(7, 7)


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


def rows(draw: Draw) -> Values:
    return {"x": draw.normal(shape=(draw.size(2, 5), 3))}


def of(function: type[torch.autograd.Function], reference: Any = cube) -> Twin:
    return Twin.from_function(function.apply, reference, rows)


def both(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x * s, x > 0, x * x * s


def of_both(function: type[torch.autograd.Function]) -> Twin:
    def inputs(draw: Draw) -> Values:
        return {**rows(draw), "s": draw.normal(shape=())}

    return Twin.from_function(function.apply, both, inputs)


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


@pytest.mark.parametrize("function", [Once, NotRecorded, HasNoDerivative])
def test_a_function_that_claims_no_double_backward_is_not_asked_for_one(function: Any) -> None:
    report = verify(of(function), cases=27)
    report.assert_agreement()
    assert [row.name for row in report.rows] == ["upstream", "x"]
    assert report.missing == ("x (twice)", "upstream (twice)", "direction of x")
    assert len(report.notes) == 1
    assert report.notes[0].startswith("double backward is not checked: ")


def test_a_double_backward_that_raises_is_no_agreement() -> None:
    says = "ShapeOfDoubleBackward: the double backward of `apply` raised RuntimeError.* shape"
    with pytest.raises(TwinError, match=f"{says}.*forbid it with once_differentiable"):
        verify(of(ShapeOfDoubleBackward), cases=9)


def test_a_reference_without_second_derivatives_is_said() -> None:
    with pytest.raises(TwinError, match=r"the reference cannot be differentiated twice .*marked"):
        verify(of(Cube, Once.apply), cases=9)
    verify(of(Once, Once.apply), cases=9).assert_agreement()


@pytest.mark.parametrize("function", [SavedSlope, SavedSquare])
def test_a_wrong_double_backward_is_blamed_on_the_hand(function: Any) -> None:
    """The witness sees the second order as well: its finite differences run without autograd."""
    twin = of(function) if function is SavedSquare else of(function, torch.square)
    report = verify(twin, cases=27)
    assert report.mistakes == ("x (twice)",)
    assert report.diagnosis.blame == "manual"
    assert report.explanation == "dL/dx (twice) is 0 everywhere"


def test_a_wrong_double_backward_of_the_reference_is_blamed_on_it() -> None:
    report = verify(of(Cube, SavedSquare.apply), cases=27)
    assert report.first_wrong == "x (twice)"
    assert report.diagnosis.blame == "reference"


def test_second_order_gradients_that_are_0_by_nature_are_left_out() -> None:
    report = verify(of(Double, lambda x: 2 * x), cases=27)
    report.assert_agreement()
    names = ["upstream", "x", "upstream (twice)", "direction of x"]
    assert [row.name for row in report.rows] == names
    assert (report.notes, report.missing) == ((), ())


def test_a_tuple_comes_out() -> None:
    report = verify(of_both(Both), cases=27)
    report.assert_agreement()
    names = {row.name for row in report.rows}
    assert {"upstream", "upstream 2", "x", "s", "upstream 2 (twice)", "x (twice)"} <= names
    report = verify(of_both(HalfOfBoth), cases=27, explain=False)
    assert report.first_wrong == "x"


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


BREACHES = {
    "autograd cannot follow `apply`": (lambda x: x.detach() ** 3, cube, rows),
    "the backward of `apply` raised KeyError at test_builders.py.*": (Raises.apply, cube, rows),
    "`apply` raised TypeError": (lambda: None, cube, rows),
    "reference raised TypeError": (Cube.apply, lambda: None, rows),
    "reference must return a floating tensor, .*; got dict": (Cube.apply, lambda x: {}, rows),
    r"same shapes; got \(\d, 3\) from `apply` and \(3,\) from reference": (
        Cube.apply, lambda x: x.sum(0), rows,
    ),
    'inputs gave "upstream", a name that from_function makes itself': (
        torch.mul, torch.mul, lambda draw: {"x": draw.normal(), "upstream": draw.normal()},
    ),
    "inputs must return a dict of tensors by name; got list": (Cube.apply, cube, lambda draw: []),
    "inputs gave x as torch.float16": (Cube.apply, cube, lambda draw: {"x": torch.ones(3).half()}),
}  # fmt: skip


@pytest.mark.parametrize("sentence", BREACHES)
def test_what_keeps_a_function_from_being_judged_is_said(sentence: str) -> None:
    apply, reference, inputs = BREACHES[sentence]
    with pytest.raises(TwinError, match=sentence):
        verify(Twin.from_function(apply, reference, inputs, name="mine"), cases=9)


class Binary(torch.autograd.Function):
    """sign(w) of the mean size of its row (Rastegari et al. 2016), as if not clipped within 1."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        ctx.save_for_backward(w)
        return torch.sign(w) * w.abs().mean(1, keepdim=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (w,) = ctx.saved_tensors
        size, sign = w.abs().mean(1, keepdim=True), torch.sign(w)
        return upstream * size * (w.abs() <= 1) + sign * (upstream * sign).mean(1, keepdim=True)


def test_a_reference_that_detaches_beside_a_function() -> None:
    def straight_through(w: Tensor) -> Tensor:
        clipped = w.clamp(-1, 1)
        return (clipped + (torch.sign(w) - clipped).detach()) * w.abs().mean(1, keepdim=True)

    def drawn(draw: Draw) -> Values:
        return {"w": draw.normal(shape=(draw.size(1, 4), draw.size(2, 6)))}

    twin = Twin.from_function(Binary.apply, straight_through, drawn)
    for dtype in ("float64", "bfloat16"):
        verify(twin, dtype=dtype, cases=24).assert_agreement()
