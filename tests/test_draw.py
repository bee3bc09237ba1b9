"""Draw: the same random numbers for every dtype and device, in the shapes asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_ref import Draw, Twin, TwinError, verify
from torch_ref.compare import DTYPES, Cases
from torch_ref.compare.sizes import _primes, set_of_sizes, way_of
from torch_ref.compare.twin import power_of_ten, uniform

CASES = 7
FLOATING: dict[str, Callable[..., Tensor]] = {
    "normal": lambda draw, **shape: draw.normal(2.0, 3.0, **shape),
    "uniform": lambda draw, **shape: draw.uniform(-1.0, 4.0, **shape),
    "log_normal": lambda draw, **shape: draw.log_normal(0.5, 0.25, **shape),
}
OTHERS: dict[str, Callable[..., Tensor]] = {
    "integers": lambda draw, **shape: draw.integers(-3, 5, **shape),
    "booleans": lambda draw, **shape: draw.booleans(0.25, **shape),
}
HELPERS = {**FLOATING, **OTHERS}
SHAPES = [(), (1,), (5,), (0,), (3, 4), (2, 0, 3), (CASES, 2)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 1), (2, 30), (7, 7), (8, 10), (24, 28)])
def test_the_primes_are_these(low: int, high: int) -> None:
    primes = [n for n in range(max(low, 2), high + 1) if all(n % k for k in range(2, n))]
    assert list(_primes(low, high)) == primes


def test_sizes_of_a_long_axis() -> None:
    """Odd, even and prime ones, chosen without looking at all that lie between."""
    generator = np.random.default_rng(0)
    for turn in range(8):
        sizes = [way_of(set_of_sizes(turn))(generator, 1, 10**6) for _ in range(3)]
        assert all(1 <= size <= 10**6 for size in sizes)


def draw_of(dtype: torch.dtype = torch.float64, device: str = "cpu", seed: int = 0) -> Draw:
    generator = np.random.default_rng(seed)
    return Draw(generator, dtype, torch.device(device), CASES, "ordinary", lambda low, high: high)


@pytest.mark.parametrize("name", HELPERS)
def test_one_number_a_case_where_no_shape_is_given(name: str) -> None:
    assert HELPERS[name](draw_of()).shape == (CASES,)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", HELPERS)
def test_a_shape_is_taken_as_it_is(name: str, shape: tuple[int, ...]) -> None:
    assert HELPERS[name](draw_of(), shape=shape).shape == shape


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("name", FLOATING)
def test_every_dtype_sees_the_same_numbers(name: str, dtype: torch.dtype, device: str) -> None:
    """The float64 numbers, rounded: not others drawn in that dtype."""
    drawn = FLOATING[name](draw_of(dtype, device), shape=(50, 4))
    assert (drawn.dtype, drawn.device.type) == (dtype, device)
    wide = FLOATING[name](draw_of(), shape=(50, 4))
    assert torch.equal(drawn.cpu(), wide.to(dtype))
    assert len(wide.unique()) == 200


@pytest.mark.parametrize(("low", "high", "shape"), [(-1, 1, (3, 5)), (0, 5.5, 7), (-8, 0, ())])
def test_uniform_numbers_are_the_generators(low: float, high: float, shape: int) -> None:
    def generator() -> np.random.Generator:
        return np.random.default_rng(0)

    expected = torch.as_tensor(generator().uniform(low, high, shape))
    torch.testing.assert_close(uniform(generator(), low, high, shape), expected, rtol=1e-15, atol=0)
    powers = power_of_ten(generator(), low, high, shape)
    torch.testing.assert_close(powers, 10**expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("name", "dtype"), [("integers", torch.int64), ("booleans", torch.bool)])
def test_integers_and_booleans_do_not_depend_on_the_dtype(
    name: str, dtype: torch.dtype, device: str
) -> None:
    drawn = [OTHERS[name](draw_of(one, device), shape=(50,)) for one in DTYPES.values()]
    assert {(one.dtype, one.device.type) for one in drawn} == {(dtype, device)}
    assert all(torch.equal(one, drawn[0]) for one in drawn)


@pytest.mark.parametrize("name", HELPERS)
def test_the_seed_decides(name: str) -> None:
    first, again, other = (HELPERS[name](draw_of(seed=s), shape=(100,)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", HELPERS)
def test_a_second_draw_gives_other_numbers(name: str) -> None:
    draw = draw_of()
    assert not torch.equal(HELPERS[name](draw, shape=(100,)), HELPERS[name](draw, shape=(100,)))


# the distributions, on 20,000 numbers: means within 5 standard errors ----------------------------

COUNT = 20_000
MOMENTS = {  # mean and standard deviation
    "normal": (2.0, 3.0),
    "uniform": (1.5, 5 / 12**0.5),
    "log_normal": (
        np.exp(0.5 + 0.25**2 / 2),
        np.exp(0.5 + 0.25**2 / 2) * np.sqrt(np.expm1(0.25**2)),
    ),
    "integers": (0.5, np.sqrt((8**2 - 1) / 12)),
    "booleans": (0.25, np.sqrt(0.25 * 0.75)),
}


@pytest.mark.parametrize("name", HELPERS)
def test_the_distribution_is_that_of_the_name(name: str) -> None:
    drawn = HELPERS[name](draw_of(seed=3), shape=(COUNT,)).double()
    mean, std = MOMENTS[name]
    assert abs(drawn.mean().item() - mean) < 5 * std / COUNT**0.5
    assert abs(drawn.std().item() / std - 1) < 0.05


def test_ranges() -> None:
    """[low, high) for uniform numbers and integers."""
    uniform = FLOATING["uniform"](draw_of(), shape=(COUNT,))
    assert -1 <= uniform.min() < -0.99
    assert 3.99 < uniform.max() < 4
    assert OTHERS["integers"](draw_of(), shape=(COUNT,)).unique().tolist() == [*range(-3, 5)]
    assert OTHERS["booleans"](draw_of(), shape=(COUNT,)).unique().tolist() == [False, True]
    assert (FLOATING["log_normal"](draw_of(), shape=(COUNT,)) > 0).all()


def test_defaults() -> None:
    """Standard normal, [0, 1), exp of standard normal, heads or tails."""
    shape = (COUNT,)
    for drawn, mean, std in (
        (draw_of().normal(shape=shape), 0, 1),
        (draw_of().uniform(shape=shape), 0.5, 12**-0.5),
        (draw_of().log_normal(shape=shape).log(), 0, 1),
        (draw_of().booleans(shape=shape).double(), 0.5, 0.5),
    ):
        assert abs(drawn.mean().item() - mean) < 5 * std / COUNT**0.5
        assert abs(drawn.std().item() / std - 1) < 0.05


def test_cast_rounds_what_was_drawn_elsewhere(device: str) -> None:
    numbers = draw_of().generator.normal(size=(3, 2))
    for dtype in DTYPES.values():
        cast = draw_of(dtype, device).cast(numbers)
        assert (cast.dtype, cast.device.type) == (dtype, device)
        assert torch.equal(cast.cpu(), torch.as_tensor(numbers).to(dtype))
        assert draw_of(dtype, device).cast(0.1).shape == ()


# sizes, as a run hands them out ------------------------------------------------------------------


def cases_of(dtype: torch.dtype, seed: int) -> tuple[Cases, list[tuple[int, int, int]]]:
    """Cases of a one-case twin, and the sizes it is given as they are drawn."""
    met: list[tuple[int, int, int]] = []

    def inputs(draw: Draw) -> dict[str, Tensor]:
        sizes = (draw.size(1, 9), draw.size(4, 4), draw.size(2, 30))
        met.append(sizes)
        return {"x": draw.normal(shape=sizes), "kept": draw.booleans(shape=sizes[:1])}

    def reference(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (values["x"] ** 2).sum()}

    twin = Twin("squares", inputs, reference, lambda v: {"x": 2 * v["x"]}, stress=())
    return Cases(twin, dtype, torch.device("cpu"), seed), met


def test_sizes_lie_in_their_ranges_and_vary() -> None:
    cases, met = cases_of(torch.float64, 0)
    shapes = [tuple(cases.case(index).inputs["x"].shape) for index in range(24)]
    assert set(shapes) <= set(met)
    for sizes in shapes:
        assert 1 <= sizes[0] <= 9
        assert sizes[1] == 4
        assert 2 <= sizes[2] <= 30
    assert {sizes[0] for sizes in shapes} >= {1}  # the smallest takes its turn
    assert any(sizes[0] % 2 and sizes[0] > 1 for sizes in shapes)
    assert {sizes[::2] for sizes in shapes} >= {(9, 30)}  # and so does the largest
    assert any(sizes[0] % 2 == 0 for sizes in shapes)
    assert 6 <= len(set(shapes)) <= 10, "few sets of sizes take turns: each is recorded anew"


def test_more_sets_of_sizes_come_as_the_turns_double() -> None:
    assert [set_of_sizes(turn) for turn in range(10)] == [*range(8), 8, 0]
    assert [len({set_of_sizes(t) for t in range(n)}) for n in (16, 32, 64, 1024)] == [9, 10, 11, 15]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_run_draws_the_same_cases_in_every_dtype(dtype: torch.dtype) -> None:
    (wide, _), (narrow, _) = cases_of(torch.float64, 5), cases_of(dtype, 5)
    for index in range(8):
        one, other = wide.case(index).inputs, narrow.case(index).inputs
        assert torch.equal(other["x"], one["x"].to(dtype))
        assert torch.equal(other["kept"], one["kept"])


def test_the_seed_of_a_run_decides() -> None:
    first, again, other = (cases_of(torch.float64, seed)[0] for seed in (1, 1, 2))
    for index in range(8):
        x = first.case(index).inputs["x"]
        assert torch.equal(x, again.case(index).inputs["x"])
        assert x.flatten()[0] != other.case(index).inputs["x"].flatten()[0]
    assert not torch.equal(first.case(0).inputs["x"], first.case(4).inputs["x"])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda draw: draw.normal((2, 3)), r"draw.normal: mean must be a number; got \(2, 3\)"),
        (lambda draw: draw.uniform(0.5, [4]), r"draw.uniform: high must be a number; got \[4\]"),
        (lambda draw: draw.booleans((2,)), r"probability must .* draw.booleans\(shape=\(2,\)\)"),
    ],
)
def test_a_shape_where_a_number_is_wanted_is_said(call: Any, says: str) -> None:
    twin = Twin("mine", lambda draw: {"x": call(draw)}, lambda v: {"loss": v["x"].sum()}, dict)
    with pytest.raises(TwinError, match=says):
        verify(twin)
