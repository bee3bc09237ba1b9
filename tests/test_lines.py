"""The lines of the author's code that a mistake is computed by, and that nothing right is."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Twin, verify
from torch_ref.compare.lines import listed

Values = dict[str, Tensor]


def inputs(draw: Draw) -> Values:
    rows, columns = draw.size(2, 4), draw.size(2, 4)
    return {
        "x": draw.normal(shape=(rows, columns)),
        "w": draw.normal(shape=(columns, 3)),
        "b": draw.normal(shape=(3,)),
    }


def reference(values: Values) -> Values:
    z = values["x"] @ values["w"] + values["b"]
    h = torch.tanh(z)
    return {"z": z, "h": h, "loss": (h**2).sum()}


def marked(function: Callable[..., Any]) -> str:
    """The lines of a function that end with a mark, as a report lists them."""
    lines, first = inspect.getsourcelines(function)
    numbers = [first + place for place, line in enumerate(lines) if line.rstrip().endswith("#!")]
    return listed((__file__, number) for number in numbers)


def in_torch(values: Values) -> Values:
    h = torch.tanh(values["x"] @ values["w"] + values["b"])
    dh = 2 * h
    dz = dh * (1 - h * h)
    dx = dz @ values["w"].T
    dw = values["x"].T @ dz * 2  #!
    return {"h": dh, "z": dz, "b": dz.sum(0), "w": dw, "x": dx}


def in_place(values: Values) -> Values:
    h = torch.tanh(values["x"] @ values["w"] + values["b"])
    dh = h * 2
    dz = dh * (1 - h * h)
    dx = torch.zeros_like(values["x"])
    dw = torch.zeros_like(values["w"])  #!
    for row, upstream in zip(values["x"], dz):  #!
        dw[:] += torch.outer(row, upstream)  #!
    for row, upstream in enumerate(dz):
        dx[row] = values["w"] @ upstream
    dw[0] *= 2  #!
    return {"h": dh, "z": dz, "b": dz.sum(0), "w": dw, "x": dx}


def derivative(h: Any) -> Any:
    return 1 - h  #!


def in_a_function_of_its_own(values: Values) -> Values:
    h = torch.tanh(values["x"] @ values["w"] + values["b"])
    dh = 2 * h
    dz = dh * derivative(h)  #!
    dw = values["x"].T @ dz
    return {"h": dh, "z": dz, "b": dz.sum(0), "w": dw, "x": dz @ values["w"].T}


def in_numpy(values: Values) -> dict[str, Any]:
    x, w, b = (values[name].numpy() for name in "xwb")
    h = np.tanh(x.dot(w) + b)
    dh = 2 * h
    dz = dh * (1 - h * h)
    db = np.zeros(b.shape)  #!
    dx = np.zeros(x.shape)
    for row, upstream in enumerate(dz):
        dx[row] = w @ upstream
        db += upstream  #!
    db[0] = 0  #!
    return {"h": dh, "z": dz, "b": db, "w": np.dot(x.T, dz), "x": dx}


def as_tensors(values: Values) -> Values:
    found = in_numpy(values)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in found.items()}


@pytest.mark.parametrize(
    ("manual", "mistake", "where"),
    [
        (in_torch, "w", marked(in_torch)),
        (in_place, "w", marked(in_place)),
        (
            in_a_function_of_its_own,
            "z",
            f"{marked(derivative)} and {marked(in_a_function_of_its_own).partition(':')[2]}",
        ),
        (in_numpy, "b", marked(in_numpy)),
        (as_tensors, "b", marked(in_numpy)),
    ],
)
def test_the_lines_of_a_mistake(manual: Any, mistake: str, where: str) -> None:
    report = verify(Twin("tanh", inputs, reference, manual), cases=40)
    assert report.mistakes == (mistake,)
    assert report.diagnosis.lines == (where,)
    assert f"dL/d{mistake} is computed at {where}." in report.closing_lines()


def test_of_many_cases_at_once() -> None:
    def manual(values: Values) -> Values:
        y = values["w"] * values["x"]
        dy = 2 * y
        dw = -dy * values["x"]  #!
        return {"y": dy, "w": dw, "x": dy * values["w"]}

    def product(values: Values) -> Values:
        y = values["w"] * values["x"]
        return {"y": y, "loss": y**2}

    twin = Twin("product", lambda draw: {n: draw.normal() for n in "xw"}, product, manual)
    report = verify(twin, cases=1000)
    assert report.diagnosis.lines == (marked(manual),)


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, w: Tensor) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3)
        context.save_for_backward(x, w, scale)
        return x * scale * w

    @staticmethod
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        x, w, scale = context.saved_tensors
        dw = (upstream[0] * x * scale).sum(0)
        inner = (upstream[0] * w * x).sum(-1, keepdim=True)  #!
        return upstream[0] * w * scale - x * scale**3 * inner, dw  #!


def test_of_a_function() -> None:
    def norm(x: Tensor, w: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * w

    twin = Twin.from_function(
        Norm.apply,
        norm,
        lambda draw: {"x": draw.normal(shape=(3, 5)), "w": draw.normal(shape=(5,))},
    )
    report = verify(twin, cases=20)
    assert report.mistakes[0] == "x"
    assert report.diagnosis.lines[0] == marked(Norm.backward)


def test_what_is_right_by_chance_is_left_in() -> None:
    """The wrong dL/dz cancels in its sum, which is right."""

    def centred(values: Values) -> Values:
        m = values["x"].mean()
        z = values["x"] - m
        return {"m": m, "z": z, "loss": (z**2).sum() / 2}

    def manual(values: Values) -> Values:
        z = values["x"] - values["x"].mean()  #!
        dz = 2 * z  #!
        return {"z": dz, "m": -dz.sum(), "x": dz - dz.mean()}

    twin = Twin("centred", lambda d: {"x": d.normal(shape=(d.size(2, 5),))}, centred, manual)
    report = verify(twin, cases=40)
    assert report.mistakes == ("z",)
    assert report.diagnosis.lines == (marked(manual),)


def without_a_name(values: Values) -> Values:
    h = torch.tanh(values["x"] @ values["w"] + values["b"])
    dz = 2 * h * (1 + h * h)  #!
    return {"h": 2 * h, "b": dz.sum(0), "w": values["x"].T @ dz}


def test_a_line_that_several_mistakes_share() -> None:
    report = verify(Twin("tanh", inputs, reference, without_a_name), cases=40)
    assert report.mistakes == ("b", "w")
    shared, own = marked(without_a_name), marked(without_a_name).split(":")
    last = f"{own[0]}:{int(own[1]) + 1}"
    assert (report.diagnosis.shared, report.diagnosis.lines) == (shared, (last, last))
    assert report.closing_lines()[0] == (
        f"Mistakes enter at dL/db and at dL/dw; it may be one, since all are computed at {shared}."
    )


def test_nothing_is_said_where_nothing_can_be_seen() -> None:
    def by_floats(values: Values) -> Values:
        x, w, b = (values[name].tolist() for name in "xwb")
        h = [
            [np.tanh(sum(p * q for p, q in zip(row, column)) + c) for column, c in zip(zip(*w), b)]
            for row in x
        ]
        return {"h": torch.tensor(h, dtype=values["x"].dtype) * 3}

    report = verify(Twin("tanh", inputs, reference, by_floats), cases=40)
    assert report.mistakes == ("h",)
    assert report.diagnosis.lines == ("",)
    assert "computed at" not in "\n".join(report.closing_lines())


def test_a_wrong_reference_is_on_no_line_of_the_hand() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, z: Tensor) -> Tensor:
            return z.clone()

        @staticmethod
        def backward(context: Any, *upstream: Tensor) -> Tensor:
            return 2 * upstream[0]

    def doubled(values: Values) -> Values:
        z: Tensor = Doubled.apply(values["x"] @ values["w"] + values["b"])  # type: ignore[no-untyped-call]
        h = torch.tanh(z)
        return {"h": h, "loss": (h**2).sum()}

    def manual(values: Values) -> Values:
        h = torch.tanh(values["x"] @ values["w"] + values["b"])
        return {"h": 2 * h, "b": (2 * h * (1 - h * h)).sum(0)}

    report = verify(Twin("tanh", inputs, doubled, manual), cases=40)
    assert (report.diagnosis.blame, report.diagnosis.lines) == ("reference", ("",))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([3, 4], "3-4"), ([3, 5], "3 and 5"), ([2, 3, 4, 7, 9, 10], "2-4, 7 and 9-10")],
)
def test_lines_are_listed(numbers: list[int], text: str) -> None:
    assert listed(("/some/where/a.py", number) for number in numbers) == f"a.py:{text}"
    assert listed([("a.py", 1), ("b.py", 2)]) == "a.py:1, b.py:2"
    assert listed([]) == ""
