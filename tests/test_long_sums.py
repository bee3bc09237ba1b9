"""Libraries add long sums in their own ways; of equal numbers the errors have one sign."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from torch_ref import Twin, verify
from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, walk
from torch_ref.compare.twin import Draw, Values

MANY = 1024
SUMS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "sum of a column": ((MANY, 4), lambda x: x.sum(0)),
    "mean of all": ((32, 4, MANY // 32), lambda x: x.mean().reshape(1)),
    "sums so far": ((4, MANY), lambda x: x.cumsum(1)),
    "norm": ((MANY, 4), lambda x: torch.linalg.vector_norm(x, dim=0)),
    "batch norm": ((MANY, 4), lambda x: functional.batch_norm(x, None, None, training=True)),
    "batch norm of images": (
        (8, 4, 16, 8),
        lambda x: functional.batch_norm(x, None, None, training=True),
    ),
    "layer norm": ((4, MANY), lambda x: functional.layer_norm(x, (MANY,))),
    "group norm": ((2, 4, MANY), lambda x: functional.group_norm(x, 2)),
    "softmax": ((4, MANY), lambda x: x.softmax(1)),
    "logsumexp": ((MANY, 4), lambda x: x.logsumexp(0)),
    "average pooling": ((1, 2, 32, 32), lambda x: functional.avg_pool2d(x, 32)),
    "average pooling in one dimension": ((1, 4, MANY), lambda x: functional.avg_pool1d(x, MANY)),
    "power pooling": ((1, 2, 32, 32), lambda x: functional.lp_pool2d(x, 2.0, 32)),
    "overlapping averages": ((1, 2, 32, 32), lambda x: functional.avg_pool2d(x, 16, stride=3)),
    "matrix product": ((4, MANY), lambda x: x @ x.T),
    "convolution": ((1, 16, 32, 32), lambda x: functional.conv2d(x, x[:, :, :16, :16])),
    "attention": ((2, 4, 256, 16), lambda x: functional.scaled_dot_product_attention(x, x, x)),
}
NUMBERS: dict[str, Callable[[torch.Size], Tensor]] = {
    "equal": lambda shape: torch.ones(shape),
    "one of two": lambda shape: torch.where(torch.rand(shape) < 0.5, 1.0, 1.7),
    "every second one 0": lambda shape: (torch.arange(shape.numel()) % 2).reshape(shape) * 1.0,
    "by turns": lambda shape: (torch.arange(shape.numel()) % 3).reshape(shape) * 0.55 + 0.6,
    "few ones": lambda shape: (torch.rand(shape) < 0.2) * 1.0,
    "random": lambda shape: 0.5 + torch.rand(shape),
}


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("name", SUMS)
def test_torch_s_own_float32_keeps_within_the_bounds(name: str, numbers: str) -> None:
    shape, function = SUMS[name]

    def loss(values: Values) -> Values:
        y = function(values["x"])
        return {"y": y, "loss": (y * 1.1).sum()}

    def everything(values: Values) -> Values:
        with torch.no_grad():
            value = function(values["x"])
        return {"value": value, **gradients_by_autograd(loss, values)}

    torch.manual_seed(0)
    like = NUMBERS[numbers](torch.Size(shape))
    graph = record(everything, {"x": like.double()})
    for factor in (0.1, 0.7, 1.3):
        x = factor * like
        walked = walk(graph, {"x": x.double()}, Arithmetic.of(torch.float32))
        assert not walked.unbounded
        for quantity, found in everything({"x": x}).items():
            error = (found.double() - walked.values[quantity]).abs()
            assert bool((error <= walked.bounds[quantity]).all()), quantity


def test_a_norm_over_many_rows_agrees() -> None:
    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(512, 4)), "up": draw.normal(shape=(4,))}

    def reference(values: Values) -> Values:
        y = torch.linalg.vector_norm(values["x"], dim=0)
        return {"y": y, "loss": (y * values["up"]).sum()}

    def manual(values: Values) -> Values:
        y = torch.linalg.vector_norm(values["x"], dim=0)
        return {"y": values["up"], "up": y, "x": values["x"] / y * values["up"]}

    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        verify(Twin("norm", inputs, reference, manual), dtype=dtype).assert_agreement()


def test_a_window_given_by_one_size_is_square() -> None:
    def reference(values: Values) -> Values:
        y = torch.ops.aten.avg_pool2d.default(values["x"], [16])
        return {"y": y, "loss": (y**2).sum()}

    def manual(values: Values) -> Values:
        slope = 2 * torch.ops.aten.avg_pool2d.default(values["x"], [16])
        return {"y": slope, "x": (slope / 256).expand(values["x"].shape).clone()}

    def inputs(draw: Draw) -> Values:
        return {"x": draw.uniform(0.5, 1.5, shape=(1, 2, 16, 16))}

    verify(Twin("pool", inputs, reference, manual), dtype=torch.float32).assert_agreement()
