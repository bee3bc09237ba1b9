"""The detection curve measures what it says, and the results beside it are such a measurement."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.detection_curve import (
    ERRORS,
    RESULTS,
    Series,
    by_assert_close,
    by_verify,
    drawn,
    forward,
    measure,
    mismatched,
    one_case,
    ordinary_twin,
    point,
    result,
)
from bench.detection_plot import plot
from torch_ref import verify
from torch_ref.compare.autograd import gradients_by_autograd

FEW_ERRORS = (1e-1, 1e-6, 1e-12, 0.0)


@pytest.fixture(scope="module")
def series() -> dict[tuple[str, str], Series]:
    return {(one.tool, one.dtype): one for one in measure(256, 1, FEW_ERRORS)}


@pytest.mark.slow
def test_every_tool_is_asked_in_every_dtype_that_it_is_made_for(
    series: dict[tuple[str, str], Series],
) -> None:
    dtypes = ("float64", "float32", "bfloat16", "float16")
    assert set(series) == {
        *((tool, dtype) for tool in ("verify", "assert_close") for dtype in dtypes),
        ("gradcheck", "float64"),
        ("gradcheck, fast mode", "float64"),
    }
    for one in series.values():
        assert len(one.cases) == len(one.worst) == len(one.runs) == len(FEW_ERRORS)
        assert all(0 <= low <= share <= 1 for low, share in zip(one.worst, one.cases, strict=True))


@pytest.mark.slow
def test_each_tool_catches_what_it_can_and_no_more(
    series: dict[tuple[str, str], Series],
) -> None:
    assert series["verify", "float64"].worst == (1.0, 1.0, 1.0, 0.0)
    assert series["verify", "float64"].smallest_caught(FEW_ERRORS) == 1e-12
    assert series["verify", "float32"].worst[0] == 1.0
    assert series["verify", "float32"].cases[2] == 0.0
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        assert series["verify", dtype].runs[-1] == 0.0  # no false alarm
    assert series["assert_close", "float64"].cases[2:] == (0.0, 0.0)
    assert series["assert_close", "bfloat16"].cases[-1] > 0.05  # its false alarms
    for tool in ("gradcheck", "gradcheck, fast mode"):
        assert series[tool, "float64"].cases == (1.0, 0.0, 0.0, 0.0)
        assert series[tool, "float64"].smallest_caught(FEW_ERRORS) == 1e-1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x6", "w34", "x1"])
def test_planting_in_all_gradients_is_planting_in_each_in_turn(name: str) -> None:
    twin, error, count = ordinary_twin(), 1e-13, 512
    shares, _ = by_verify(drawn(torch.float64, count), twin, error)

    def manual(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gradients = twin.manual(values)
        return {**gradients, name: gradients[name] + error * gradients[name]}

    report = verify(replace(twin, manual=manual), cases=count)
    wrong = {row.name: row.wrong for row in report.rows}
    assert 0 < shares[name] == wrong.pop(name)
    assert set(wrong.values()) == {0.0}


def test_the_shares_of_assert_close_are_its_own_counts() -> None:
    inputs, twin = drawn(torch.float32, 300), ordinary_twin()
    shares, verdicts = by_assert_close(inputs, twin, 1e-5)
    hand, autograd = twin.manual(dict(inputs)), gradients_by_autograd(twin.reference, inputs)
    for name in ("w46", "x3", "x2"):
        wrong = hand[name] + 1e-5 * hand[name]
        failed = 0
        for pair in zip(wrong, autograd[name], strict=True):
            try:
                torch.testing.assert_close(*pair)
            except AssertionError:
                failed += 1
        assert 0 < failed < 300
        assert (shares[name], verdicts[name]) == (failed / 300, 1.0)


def test_mismatched_elements_are_counted() -> None:
    expected = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert mismatched(expected, expected) == 0.0
    assert mismatched(torch.tensor([1.0, 2.1, 3.0, 4.0]), expected) == 0.25
    assert mismatched(torch.tensor(1.0), torch.tensor(2.0)) == 1.0


def test_gradcheck_is_given_the_same_network() -> None:
    """Its Function's forward is the network, and it passes where the backward is right."""
    inputs = {name: value[0] for name, value in drawn(torch.float64, 1).items()}
    twin = ordinary_twin()
    values = twin.reference({name: value[None] for name, value in inputs.items()})
    known = forward(inputs)
    for name, value in values.items():
        torch.testing.assert_close(known[name], value[0], rtol=1e-12, atol=0)
    gradients = gradients_by_autograd(
        twin.reference, {name: value[None] for name, value in inputs.items()}
    )
    for name in twin.manual({name: value[None] for name, value in inputs.items()}):
        right, at = gradients[name][0], point(name, inputs)
        assert torch.autograd.gradcheck(one_case(name, inputs, right), (at,))
        wrong = one_case(name, inputs, -right)
        assert not torch.autograd.gradcheck(wrong, (at,), raise_exception=False)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((RESULTS / "detection_curve.json").read_text())
    return told


def test_the_results_are_whole(measured: dict[str, Any]) -> None:
    assert measured.keys() == result([], ERRORS).keys()
    assert tuple(measured["errors"]) == ERRORS
    assert len(measured["series"]) == 10
    for one in measured["series"]:
        assert one["number_of_cases"] >= (24 if "gradcheck" in one["tool"] else 100_000)
        assert len(one["cases"]) == len(one["worst"]) == len(one["runs"]) == len(ERRORS)
    text = json.dumps(measured)
    assert "/" not in text  # no path of anybody's machine


def test_the_results_are_what_this_code_measures(
    measured: dict[str, Any], series: dict[tuple[str, str], Series]
) -> None:
    """A small run comes to the same shares, as far as 256 cases tell."""
    at = [measured["errors"].index(error) for error in FEW_ERRORS]
    for one in measured["series"]:
        small = series[one["tool"], one["dtype"]]
        assert small.cases == pytest.approx([one["cases"][i] for i in at], abs=0.1)


def test_the_results_show_no_false_alarm_of_verify(measured: dict[str, Any]) -> None:
    for one in measured["series"]:
        if one["tool"] == "verify":
            assert one["false_alarms"] == one["runs"][-1] == 0.0


def test_the_plot_is_drawn_the_same_each_time(measured: dict[str, Any], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        plot(measured, tmp_path / folder)
    one, two = (tmp_path / folder / "detection_curve.svg" for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert b"<svg" in one.read_bytes()
    png = (tmp_path / "one" / "detection_curve.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    for file in ("svg", "png"):
        assert (RESULTS / f"detection_curve.{file}").stat().st_size > 10_000
