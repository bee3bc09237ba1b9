"""What rounding may choose otherwise is open where it reaches, and nowhere else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from torch_ref import Draw, Twin, verify
from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.twin import Values

F = nn.functional
# The last two of the second row are one unit in the last place apart: either may be the largest.
NEAR = torch.tensor([[1.0, 5.0, 3.0, 2.0], [2.0, 1.0, 7.0, 7.0 * (1 + 2.0**-24)]]).double()
CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: x.max(1).values,
    "kthvalue": lambda x: x.kthvalue(4, 1).values,
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(2, 1).values,
    "max-pool": lambda x: F.max_pool1d(x, 4),
    "max-pool to a size": lambda x: F.adaptive_max_pool1d(x, 1),
    "argmax": lambda x: x.take_along_dim(x.argmax(1, keepdim=True), 1),
}
# What a key chooses of z, by row; of the second row's key the two largest are near each other.
BY_KEY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gather": lambda key, z: z.gather(1, key.argmax(1, keepdim=True)),
    "scatter": lambda key, z: torch.zeros_like(z).scatter(1, key.argmax(1, keepdim=True), z),
    "scatter_add": lambda key, z: z.scatter_add(1, key.argmax(1, keepdim=True), z),
    "index": lambda key, z: z.T[key.argmax(1)],
    "index_select": lambda key, z: z.index_select(1, key.argmax(1)).T,
    "embedding": lambda key, z: F.embedding(key.argmax(1), z.T),
}


def walked(function: Callable[[Tensor], Tensor], x: Tensor) -> Walked:
    """y = function(1.1 x) and the derivative of sum(y^2), bounded in float32."""

    def loss(values: Values) -> Values:
        y = function(values["x"] * 1.1)
        return {"y": y, "loss": (y * y).sum()}

    def everything(values: Values) -> Values:
        with torch.no_grad():
            y = loss(values)["y"]
        return {"value": y, "dx": gradients_by_autograd(loss, values)["x"]}

    inputs = {"x": x}
    return walk(record(everything, inputs), inputs, Arithmetic.of(torch.float32))


@pytest.mark.parametrize("name", CHOICES)
def test_only_the_line_of_an_open_choice_is_open(name: str) -> None:
    found = walked(CHOICES[name], NEAR)
    sizes, bounds = found.values["dx"].abs(), found.bounds["dx"]
    assert (bounds[0] < 1e-5).all()
    assert (bounds[1, 2:] > 10).all()
    assert (bounds[1, 2:] < 100).all()
    assert (found.bounds["value"] < (1e-4 if name != "argmax" else 100)).all()
    assert not found.unbounded
    assert sizes[0, 1] > 10


@pytest.mark.parametrize("name", BY_KEY)
def test_what_an_open_index_takes_and_puts_stays_on_its_line(name: str) -> None:
    inputs = {"key": NEAR, "z": torch.arange(1.0, 9.0).reshape(2, 4).double()}
    graph = record(lambda values: {"y": BY_KEY[name](values["key"] * 1.1, values["z"])}, inputs)
    found = walk(graph, inputs, Arithmetic.of(torch.float32))
    assert (found.bounds["y"][0] < 1e-5).all()
    assert (found.bounds["y"][1] >= 1).all()
    assert (found.bounds["y"][1] < 30).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda key, z: torch.zeros_like(z).index_put((key.argmax(1),), z[:2]),
        lambda key, z: z.index_put((key.argmax(1),), z[:2], accumulate=True),
        lambda key, z: z.index_add(0, key.argmax(1), z[:2]),
    ],
)
def test_an_open_row_may_go_anywhere(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Whichever of its two nearest columns the second row's key chooses."""
    other = NEAR.flip(1).roll(-2, 1)  # chooses column 3 where NEAR chooses 2, and as it does else
    inputs = {"key": NEAR, "z": torch.arange(1.0, 13.0).reshape(4, 3).double()}
    graph = record(lambda values: {"y": function(values["key"] * 1.1, values["z"])}, inputs)
    found = walk(graph, inputs, Arithmetic.of(torch.float32))
    turned = function(torch.stack((NEAR[0], other[1])), inputs["z"])
    assert ((turned - found.values["y"]).abs() <= found.bounds["y"]).all()
    assert (turned != found.values["y"]).any()
    assert found.bounds["y"].isfinite().all()


