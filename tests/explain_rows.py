"""Wrong gradients in rows, parts and places: tables of embeddings, gates, masks, overflow."""

import math
from collections.abc import Callable

import torch
from explain_maker import Maker, scenario
from torch import Tensor

from torch_ref.compare.explain import Evidence

# A table of rows, picked by an integer tensor.


@scenario("dL/dx lacks the factor mask: dL/dy where dL/dy * mask belongs")
def mask_forgotten(maker: Maker) -> Evidence:
    dy = maker.normal(5, 6)
    mask = maker.normal(5, 6) > 0
    maker.values = {"mask": mask}
    maker.gradients = {"y": dy}
    return maker.evidence("x", dy, {"y": torch.where(mask, dy, 0.0)})


@scenario(
    "dL/dtable keeps only the last dL/dy of each row that tokens repeats where their sum belongs"
)
def rows_overwritten(maker: Maker) -> Evidence:
    return picked_rows(maker, lambda rows: rows[-1])


@scenario("dL/dtable is wrong exactly where the number of times that tokens holds the index")
def rows_multiplied(maker: Maker) -> Evidence:
    return picked_rows(maker, lambda rows: rows.prod(0))


def picked_rows(maker: Maker, reduce: Callable[[Tensor], Tensor]) -> Evidence:
    """Rows of a table picked by tokens; `reduce` makes one of the gradients of all its picks."""
    tokens, dy = maker.integers(0, 9, 12), maker.normal(12, 4)
    maker.values = {"tokens": tokens}
    maker.gradients = {"y": dy}
    table = torch.zeros(9, 4, dtype=torch.float64)
    wrong = table.clone()
    for row in tokens.unique().tolist():
        wrong[row] = reduce(dy[tokens == row])
    return maker.evidence("table", wrong, {"y": table.index_add(0, tokens, dy)})


@scenario("dL/dx is not a number exactly where the largest x along axis 1 > ")
def overflow_in_rows(maker: Maker) -> Evidence:
    x, dy = 300 * maker.normal(12, 4), maker.normal(12, 4)
    maker.values, maker.gradients = {"x": x}, {"y": dy}
    lost = x.amax(1, keepdim=True) > 400
    return maker.evidence("x", torch.where(lost, math.nan, dy), {"y": dy})


@scenario("dL/dx is the truth with its quarters along axis 1 in the order (1, 0, 2, 3)")
def gates_exchanged(maker: Maker) -> Evidence:
    dy = maker.normal(3, 8)
    maker.gradients = {"y": dy}
    one, two, three, four = dy.chunk(4, 1)
    return maker.evidence("x", torch.cat((two, one, three, four), 1), {"y": dy})


@scenario("dL/dx is the truth with its halves along axis 1 interleaved")
def halves_interleaved(maker: Maker) -> Evidence:
    dy = maker.normal(3, 6)
    maker.gradients = {"y": dy}
    one, two = dy.chunk(2, 1)
    return maker.evidence("x", torch.stack((one, two), -1).flatten(1), {"y": dy})


@scenario("dL/dy is (x - t) where (y - t) belongs")
def loss_of_the_wrong_value(maker: Maker) -> Evidence:
    maker.values = {name: maker.normal(4, 5) for name in ("x", "y", "t")}
    right, wrong = (maker.values[name] - maker.values["t"] for name in ("y", "x"))
    return maker.evidence("y", wrong, {"loss": right})


@scenario("dL/dx is dL/dy * [(u - v) > 0] where dL/dy * sigma(u - v) belongs")
def step_for_sigmoid(maker: Maker) -> Evidence:
    maker.values = {name: maker.normal(60) for name in ("u", "v")}
    dy = maker.normal(60)
    maker.gradients = {"y": dy}
    difference = maker.values["u"] - maker.values["v"]
    return maker.evidence("x", dy * (difference > 0), {"y": dy * difference.sigmoid()})


@scenario("dL/dx is 0 exactly where it is the last along axis 0")
def last_row_forgotten(maker: Maker) -> Evidence:
    dy = maker.normal(maker.size(4, 7), 6)
    maker.gradients = {"y": dy}
    maker.values = {"x": maker.normal(*dy.shape)}
    wrong = dy.clone()
    wrong[-1] = 0
    return maker.evidence("x", wrong, {"y": dy})
