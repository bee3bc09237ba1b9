"""Hands in NumPy that lose digits are granted what rounding does to them, and mistakes nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from torch_ref import Draw, Twin, verify
from torch_ref.compare.sides.noise import RUNS, SAFETY, noise, scattered
from torch_ref.compare.twin import Values

U = 2.0**-53


def moved(function: Callable[..., Any], *shapes: tuple[int, ...]) -> tuple[Any, Any]:
    """What a function of arrays gives, and how far its numbers scatter, in unit roundoffs."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]

    def hand() -> Values:
        return {"y": torch.as_tensor(np.asarray(function(*(value.numpy() for value in given))))}

    exact = hand()
    return exact["y"].numpy(), scattered(hand, exact, U)["y"].numpy() / U


ROUNDING: dict[str, Callable[..., Any]] = {
    "a product": lambda x: x * x.T,
    "a quotient": lambda x: 1 / x,
    "a power": lambda x: x**2,
    "exp": np.exp,
    "a sum": lambda x: x.sum(0),
    "a mean": lambda x: np.mean(x, axis=1),
    "a running sum": lambda x: x.cumsum(0),
    "@": lambda x: x @ x,
    "dot": lambda x: x.dot(x),
    "einsum": lambda x: np.einsum("ij,jk->ik", x, x),
    "outer": lambda x: np.outer(x[0], x[1]),
    "solve": lambda x: np.linalg.solve(x, x[0]),
    "fft": lambda x: np.fft.fft(x).real,
    "single numbers": lambda x: [x[0, 0] * x[0, 1]],
    "in place": lambda x: np.add(np.zeros(x.shape), np.exp(x), out=np.zeros(x.shape)),
}
EXACT: dict[str, Callable[..., Any]] = {
    "another order": lambda x: x.T[::-1].copy(),
    "a maximum": lambda x: np.maximum(x, 0).max(0),
    "where": lambda x: np.where(x > 0, x, -x),
    "joined": lambda x: np.concatenate([x, np.abs(x)]),
    "put": lambda x: np.put_along_axis(y := x.copy(), x.argmax(1)[:, None], 0.0, 1) or y,
}


@pytest.mark.parametrize("name", ROUNDING)
def test_what_rounds_scatters_by_some_unit_roundoffs(name: str) -> None:
    value, scatter = moved(ROUNDING[name], (3, 3))
    assert (scatter > 0.5 * np.abs(value)).all()
    assert (scatter < 300 * np.abs(value).max()).all()


@pytest.mark.parametrize("name", EXACT)
def test_what_does_not_round_does_not_scatter(name: str) -> None:
    assert not moved(EXACT[name], (3, 3))[1].any()


def test_digits_that_cancel_are_seen_even_where_all_are_lost() -> None:
    scatter = scattered(lambda: {"y": torch.as_tensor(_one_minus_square())}, {"y": _zeros()}, U)[
        "y"
    ]
    assert (scatter > SAFETY * U).all()
    assert (scatter < 100 * U).all()


def _one_minus_square() -> Any:
    return np.asarray(1 - np.tanh(torch.full((100,), 30.0).double().numpy()) ** 2)


def _zeros() -> torch.Tensor:
    return torch.zeros(100, dtype=torch.float64)


def test_what_is_infinite_is_so_exactly() -> None:
    with np.errstate(divide="ignore"):
        scatter = moved(lambda x: np.exp(np.log(np.maximum(x, 0.0)) * 2), (4, 4))[1]
    assert np.isfinite(scatter).all()


def test_noise_ends_with_its_context_and_is_the_same_again() -> None:
    x = torch.ones(5, dtype=torch.float64)
    found = []
    for _ in range(2):
        with noise(U, 3):
            kept = x.numpy()
            found.append(np.asarray(kept / 3))
    assert (found[0] == found[1]).all()
    assert (found[0] != 1 / 3).all()
    assert (np.asarray(kept * 3) == 3).all()
    assert type(x.numpy()) is np.ndarray
    assert RUNS > 1


