"""What autograd expects of a Function besides the numbers: breaches found, and none invented."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from torch_ref import Draw, Report, Twin, TwinError, verify

Values = dict[str, Tensor]


def scaled(x: Tensor, w: Tensor) -> Tensor:
    return x.tanh() * w


def both(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dx and dL/dw of tanh(x) w."""
    x, w = ctx.saved_tensors
    y = x.tanh()
    return g * w * (1 - y * y), g * y


class Right(Function):
    """tanh(x) w, as it should be written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x.tanh() * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        dx, dw = both(ctx, g)
        return dx if ctx.needs_input_grad[0] else None, dw if ctx.needs_input_grad[1] else None


class TwoOutputs(Function):
    """(2 x, x w) with gradients of outputs that may have none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        return 2 * x, x * w

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        dx, dw = torch.zeros_like(x), torch.zeros_like(w)
        if g is not None:
            dx = dx + 2 * g
        if h is not None:
            dx, dw = dx + h * w, dw + h * x
        return dx, dw


class ChangesItsArgument(Right):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x.clone(), w)
        return x.contiguous().tanh_() * w


class ChangesItsUpstream(Right):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        y = x.tanh()
        dw = g * y
        return g.contiguous().mul_(w * (1 - y * y)), dw


class SwapsItsFlags(Right):
    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
        dx, dw = both(ctx, g)
        return dx if ctx.needs_input_grad[1] else None, dw if ctx.needs_input_grad[0] else None


class DestroysWhatItSaved(Right):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        y = x.tanh()
        ctx.y, ctx.w = y.clone(), w
        return y * w

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        dx = g * ctx.w * (1 - ctx.y * ctx.y)
        return dx, ctx.y.mul_(g)


class SavesOnItsClass(Right):
    saved: tuple[Tensor, Tensor]

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        SavesOnItsClass.saved = x, w
        return x.tanh() * w

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = SavesOnItsClass.saved
        y = x.tanh()
        return g * w * (1 - y * y), g * y


ROOM: dict[object, Tensor] = {}


def in_room(name: str, value: Tensor) -> Tensor:
    """The numbers in memory that is there for good, as kernels with a workspace have it."""
    key = name, value.shape, value.dtype, torch.is_inference_mode_enabled()
    return ROOM.setdefault(key, torch.empty(value.shape, dtype=value.dtype)).copy_(value)


class GivesAWorkspaceOut(Right):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return in_room("output", x.tanh() * w).detach()


class GivesAGradientInAWorkspace(Right):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        dx, dw = both(ctx, g)
        return in_room("gradient", dx), dw


