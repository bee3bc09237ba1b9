"""The sweep over all float32 numbers: its float64 side is right, and it would see a mistake."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from bench import exhaustive
from bench.exhaustive import FUNCTIONS, PATTERNS, RESULT, errors_in_ulps, numbers, shown_by, sweep

STRIDE = 65_537
EXACT = {
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "sigmoid_derivative": lambda z: mpmath.exp(-abs(z)) / (1 + mpmath.exp(-abs(z))) ** 2,
    "square": lambda z: z * z,
    "square_derivative": lambda z: 2 * z,
    "itakura_saito": lambda t: t - 1 - mpmath.log(t),
}
AROUND = [1 - 2**-24, 1 + 2**-23, 1 - 2**-6, 1 + 2**-6, 0.5, 1.984, 2.0, 4.0, -17.0, -103.9, 88.0]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exhaustive, "CHUNK", 1024)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_float64_side_is_right_to_a_millionth_ulp(name: str) -> None:
    _, values = numbers(0, 2000, PATTERNS // 2000 | 1, "cpu")
    values = torch.cat([values, torch.tensor(AROUND)])
    values = values[FUNCTIONS[name].domain(values) & values.isfinite()]
    found = FUNCTIONS[name].exact(values.double())
    with mpmath.workdps(60):
        for value, one in zip(values.tolist(), found.tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(value))
            ulp = mpmath.mpf(2) ** (max(int(mpmath.frexp(exact)[1]), -125) - 24)
            assert abs(exact - one) < ulp / 10**6, value


def test_every_pattern_comes_once() -> None:
    whole = torch.cat([numbers(at, 2**12, 2**20 + 1, "cpu")[0] for at in (0, 2**12)])
    assert len(whole.unique()) == 2**13
    bits, values = numbers(0, 2**12, 2**20 + 1, "cpu")
    assert np.array_equal(values.numpy().view(np.uint32), bits.numpy())
    assert (values < 0).any()
    assert values.isnan().any()


@pytest.mark.parametrize(
    ("answer", "exact", "ulps"),
    [
        (1.0, 1.0, 0.0),
        (1 + 2**-23, 1.0, 1.0),
        (1.0, 1 + 2**-24, 0.5),
        (0.0, 2.0**-149, 1.0),
        (0.0, 2.0**-126, 2.0**23),
        (float("inf"), 1e60, 0.0),
        (float("inf"), (2 - 2**-23) * 2.0**127, 1.0),
        (float("-inf"), 1e60, 2.0**25),
        (float("nan"), 1.0, 1e300),
        (0.0, float("nan"), 1e300),
    ],
)
def test_errors_in_ulps(answer: float, exact: float, ulps: float) -> None:
    found = errors_in_ulps(torch.tensor([answer]), torch.tensor([exact], dtype=torch.float64))
    assert found.item() == ulps


@pytest.mark.parametrize("library", ["torch", "numpy"])
def test_a_run_cut_short_goes_on(tmp_path: Path, library: str) -> None:
    ledger = tmp_path / "ledger"
    whole = sweep(ledger, STRIDE, library, "cpu", total=5000)
    text = ledger.read_bytes()
    assert text.count(b"\n") == 6
    assert sum(one.inside + one.outside for one in whole["functions"].values()) == 5 * 5000
    ledger.write_bytes(text[: 2 * len(text) // 3])
    again = sweep(ledger, STRIDE, library, "cpu", total=5000)
    assert again["functions"] == whole["functions"]
    assert ledger.read_bytes().count(b"\n") == 6
    for other in ((STRIDE + 2, library), (STRIDE, "jax")):
        with pytest.raises(ValueError, match="is of another run"):
            sweep(ledger, *other, "cpu", total=5000)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_mistake_at_a_single_number_is_found(name: str) -> None:
    function = FUNCTIONS[name]
    bits, values = numbers(0, 4000, PATTERNS // 4000 | 1, "cpu")
    right = shown_by(function, bits, values, "torch")
    assert 0 <= right.ulps < 4
    assert right.answered == 0
    at = 1000
    assert function.domain(values)[at]

    def hand(z: torch.Tensor) -> torch.Tensor:
        return torch.where(z == values[at], function.hand(z) * 1.00001, function.hand(z))

    wrong = shown_by(replace(function, hand=hand), bits, values, "torch")
    assert (wrong.bits, wrong.ulps > 4) == (int(bits[at]), True)
    careless = replace(function, hand=lambda z: torch.ones_like(z))
    assert shown_by(careless, bits, values, "torch").answered == right.outside > 0


def test_the_recorded_result() -> None:
    found = json.loads(RESULT.read_text())
    assert found["numbers"] == PATTERNS // found["stride"]
    for name, worst in found["functions"].items():
        bits = torch.tensor([worst["bits"]])
        value = torch.as_tensor(bits.numpy().astype(np.uint32).view(np.float32))
        again = shown_by(FUNCTIONS[name], bits, value, found["library"])
        assert worst["ulps"] <= 4
        assert again.ulps <= 4  # on another machine exp may round otherwise there
        if name.startswith("square"):  # nothing of a library's own is in it
            assert again.ulps == worst["ulps"]
        assert worst["answered"] == 0
        assert asdict(again).keys() == worst.keys()
    assert set(found["functions"]) == set(FUNCTIONS)