def test_a_number_may_be_passed_from_far_away() -> None:
    """Neighbours in order are not near each other, but the first may pass them both."""
    inputs = {"x": torch.tensor([1.0, 2.0, 3.0]), "v": torch.tensor([10.0, 20.0, 30.0])}
    inputs = {name: value.double() for name, value in inputs.items()}
    bounds = {"x": torch.tensor([5.0, 0.0, 0.0]).double()}
    graph = record(lambda values: {"y": values["v"].gather(0, values["x"].argsort(0))}, inputs)
    found = walk(graph, inputs, Arithmetic.of(torch.float64), bounds=bounds)
    assert (found.bounds["y"] >= 30).all()


@pytest.mark.parametrize("size", [0, 1])
def test_axes_of_size_0_and_1_can_be_sorted(size: int) -> None:
    for function in (lambda x: x.sort(1).values, lambda x: x.topk(size, 1).values):
        assert walked(function, torch.ones(2, size).double()).values["dx"].shape == (2, size)


def test_a_network_with_pooling_is_decided_in_bfloat16() -> None:
    def reference(values: Values) -> Values:
        y = F.max_pool1d(F.conv1d(values["x"], values["w"]), 2)
        return {"loss": (y * y).sum()}

    def manual(values: Values) -> Values:
        z = F.conv1d(values["x"], values["w"])
        y, index = F.max_pool1d(z, 2, return_indices=True)
        up = torch.zeros_like(z).scatter(2, index, 2 * y)
        columns = values["x"].unfold(2, values["w"].shape[2], 1)
        dx = F.conv_transpose1d(up, values["w"])
        return {"x": dx, "w": torch.einsum("not,nitk->oik", up, columns)}

    twin = Twin(
        "pooled",
        lambda draw: {"x": draw.normal(shape=(2, 3, 12)), "w": draw.normal(shape=(4, 3, 3))},
        reference,
        manual,
    )
    report = verify(twin, cases=60, dtype=torch.bfloat16)
    assert report.verdict == "agree"
    assert max(row.undecided for row in report.rows) < 0.9


def test_numbers_that_other_indices_put_keep_their_own_errors() -> None:
    """Sort's backward pass: one open pair in a row, and errors in all numbers that are put."""

    def by_sorting(values: Values) -> Values:
        ordered = (values["x"] * values["a"]).sort(1).values
        return {"loss": (ordered * values["w"]).cos().sum()}

    def manual(values: Values) -> Values:
        ordered, index = (values["x"] * values["a"]).sort(1)
        up = -(ordered * values["w"]).sin() * values["w"]
        return {"x": torch.zeros_like(ordered).scatter(1, index, up) * values["a"]}

    twin = Twin(
        "sorted",
        lambda draw: {name: draw.normal(shape=(3, 5)) for name in "xaw"},
        by_sorting,
        manual,
    )
    for dtype in (torch.bfloat16, torch.float16):
        assert verify(twin, cases=400, dtype=dtype).verdict == "agree"


def test_ranks_are_as_exact_as_what_they_are_the_ranks_of() -> None:
    graph = record(lambda v: {"y": (v["x"] * 1.1).argsort(1).argsort(1) * 1.0}, {"x": NEAR})
    found = walk(graph, {"x": NEAR}, Arithmetic.of(torch.float32))
    assert found.bounds["y"].isinf().all()  # one pair is open; of a sort of integers all are then
    apart = walk(graph, {"x": NEAR[:1]}, Arithmetic.of(torch.float32))
    assert (apart.bounds["y"] < 1e-6).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.gather(0, x.argmax(0)),
        lambda x: torch.zeros_like(x).scatter(0, x.argmax(0), x[0]),
        lambda x: x.scatter_add(0, x.argmax(0), x[0]),
        lambda x: torch.zeros_like(x).scatter(0, x.topk(2, 0).indices, x.detach()) * x,
        lambda x: x.topk(2, 0, sorted=False).values,
        lambda x: torch.zeros(4).long().scatter_add(0, torch.tensor([1, 1]), x.topk(2).indices) * x,
    ],
)
def test_open_indices_of_unusual_shapes_and_dtypes(function: Callable[[Tensor], Tensor]) -> None:
    found = walked(function, NEAR[1])
    assert (found.bounds["value"] > 0).any()


