"""Right backward passes in which rounding enters by a side door: numbers written in the code, sums
of equal terms, selections that broadcast. And that a real mistake of that size is still seen."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from torch_ref import Draw, Twin, verify
from torch_ref.compare import DTYPES

Values = dict[str, Tensor]
ALL = ("float64", "float32", "bfloat16", "float16")


class Right(NamedTuple):
    """The parts of a right twin, and the dtypes it is judged in."""

    inputs: Callable[[Draw], Values]
    reference: Callable[[Values], Tensor]
    manual: Callable[[Values], Values]
    dtypes: tuple[str, ...] = ALL

    def twin(self, name: str) -> Twin:
        return Twin(name, self.inputs, lambda v: {"loss": self.reference(v)}, self.manual)


def row(low: float = -2.0, high: float = 2.0, size: int = 64) -> Callable[[Draw], Values]:
    return lambda draw: {"x": draw.uniform(low, high, shape=(size,))}


def at_the_threshold(draw: Draw) -> Values:
    ends = draw.cast(torch.tensor([0.3, -0.3], dtype=torch.float64))
    return {"x": torch.cat((draw.normal(shape=(30,)), ends))}


def rows_and_targets(draw: Draw) -> Values:
    return {"x": draw.normal(shape=(4, 6)), "y": draw.integers(0, 6, shape=(4,))}


def layer(rows: int, wide: int, out: int) -> Callable[[Draw], Values]:
    return lambda draw: {
        "x": draw.normal(shape=(rows, wide)),
        "w": draw.normal(shape=(wide, out)),
        "b": draw.normal(shape=(out,)),
        "u": draw.uniform(0.5, 1.5, shape=(rows, out)),
    }


def layers_loss(v: Values) -> Tensor:
    return ((v["x"] @ v["w"] + v["b"]) * v["u"]).sum()


def by_products(v: Values) -> Values:
    ones = torch.ones(len(v["x"]), dtype=v["x"].dtype)
    return {"w": v["x"].T @ v["u"], "b": v["u"].T @ ones}


def smoothed(v: Values) -> Values:
    truth = torch.zeros_like(v["x"]).scatter(1, v["y"][:, None], 0.9) + 0.1 / 6
    return {"x": v["x"].softmax(1) - truth}


def some_coincide(draw: Draw) -> Values:
    x, y = draw.normal(shape=(6, 4)), draw.normal(shape=(6, 4))
    return {"x": x, "y": torch.cat((x[:1], y[1:])), "u": draw.normal(shape=(6, 6))}


def distances(v: Values) -> Tensor:
    return ((v["x"][:, None] - v["y"][None]).norm(dim=2) * v["u"]).sum()


def by_squares(v: Values) -> Values:
    x, y = v["x"], v["y"]
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * (x @ y.T)
    d = squares.clamp(min=0).sqrt()
    g = torch.where(d == 0, torch.zeros_like(d), v["u"] / d)
    return {"x": x * g.sum(1, keepdim=True) - g @ y}


def near_underflow(draw: Draw) -> Values:
    return {
        "x": draw.uniform(1, 2, shape=(5, 7)) * 3e-162,
        "w": draw.uniform(1, 2, shape=(7, 3)) * 3e-162,
        "c": draw.uniform(1, 2, shape=(3, 2)),
        "q": draw.uniform(1, 2, shape=(5, 2)),
    }


def one_of_each_row(draw: Draw) -> Values:
    return {
        "a": draw.uniform(1, 2, shape=(3, 1)),
        "x": draw.normal(shape=(3, 1000)),
        "m": draw.booleans(shape=(3, 1)),
        "c": draw.uniform(1, 2, shape=(3,)),
    }


def chosen(v: Values) -> Tensor:
    return torch.where(v["m"], 1.1 * v["a"] - 1.0999 * v["a"], v["x"])


def small_and_two(draw: Draw) -> Values:
    return {name: draw.normal(0, 1e-3, shape=(64,)) for name in ("x", "y")}


RIGHT = {
    "limits of clamp": Right(
        row(),
        lambda v: functional.huber_loss(
            v["x"], torch.zeros_like(v["x"]), reduction="sum", delta=1.3
        ),
        lambda v: {"x": v["x"].clamp(-1.3, 1.3)},
    ),
    "limits of hardtanh": Right(
        row(),
        lambda v: functional.hardtanh(v["x"], -0.7, 0.7).square().sum() / 2,
        lambda v: {"x": functional.hardtanh(v["x"], -0.7, 0.7) * (v["x"].abs() < 0.7)},
    ),
    "a limit that is infinite": Right(
        row(),
        lambda v: ((1.1 * v["x"]).clamp(-math.inf, 1.5) ** 2).sum() / 2,
        lambda v: {"x": 1.1 * torch.where(1.1 * v["x"] < 1.5, 1.1 * v["x"], 0.0)},
    ),
    "a threshold beyond float16": Right(
        row(),
        lambda v: torch.where(v["x"] > -1e6, v["x"], 0 * v["x"]).square().sum() / 2,
        lambda v: {"x": torch.where(v["x"] < 1e6, v["x"], 0 * v["x"])},
    ),
    "what pad fills in": Right(
        lambda draw: {"x": draw.normal(shape=(8,)), "w": draw.normal(shape=(10,))},
        lambda v: (functional.pad(v["x"], (1, 1), value=0.1) * v["w"]).sum(),
        lambda v: {"w": functional.pad(v["x"], (1, 1), value=0.1), "x": v["w"][1:-1]},
    ),
    "what scatter fills in": Right(
        rows_and_targets,
        lambda v: functional.cross_entropy(
            v["x"], v["y"], label_smoothing=0.1, reduction="sum"
        ),
        smoothed,
    ),
    "an exponent": Right(
        row(1, 100), lambda v: (v["x"] ** 8.3).sum(), lambda v: {"x": 8.3 * v["x"] ** 7.3}
    ),
    "a base": Right(
        row(-9, 9),
        lambda v: (0.9 ** v["x"]).sum(),
        lambda v: {"x": math.log(0.9) * 0.9 ** v["x"]},
    ),
    "a threshold": Right(
        at_the_threshold,
        lambda v: functional.hardshrink(v["x"], 0.3).square().sum() / 2,
        lambda v: {"x": torch.where(v["x"].abs() <= 0.3, 0.0, v["x"])},
    ),
    "a whole number": Right(
        row(-60, 60),
        lambda v: (v["x"] + 1001).square().sum() / 2,
        lambda v: {"x": v["x"] + 1001},
        ALL[:3],
    ),
    "alpha of sub": Right(
        small_and_two,
        lambda v: (v["x"] - 0.1 * v["y"]).square().sum() / 2,
        lambda v: {"x": torch.sub(v["x"], v["y"], alpha=0.1)},
    ),
    "equal terms, 1024 rows": Right(layer(1024, 32, 1), layers_loss, by_products, ALL[:2]),
    "equal terms, 2048 rows": Right(layer(2048, 16, 10), layers_loss, by_products, ALL[:2]),
    "where of a column and a matrix": Right(
        one_of_each_row,
        lambda v: (chosen(v).sum(1) * v["c"]).sum(),
        lambda v: {"c": chosen(v).sum(1)},
        ALL[:2],
    ),
    "a distance that is 0 by rounding": Right(
        some_coincide, distances, by_squares, ALL[:2]
    ),
    "products that underflow": Right(
        near_underflow,
        lambda v: (((v["x"] @ v["w"]) @ v["c"]) * v["q"]).sum(),
        lambda v: {"q": v["x"] @ (v["w"] @ v["c"])},
        ALL[:1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_one_is_never_called_wrong(name: str) -> None:
    right = RIGHT[name]
    for dtype in right.dtypes:
        report = verify(right.twin(name), dtype=DTYPES[dtype], explain=False)
        assert report.verdict != "differ", f"{dtype}: {report}"


@pytest.mark.parametrize(
    ("name", "dtype", "wrong"),
    [
        ("limits of clamp", "float32", lambda v: {"x": v["x"].clamp(-1.3, 1.301)}),
        ("an exponent", "float32", lambda v: {"x": 8.3 * v["x"] ** 7.3001}),
        ("a threshold", "bfloat16", lambda v: {"x": torch.where(v["x"] <= 0.3, 0.0, v["x"])}),
        (
            "equal terms, 1024 rows",
            "float32",
            lambda v: {"b": v["u"].T @ torch.full((1024,), 1.0 - 2.0**-12)},
        ),
    ],
)
def test_a_mistake_of_little_more_is_seen(
    name: str, dtype: str, wrong: Callable[[Values], Values]
) -> None:
    twin = replace(RIGHT[name].twin(name), manual=wrong)
    assert verify(twin, dtype=DTYPES[dtype], explain=False).verdict == "differ"


def test_rounding_to_decimals_has_no_rule() -> None:
    twin = Twin(
        "two decimals",
        lambda draw: {"x": draw.normal(shape=(64,)), "w": draw.normal(shape=(64,))},
        lambda v: {"loss": (v["x"].round(decimals=2) * v["w"]).sum()},
        lambda v: {"w": v["x"].round(decimals=2)},
    )
    report = verify(twin, dtype=torch.float32)
    assert report.verdict == "undecided"
    assert "aten.round.decimals, which has no rounding rule" in str(report)


def test_what_resizes_by_an_open_index() -> None:
    """A wrong hand through it is seen; whole numbers that are clamped were once our error."""
    twin = Twin(
        "resized",
        lambda draw: {"x": draw.normal(shape=(1, 2, 5))},
        lambda v: {
            "loss": functional.interpolate(v["x"], scale_factor=1.7, mode="linear").square().sum()
        },
        lambda v: {"x": torch.zeros_like(v["x"])},
    )
    assert verify(twin, explain=False).verdict == "differ"


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("count", [3, 7, 11])
def test_a_count_that_is_the_same_in_all_cases(count: int, dtype: str) -> None:
    """1 / n times 1 / n, off by as much in each case, as a number in the code is."""

    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(), "y": draw.normal(), "n": torch.full((draw.cases,), count)}

    def manual(v: Values) -> Values:
        inverse = 1 / v["n"].to(v["x"].dtype)
        weight = inverse * inverse
        return {"x": v["y"] * weight, "y": v["x"] * weight}

    def reference(v: Values) -> Values:
        return {"loss": v["x"] * v["y"] / (v["n"] * v["n"])}

    verify(Twin("count", inputs, reference, manual), dtype=DTYPES[dtype]).assert_agreement()


def test_a_temperature_that_is_the_same_in_all_cases() -> None:
    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(), "t": draw.cast(torch.full((draw.cases,), 0.07))}

    def manual(v: Values) -> Values:
        return {"x": 2 * v["x"] * (1 / v["t"]) * (1 / v["t"])}

    twin = Twin("t", inputs, lambda v: {"loss": (v["x"] / v["t"]) ** 2}, manual, stress=())
    verify(twin, dtype=torch.float16).assert_agreement()
