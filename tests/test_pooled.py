"""What many cases show together: small systematic errors are caught, right code is not accused."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import Tensor

from torch_ref import Twin, assignment_twin, verify
from torch_ref.compare import DTYPES
from torch_ref.compare.pooled import BIAS, Pool
from torch_ref.report import print_report

Values = dict[str, Tensor]


def with_error(name: str, error: float, dtype: torch.dtype) -> object:
    """The assignment's twin, one gradient off by a relative error, rounded once to the dtype."""
    twin = assignment_twin()

    def manual(values: Values) -> Values:
        gradients = twin.manual(values)
        if gradients[name].dtype != dtype:
            return gradients
        return {**gradients, name: (gradients[name].double() * (1 + error)).to(dtype)}

    return replace(twin, manual=manual)


SYSTEMATIC = [("bfloat16", 0.01), ("bfloat16", -0.01), ("float32", 1e-7), ("float32", -1e-7)]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "error"), SYSTEMATIC)
@pytest.mark.parametrize("name", ["x6", "w46", "x5", "w35", "x3", "z3", "w13", "x1"])
def test_a_systematic_error_is_caught_in_a_million_cases(
    name: str, dtype: str, error: float
) -> None:
    caught(name, dtype, error, 1_000_000)


@pytest.mark.parametrize(("dtype", "error"), SYSTEMATIC)
def test_a_systematic_error_is_caught(dtype: str, error: float) -> None:
    caught("z6", dtype, error, 250_000)


def caught(name: str, dtype: str, error: float, cases: int) -> None:
    twin = with_error(name, error, DTYPES[dtype])
    report = verify(twin, cases=cases, dtype=DTYPES[dtype], explain=False)
    wrong = {row.name: row for row in report.rows if row.verdict == "differ"}
    assert list(wrong) == [name]
    assert wrong[name].bias == pytest.approx(error, rel=0.3)
    with pytest.raises(AssertionError, match=f"dL/d{name} is off by a relative .* on the whole"):
        report.assert_agreement()


def pool(errors: Tensor, bound: float, cases: int | None = None) -> Pool:
    reference = torch.ones_like(errors)
    usable = torch.ones_like(errors, dtype=torch.bool)
    bounds = torch.full_like(errors, bound)
    return Pool.of(errors, reference, bounds, usable, 2.0**-8, cases is None)


def noise(count: int, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return size * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)


def test_the_estimate_is_that_of_the_common_error() -> None:
    found = pool(noise(100_000, 0.02) + 0.01, 0.03)
    assert found.bias == pytest.approx(0.01, abs=0.002)
    assert found.biased(2.0**-8)


def test_rounding_alone_is_no_bias() -> None:
    assert not pool(noise(100_000, 0.3), 0.3).biased(2.0**-8)


def test_the_mean_error_of_a_curved_function_is_no_bias() -> None:
    """cos(z + error) is on the average nearer to 0 than cos(z): here by 1 %."""
    z, error = 100 * noise(4_000_000, 1.0), noise(4_000_000, 0.25).flip(0)
    deviation, bound = (z + error).cos() - z.cos(), torch.full_like(z, 0.25)
    found = Pool.of(deviation, z.cos(), bound, bound > 0, 2.0**-8, batched=True)
    assert found.bias == pytest.approx(-0.01, abs=0.001)
    assert not found.biased(2.0**-8)


def test_the_worst_that_rounding_may_do_to_one_case_is_no_bias() -> None:
    assert not pool(torch.full((1,), 0.3, dtype=torch.float64), 0.3).biased(2.0**-8)
    assert not Pool().biased(2.0**-8)


def test_elements_of_one_case_count_as_one() -> None:
    """They share their rounding errors, however many they are."""
    shared = torch.full((1000,), 0.1, dtype=torch.float64)
    assert not pool(shared, 0.3, cases=1).biased(2.0**-8)
    assert pool(shared, 0.3).biased(2.0**-8)


def test_more_cases_allow_less_but_never_less_than_a_share_of_the_unit_roundoff() -> None:
    few, many = pool(noise(1000, 0.3), 0.3), pool(noise(100_000, 0.3), 0.3)
    assert few.allowed(2.0**-8) > many.allowed(2.0**-8) > BIAS * 2.0**-8


def test_pools_add_up() -> None:
    errors = noise(1000, 0.3)
    halves = pool(errors[:500], 0.3) + pool(errors[500:], 0.3)
    whole = pool(errors, 0.3)
    assert halves.bias == pytest.approx(whole.bias, rel=1e-12)
    assert halves.cases == whole.cases == 1000


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("number", [0.3, 1 / 3, math.pi])
def test_a_constant_in_right_code_is_no_bias(number: float, dtype: str) -> None:
    """It is off by the same amount in every case: in float32 0.3 is by a third of a roundoff."""
    twin = ridge(lambda dy, values: 2 * number * dy, number)
    report = verify(twin, cases=200_000, dtype=DTYPES[dtype])
    report.assert_agreement()


def test_a_constant_that_each_side_writes_in_another_way_is_no_bias() -> None:
    twin = Twin(
        "log10",
        lambda draw: {"x": draw.uniform(0.1, 9.0)},
        lambda values: {"loss": values["x"].log10()},
        lambda values: {"x": 0.4342944819032518 / values["x"]},
    )
    verify(twin, cases=200_000).assert_agreement()


def test_a_constant_accounts_for_no_more_than_itself() -> None:
    found = pool(noise(100_000, 0.02) + 0.01, 0.03)
    assert found.biased(2.0**-8, by_constants=0.005)
    assert not found.biased(2.0**-8, by_constants=0.01)


def test_what_only_all_cases_show_is_said_on_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = verify(with_error("z6", 0.01, torch.bfloat16), cases=250_000, dtype=torch.bfloat16)
    assert not any(row.wrong for row in report.rows)
    print_report(report, Console(width=120))
    out = capsys.readouterr().out
    assert "dL/dz6 is off by a relative 0.0" in out
    assert "look at it" not in out  # no single case shows it


def ridge(slope: Callable[[Tensor, Values], Tensor], number: float) -> Twin:
    """loss = number (w x - t)^2."""

    def reference(values: Values) -> Values:
        y = values["w"] * values["x"]
        return {"y": y, "loss": number * (y - values["t"]) ** 2}

    def manual(values: Values) -> Values:
        dy = slope(values["w"] * values["x"] - values["t"], values).to(values["x"].dtype)
        return {"y": dy, "w": dy * values["x"]}

    return Twin("ridge", lambda draw: {name: draw.normal() for name in "wxt"}, reference, manual)