def test_an_addition_that_an_open_index_moves_is_rounded_where_it_goes() -> None:
    eps = 2.0**-23
    inputs = {"key": NEAR[1:], "into": torch.ones(1, 4).double(), "v": NEAR[:1, :1] * 0.51 * eps}
    graph = record(
        lambda v: {"y": v["into"].scatter_add(1, (v["key"] * 1.1).argmax(1, True), v["v"])}, inputs
    )
    found = walk(graph, inputs, Arithmetic.of(torch.float32))
    other = 2 if found.values["y"][0, 2] == 1 else 3  # where it would go, and become 1 + eps
    assert found.bounds["y"][0, other] >= eps


@pytest.mark.parametrize(
    "choose",
    [
        lambda d: d.argmin(0),
        lambda d: d.min(0).indices,
        lambda d: d.argsort(0)[0],
        lambda d: d.kthvalue(1, 0).indices,
        lambda d: F.max_pool1d(-d[None], 4, return_indices=True)[1][0, 0],
    ],
)
def test_a_choice_among_numbers_that_may_overflow_is_open(
    choose: Callable[[Tensor], Tensor],
) -> None:
    """256 squared may overflow in float16, and the others' squares, which do here, may not."""
    inputs = {"d": torch.tensor([300.0, 256.0, 290.0, 310.0]).double(), "v": NEAR[0]}
    graph = record(
        lambda v: {"y": v["v"].gather(0, choose((v["d"] * 1.0001).square()).reshape(1))}, inputs
    )
    bounds = {"d": torch.tensor([60.0, 1.0, 60.0, 60.0]).double()}
    assert walk(graph, inputs, Arithmetic.of(torch.float16), bounds=bounds).bounds["y"] >= 1


def _by_mask(z: Tensor) -> Tensor:
    y = z.clone()
    y[z <= 0] = 0
    return y


def _rows_by_mask(z: Tensor) -> Tensor:
    y = z.clone()
    y[z[:, 0] <= 0] = 1.5
    return y


def _others_by_mask(z: Tensor) -> Tensor:
    y = 2 * z
    y[z > 0] = 3 * z[z > 0]
    return y


def _sum_by_mask(z: Tensor) -> Tensor:
    return z[z > 0].sum().expand(z.shape)


# What a mask of computed numbers chooses, and the backward pass by hand, masked in the same ways.
BY_MASK: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "puts one number": (_by_mask, lambda z, dy: _put(dy, z <= 0, 0)),
    "puts it in rows": (_rows_by_mask, lambda z, dy: _put(dy, z[:, 0] <= 0, 0)),
    "puts others": (_others_by_mask, lambda z, dy: _put(2 * dy, z > 0, 3 * dy[z > 0])),
    "takes": (_sum_by_mask, lambda z, dy: _put(dy.sum().repeat(z.shape), z <= 0, 0)),
}


def _put(value: Tensor, mask: Tensor, numbers: Tensor | float) -> Tensor:
    copy = value.clone()
    copy[mask] = numbers
    return copy


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", BY_MASK)
def test_masks_of_computed_numbers(name: str, dtype: str) -> None:
    function, backward = BY_MASK[name]

    def inputs(draw: Draw) -> Values:
        return {n: draw.normal(shape=shape) for n, shape in (("x", (5, 3)), ("b", (3,)))} | {
            "dy": draw.normal(shape=(5, 3))
        }

    def reference(values: Values) -> Values:
        return {"loss": (function(values["x"] + values["b"]) * values["dy"]).sum()}

    def manual(values: Values) -> Values:
        dx = backward(values["x"] + values["b"], values["dy"])
        return {"x": dx, "b": dx.sum(0)}

    report = verify(Twin(name, inputs, reference, manual), dtype=dtype, cases=30)
    report.assert_agreement()
    assert not report.notes
    assert report.rows[0].undecided < 0.1