class SwapsTwoWhereOneIsFrozen(Function):
    """x w + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x * w + b

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w = ctx.saved_tensors
        if not ctx.needs_input_grad[0] and all(ctx.needs_input_grad[1:]):
            return g * w, g.clone(), g * x
        return g * w, g * x, g.clone()


class ForgetsAPathForNone(TwoOutputs):
    @staticmethod
    def backward(ctx: Any, g: Tensor | None, h: Tensor | None) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        if g is None or h is None:
            return torch.zeros_like(x), torch.zeros_like(w)
        return 2 * g + h * w, h * x


class FailsForNone(TwoOutputs):
    @staticmethod
    def backward(ctx: Any, g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return 2 * g + h * w, h * x


def inputs(draw: Draw) -> Values:
    shape = (draw.size(1, 5), 3)
    return {"x": draw.normal(shape=shape), "w": draw.uniform(0.5, 2.0, shape=shape)}


def judged(function: type[Function], dtype: torch.dtype = torch.float64, **options: Any) -> Report:
    two = issubclass(function, TwoOutputs)
    reference: Callable[..., Any] = (lambda x, w: (2 * x, x * w)) if two else scaled
    twin = Twin.from_function(function.apply, reference, inputs)
    return verify(twin, dtype=dtype, cases=36, **options)


@pytest.mark.parametrize("function", [Right, TwoOutputs])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_right_ones_agree(function: type[Function], dtype: torch.dtype) -> None:
    report = judged(function, dtype)
    report.assert_agreement()
    assert report.failures == ()


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (ChangesItsArgument, "changes the argument x in place: copy it first"),
        (ChangesItsUpstream, 'changes its upstream gradient ("upstream") in place'),
        (SwapsItsFlags, "dL/dw is another one where w alone requires grad"),
        (DestroysWhatItSaved, "a second backward through one call of `apply` (retain_graph=True)"),
        (ForgetsAPathForNone, "dL/dx is another one where only output 1 has an upstream gradient"),
        (FailsForNone, "backward raises TypeError where only output 1 has an upstream gradient"),
    ],
)
def test_each_breach_is_told(function: type[Function], sentence: str) -> None:
    report = judged(function, explain=False)
    assert report.verdict == "differ"
    assert any(sentence in failure for failure in report.failures), report.failures


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (SavesOnItsClass, "another call of `apply` before backward changes dL/dx: it must not"),
        (GivesAWorkspaceOut, "another call of `apply` changes the outputs of the one before"),
        (GivesAGradientInAWorkspace, "another call of `apply` changes dL/dx of the one before"),
    ],
)
def test_what_is_kept_between_calls_is_told(function: type[Function], sentence: str) -> None:
    failures = judged(function, explain=False).failures
    assert any(sentence in failure for failure in failures), failures


def test_one_argument_is_frozen_as_well() -> None:
    def drawn(draw: Draw) -> Values:
        return {name: draw.normal(shape=(3, 2)) for name in "xwb"}

    apply = SwapsTwoWhereOneIsFrozen.apply
    report = verify(Twin.from_function(apply, lambda x, w, b: x * w + b, drawn), cases=36)
    assert any("where x does not require grad: each" in one for one in report.failures)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_breach_shows_in_few_digits(dtype: torch.dtype) -> None:
    failures = judged(SwapsItsFlags, dtype, explain=False).failures
    assert any("where w alone requires grad" in failure for failure in failures), failures


def test_what_raises_for_some_layouts_alone_says_so() -> None:
    class Views(Right):
        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
            return Right.backward(ctx, g.view(-1).view(g.shape))

    with pytest.raises(TwinError, match="for upstream gradients that are not contiguous, raised"):
        judged(Views)


def test_an_argument_without_a_gradient_by_design_has_no_second_order_one() -> None:
    """A mask: backward gives None for it, and the reference stops its gradient."""

    class Masked(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, m: Tensor) -> Tensor:
            ctx.save_for_backward(x, m)
            return x * x * m

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
            x, m = ctx.saved_tensors
            return 2 * g * x * m, None

    def drawn(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(3,)), "m": draw.uniform(shape=(3,))}

    twin = Twin.from_function(Masked.apply, lambda x, m: x * x * m.detach(), drawn)
    for dtype in (torch.float64, torch.bfloat16):
        report = verify(twin, dtype=dtype, cases=36)
        report.assert_agreement()
        assert "m (twice)" not in [row.name for row in report.rows]


def test_an_output_in_another_dtype_is_converted() -> None:
    class Loss(Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.float().square().sum()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return (2 * g * x.float()).to(x.dtype)

    twin = Twin.from_function(
        Loss.apply, lambda x: x.square().sum(), lambda draw: {"x": draw.normal(shape=(4,))}
    )
    verify(twin, dtype=torch.bfloat16, cases=36).assert_agreement()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((Right, scaled, inputs), "give Right.apply, not the class"),
        ((Right.apply, None, inputs), "reference must be a function; got None"),
        ((3, scaled, inputs), "apply must be a function; got 3"),
    ],
)
def test_what_cannot_be_called_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(TwinError, match=sentence):
        Twin.from_function(*given)


def test_a_builtin_goes_by_its_own_name() -> None:
    gelu = torch.nn.functional.gelu
    assert Twin.from_function(gelu, gelu, inputs).name == "gelu"


class TwiceWhereRepeated(Right):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        dx, dw = both(ctx, g)
        return 2 * dx if 0 in g.stride() else dx, dw


class TwiceWhereStrided(Right):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        dx, dw = both(ctx, g)
        return dx if g.is_contiguous() else 2 * dx, dw


class TakesRowsToFollowEachOther(Right):
    """As a kernel does that asks whether numbers of a row do, and no more."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        if g.stride(-1) == 1 and g.stride(0) >= g.shape[1]:
            g = g.as_strided(g.shape, (g.shape[1], 1), g.storage_offset())
        return both(ctx, g)


class ForgetsWhereMemoryBegins(Right):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        return both(ctx, g.as_strided(g.shape, g.stride(), 0))


@pytest.mark.parametrize("function", [TakesRowsToFollowEachOther, ForgetsWhereMemoryBegins])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_slices_of_larger_tensors_are_drawn(function: type[Function], dtype: torch.dtype) -> None:
    report = verify(Twin.from_function(function.apply, scaled, inputs), dtype=dtype)
    assert report.verdict == "differ"
    assert report.rows[1].stratum == "strided"


@pytest.mark.parametrize(
    ("function", "where"),
    [(TwiceWhereRepeated, "repeats its numbers without a copy"),
     (TwiceWhereStrided, "is not contiguous")],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_layout_is_part_of_the_explanation(
    function: type[Function], where: str, dtype: torch.dtype
) -> None:
    twin = Twin.from_function(function.apply, scaled, inputs)
    report = verify(twin, dtype=dtype)
    assert (
        report.explanation == f"dL/dx is 2 times the truth, only where an input {where} in memory"
    )