def _tanh_twin(factor: float) -> Twin:
    def inputs(draw: Draw) -> Values:
        return {"x": draw.normal(std=3.0), "u": draw.normal()}

    def reference(values: Values) -> Values:
        power = torch.exp(2 * values["x"])
        return {"loss": values["u"] * (power - 1) / (power + 1)}

    def manual(values: Values) -> Values:
        t = np.tanh(values["x"].numpy())
        return {"x": torch.from_numpy(values["u"].numpy() * (1 - t**2) * t.dtype.type(factor))}

    return Twin("tanh", inputs, reference, manual)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_hand_that_cancels_agrees_and_a_wrong_one_differs(dtype: str) -> None:
    right = verify(_tanh_twin(1.0), dtype=dtype, cases=20_000)
    right.assert_agreement()
    assert any("loses more digits" in note for note in right.notes)
    assert verify(_tanh_twin(1.001), dtype=dtype, cases=20_000).verdict == "differ"


def _solve_twin(transposed: bool) -> Twin:
    def inputs(draw: Draw) -> Values:
        return {
            "A": draw.normal(shape=(3, 3)),
            "b": draw.normal(shape=(3,)),
            "c": draw.normal(shape=(3,)),
        }

    def reference(values: Values) -> Values:
        return {"loss": values["c"] @ torch.linalg.solve(values["A"], values["b"])}

    def manual(values: Values) -> Values:
        matrix, b, c = (values[name].numpy() for name in ("A", "b", "c"))
        db = np.linalg.solve(matrix.T if transposed else matrix, c)
        da = -np.outer(db, np.linalg.solve(matrix, b))
        return {"b": torch.as_tensor(db), "A": torch.as_tensor(da)}

    return Twin("solve", inputs, reference, manual)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_linear_system_in_numpy(seed: int) -> None:
    """Its zeros are no zeros, and matrices are singular that rounding hides from one side."""
    verify(_solve_twin(True), seed=seed, cases=60).assert_agreement()
    assert verify(_solve_twin(False), seed=seed, cases=60).first_wrong == "b"


def test_a_hand_that_does_not_stand_noise_has_what_it_had() -> None:
    """An index that is no whole number any more."""
    right = _tanh_twin(1.0)

    def manual(values: Values) -> Values:
        places = np.arange(3)
        assert places[int(2 * np.exp(values["x"].numpy()[0] * 0))] == 2  # 1.99999 under noise
        return right.manual(values)

    report = verify(replace(right, manual=manual), cases=2000)
    assert report.verdict == "differ"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_exact_stays_as_it_is(dtype: torch.dtype) -> None:
    """So that a mistake at a threshold that is met exactly is none of rounding's."""
    unit_roundoff = torch.finfo(dtype).eps / 2
    x = torch.tensor([1.0, 0.1, 3.0, 2.0**-30 + 1], dtype=torch.float64)
    with noise(unit_roundoff, 0):
        found = x.numpy()
        quarter, tripled, sums = (np.asarray(y) for y in (4 * found / 4, found * 3, found + 1))
    assert (quarter[[0, 2]] == [1, 3]).all()
    assert (quarter[3] == x[3].item()) == (dtype == torch.float64)
    assert (tripled[[0, 2]] == [3, 9]).all()
    assert tripled[1] != 0.1 * 3
    assert (sums[[0, 2]] == [2, 4]).all()


def test_a_mistake_at_a_threshold_is_seen() -> None:
    def manual(values: Values) -> dict[str, Any]:
        x, y = (values[name].numpy() for name in "xy")
        ratio = y / x
        slope = 1 / (x * x * (1 + ratio))  # which rounds
        return {"y": np.where(ratio == 4, 1.00001, 1.0) * slope * x * (1 + ratio)}

    def inputs(draw: Draw) -> Values:
        x = draw.uniform(0.5, 2.0)
        return {"x": x, "y": 4 * x if draw.stratum == "four" else draw.uniform(2.0, 7.0)}

    twin = Twin(
        "threshold", inputs, lambda v: {"loss": v["y"] / v["x"]}, manual, ("some", "four"), ()
    )
    assert verify(twin, cases=2000).verdict == "differ"
