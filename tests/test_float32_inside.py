"""Kernels that go on in float32 for bfloat16 and float16 are bounded by what they do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Twin, verify
from torch_ref.compare.twin import Values

HALVES = (torch.bfloat16, torch.float16)


def always(value: Tensor) -> Tensor:
    return value.float()


def from_halves(value: Tensor) -> Tensor:
    """As kernels do it; a recording in float64 does not see it."""
    return value.float() if value.dtype in HALVES else value


def inputs(draw: Draw) -> Values:
    return {
        "x": draw.normal(shape=(8, 64)),
        "g": draw.normal(shape=(64,)),
        "dy": draw.normal(shape=(8, 64)),
    }


def reference(values: Values) -> Values:
    x = values["x"]
    scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
    return {"loss": (x * scale * values["g"] * values["dy"]).sum()}


def rms_norm(widened: Callable[[Tensor], Tensor], factor: float = 1.0) -> Twin:
    def manual(values: Values) -> Values:
        x, g, dy = (widened(values[name]) for name in ("x", "g", "dy"))
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)
        normal, upstream = x * scale, dy * g
        dx = scale * (upstream - normal * (upstream * normal).mean(-1, keepdim=True))
        dtype = values["x"].dtype
        return {"x": (factor * dx).to(dtype), "g": (dy * normal).sum(0).to(dtype)}

    return Twin("RMS norm", inputs, reference, manual)


@pytest.mark.parametrize("widened", [always, from_halves])
def test_sums_in_float32_leave_nothing_undecided(widened: Callable[[Tensor], Tensor]) -> None:
    report = verify(rms_norm(widened), dtype="bfloat16", cases=60)
    report.assert_agreement()
    assert max(row.undecided for row in report.rows) < 0.01
    assert verify(rms_norm(widened, 1.01), dtype="bfloat16", cases=60).first_wrong == "x"


def test_the_same_in_bfloat16_itself_loses_them() -> None:
    report = verify(rms_norm(lambda value: value), dtype="bfloat16", cases=60)
    assert min(row.undecided for row in report.rows) > 0.1


def test_what_goes_back_to_the_dtype_is_rounded_to_it() -> None:
    """Each step of it by itself, so that the bound is not one of float32's."""

    def manual(values: Values) -> Values:
        third = (values["x"].float() / 3).to(values["x"].dtype)
        return {"x": (third.float() * values["y"].float()).to(values["x"].dtype)}

    twin = Twin(
        "thirds",
        lambda draw: {"x": draw.normal(shape=(50,)), "y": draw.normal(shape=(50,))},
        lambda values: {"loss": (values["x"] ** 2 / 6 * values["y"]).sum()},
        manual,
    )
    row = verify(twin, dtype="bfloat16", cases=60).rows[0]
    assert row.verdict == "agree"
    assert 0.5 < (row.worst_ratio or 0) < 1
    assert row.digits_manual < 2.5


def test_float32_does_not_overflow_where_float16_would() -> None:
    def manual(values: Values) -> Values:
        x, y = values["x"].float(), values["y"].float()
        return {"x": (2 * (x * y) * y * 1e-12).to(values["x"].dtype)}

    twin = Twin(
        "products",
        lambda draw: {"x": draw.uniform(300, 900, (20,)), "y": draw.uniform(300, 900, (20,))},
        lambda values: {"loss": (((values["x"] / 100) * (values["y"] / 100)) ** 2 / 1e4).sum()},
        manual,
        stress=(),
    )
    report = verify(twin, dtype="float16", cases=20)
    report.assert_agreement()
    assert report.rows[0].undecided < 0.2
