"""When explain must say nothing: chance, contradictions, too little to go by. Its arithmetic."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import explain_batched  # noqa: F401  registers scenarios
import explain_one_case  # noqa: F401
import explain_rows  # noqa: F401
import pytest
import torch
from explain_maker import RELATIVE, SCENARIOS, Maker, draws
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torch_ref.compare.explain import Evidence, explain
from torch_ref.compare.explain.arithmetic import applied, minus, over, plus, times
from torch_ref.compare.explain.functions import FUNCTIONS, Function
from torch_ref.compare.explain.numbers import constant_between, shortest_between, written
from torch_ref.compare.verdict import Side

ONLY_WHERE = "is wrong exactly where"  # of elements that are wrong anyhow, it holds all the same


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SCENARIOS)
def test_one_element_that_contradicts_is_enough(name: str, seed: int) -> None:
    """A decided element with another number: every explanation but that of the place must go."""
    make, phrase = SCENARIOS[name]
    found = draws(make, seed)
    generator = torch.Generator().manual_seed(seed)
    which = int(torch.randint(len(found), (), generator=generator))
    spoilt = found[which]
    candidates = spoilt.decided.reshape(-1).nonzero().reshape(-1)
    place = candidates[int(torch.randint(len(candidates), (), generator=generator))]
    value = spoilt.manual.value.clone().reshape(-1)
    value[place] = 1.37 * value[place].nan_to_num(nan=1.0) + 0.1
    manual = Side(value.reshape(spoilt.manual.value.shape), spoilt.manual.bound)
    found[which] = replace(spoilt, manual=manual)
    explanation = explain(found)
    assert not explanation.known or ONLY_WHERE in explanation.sentence, explanation.sentence
    assert phrase not in explanation.sentence or ONLY_WHERE in phrase


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(300,), (5, 7), (2, 3, 4), (4,)])
def test_random_numbers_have_no_pattern(shape: tuple[int, ...], seed: int) -> None:
    def make(maker: Maker) -> Evidence:
        maker.values = {name: maker.normal(*shape) for name in ("x", "w", "z", "t")}
        maker.values |= {"s": maker.normal(), "mask": maker.normal(*shape) > 0}
        maker.values["tokens"] = maker.integers(0, 4, *shape)
        maker.gradients = {name: maker.normal(*shape) for name in ("p", "q")}
        paths = {name: maker.normal(*shape) for name in ("p", "q")}
        return maker.evidence("x", maker.normal(*shape), paths)

    explanation = explain(draws(make, seed))
    assert not explanation.known
    assert "dL/dx: no known pattern; it is wrong in 100.00% of the elements" in explanation.sentence
    assert re.search("hand / expected is (mostly )?between", explanation.sentence)


@pytest.mark.parametrize("seed", range(3))
def test_random_mistakes_in_some_elements_have_no_pattern(seed: int) -> None:
    def make(maker: Maker) -> Evidence:
        maker.values = {name: maker.normal(300) for name in ("x", "w", "z", "t")}
        maker.gradients = {"p": maker.normal(300)}
        truth = maker.values["w"] * maker.gradients["p"]
        wrong = torch.where(maker.normal(300) > 1, maker.normal(300), truth)
        return maker.evidence("x", wrong, {"p": truth})

    explanation = explain(draws(make, seed))
    assert not explanation.known, explanation.sentence


def wrong_by(factor: Callable[[Maker], Tensor], values: dict[str, Tensor]) -> list[Evidence]:
    def make(maker: Maker) -> Evidence:
        maker.values = dict(values)
        maker.gradients = {"y": maker.normal(40)}
        truth = maker.gradients["y"] * 1.5
        return maker.evidence("x", truth * factor(maker), {"y": truth})

    return draws(make)


def test_a_quantity_that_is_always_the_same_is_not_named() -> None:
    """A ratio 3.7 is a constant, even where something is 3.7 in every draw."""
    v = torch.full((40,), 3.7, dtype=torch.float64)
    explanation = explain(wrong_by(lambda maker: v, {"v": v}))
    assert explanation.sentence == "dL/dx is 3.7 times the truth"


def test_a_factor_of_1_explains_nothing() -> None:
    v = torch.ones(40, dtype=torch.float64)
    found = wrong_by(lambda maker: 1 + maker.normal(40), {"v": v, "u": v})
    assert not explain(found).known


def test_nothing_is_accepted_on_zeros() -> None:
    """0 = c * 0 for every c, and every product with a 0 in it is one."""

    def make(maker: Maker) -> Evidence:
        zero = torch.zeros(50, dtype=torch.float64)
        maker.values = {"v": zero, "w": maker.normal(50)}
        maker.gradients = {"y": zero}
        wrong = zero.clone()
        wrong[:2] = maker.normal(2)  # two elements alone are wrong
        return maker.evidence("x", wrong, {"y": zero, "loss": zero})

    assert not explain(draws(make, count=1)).known


def test_few_wrong_elements_are_too_few() -> None:
    def make(maker: Maker) -> Evidence:
        maker.gradients = {"y": maker.normal(3)}
        return maker.evidence("x", -maker.gradients["y"], {"y": maker.gradients["y"]})

    assert not explain(draws(make, count=1)).known
    assert explain(draws(make, count=4)).known


def test_wide_bounds_tell_nothing() -> None:
    """A prediction fits where the bounds are as wide as the mistake: that is no evidence."""

    def make(maker: Maker) -> Evidence:
        maker.values = {"w": maker.normal(300)}
        maker.gradients = {"y": maker.normal(300)}
        truth = maker.values["w"] * maker.gradients["y"]
        made = maker.evidence("x", maker.gradients["y"], {"y": truth})
        wide = Side(made.values["w"].value, made.values["w"].value.abs() * 2 + 2)
        gradient = Side(made.gradients["y"].value, made.gradients["y"].value.abs() * 2 + 2)
        return replace(made, values={"w": wide}, gradients={"y": gradient, "x": made.manual})

    assert not explain(draws(make)).known


def test_undecided_elements_do_not_contradict() -> None:
    make, phrase = SCENARIOS["wrong_sign"]
    found = draws(make)
    decided = found[0].decided.clone()
    decided[0] = False
    value = found[0].manual.value.clone()
    value[0] = math.nan
    found[0] = replace(found[0], decided=decided, manual=Side(value, found[0].manual.bound))
    assert phrase in explain(found).sentence


def test_right_numbers_need_no_explanation() -> None:
    def make(maker: Maker) -> Evidence:
        maker.gradients = {"y": maker.normal(30)}
        return maker.evidence("x", maker.gradients["y"], {"y": maker.gradients["y"]})

    explanation = explain(draws(make))
    assert (explanation.sentence, explanation.known) == (
        "dL/dx is right in every decided element",
        False,
    )


def test_equal_paths_are_both_named() -> None:
    def make(maker: Maker) -> Evidence:
        g = maker.normal(50)
        maker.gradients = {"p": g, "q": g, "r": maker.normal(50)}
        paths = dict(maker.gradients)
        return maker.evidence("x", g + paths["r"], paths)

    sentence = explain(draws(make)).sentence
    assert sentence == "dL/dx lacks the path through q: dL/dq, or lacks the path through p: dL/dp"


def test_a_size_that_could_be_two_axes_is_not_called_the_batch() -> None:
    def make(maker: Maker) -> Evidence:
        dy = maker.normal(16, 16)
        maker.values = {"x": maker.normal(16, 16)}
        maker.gradients = {"y": dy}
        return maker.evidence("b", dy.mean(0), {"y": dy.sum(0)})

    assert (
        explain(draws(make)).sentence
        == "dL/db is 1/16 of the truth (16 is the size of axis 0, or axis 1, of x)"
    )


@pytest.mark.parametrize("names", [[], ["x", "w"]])
def test_draws_must_be_of_one_quantity(names: list[str]) -> None:
    found = [replace(draws(SCENARIOS["wrong_sign"][0], count=1)[0], name=name) for name in names]
    with pytest.raises(ValueError, match=r"one or more draws of one quantity; got (none|w, x)"):
        explain(found)


@pytest.mark.parametrize("operation", [plus, minus, times, over])
def test_arithmetic_covers_the_true_values(operation: Callable[[Side, Side], Side]) -> None:
    """The exact result of true values anywhere within the bounds, in float64, is covered."""
    generator = torch.Generator().manual_seed(0)
    maker = Maker(generator)
    a, b = 10 * maker.normal(2000), 10 * maker.normal(2000)
    wide = [Side(value, value.abs() * 0.1) for value in (a, b)]
    true = [
        Side(side.value + side.bound * (2 * torch.rand(2000, generator=generator) - 1), 0 * a)
        for side in wide
    ]
    result, exact = operation(*wide), operation(*true)
    difference = (result.value - exact.value).abs()
    assert bool((difference <= result.bound + exact.bound).all())
    assert bool((result.bound <= 0.5 * result.value.abs() + 10).all())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.text)
def test_functions_cover_the_true_values(function: Function) -> None:
    maker = Maker(torch.Generator().manual_seed(1))
    true = maker.normal(2000).abs() + 0.01
    noisy = maker.side(true)
    result, exact = function.of(noisy), function.of(Side(true, 0 * true))
    assert bool(((result.value - exact.value).abs() <= result.bound + exact.bound).all())
    assert bool((result.bound <= 100 * RELATIVE * (result.value.abs() + 1)).all())


def test_what_cancels_inside_a_function_widens_its_bound() -> None:
    side = Side(torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    plain = applied(lambda v: v - v, side)
    assert float(plain.bound) < float(applied(lambda v: v - v, side, lambda v: v).bound)


@given(low=st.floats(1e-300, 1e300), width=st.floats(1e-15, 10.0), sign=st.sampled_from((-1, 1)))
@settings(max_examples=100, deadline=None)
def test_the_shortest_number_lies_between(low: float, width: float, sign: int) -> None:
    ends = sorted((sign * low, sign * low * (1 + width)))
    number = shortest_between(*ends)
    assert (ends[0] <= number * (1 + 1e-15) and number * (1 - 1e-15) <= ends[1]) or sign < 0
    assert math.copysign(1, number) == sign
    constant = constant_between(*ends)
    assert ends[0] - constant.radius <= constant.value <= ends[1] + constant.radius


@pytest.mark.parametrize(
    ("low", "high", "number"),
    [(-16.13, -16.07, "-16.1"), (0.99, 3.2, "2"), (-1.0, 2.0, "0"), (354.8, 355.3, "355"),
     (1.2e-7, 1.4e-7, "1.3e-07"), (0.0098, 0.0102, "0.01")],
)  # fmt: skip
def test_numbers_are_short(low: float, high: float, number: str) -> None:
    assert written(shortest_between(low, high)) == number


SHAPES = [(), (1,), (0,), (3, 0), (1, 1, 4), (2, 1, 3, 2, 2), (2, 2, 2, 2), (70,), (40, 40)]
KINDS = ["random", "scaled", "nan", "inf", "zero", "negative", "first zero"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_and_number_gets_a_sentence(shape: tuple[int, ...], kind: str) -> None:
    """Nothing that a report may hand over makes it fail, and no warning comes out."""

    def make(maker: Maker) -> Evidence:
        numbers = maker.normal(*shape)
        maker.values = {
            "x": numbers, "s": maker.normal(), "one": maker.normal(1), "mask": numbers > 0,
            "tokens": maker.integers(-2, 3, *shape), "row": maker.normal(*shape[:1]),
            "any": maker.normal(maker.size(1, 4), 3), "nan": numbers * math.nan, "0": 0 * numbers,
        }  # fmt: skip
        maker.gradients = {"y": maker.normal(*shape), "s": maker.normal(), "inf": numbers / 0.0}
        truth = maker.normal(*shape)
        manual = {
            "random": maker.normal(*shape), "scaled": 3 * truth, "nan": truth * math.nan,
            "inf": truth / 0.0, "zero": 0 * truth, "negative": -truth,
            "first zero": torch.where(torch.arange(truth.numel()).reshape(shape) == 0, 0.0, truth),
        }[kind]  # fmt: skip
        return maker.evidence("x", manual, {"y": truth / 2, "loss": truth / 2})

    found = draws(make, count=7)
    assert explain(found[:1]).sentence.startswith("dL/dx")
    found[-1] = replace(found[-1], values={}, paths={}, gradients={"x": found[-1].manual})
    assert explain(found).sentence.startswith("dL/dx")


def test_draws_may_differ_in_rank() -> None:
    def make(maker: Maker) -> Evidence:
        shape = (4,) * maker.size(1, 3)
        maker.values, maker.gradients = {"x": maker.normal(*shape)}, {"y": maker.normal(*shape)}
        return maker.evidence("x", -maker.gradients["y"], {"y": maker.gradients["y"]})

    assert explain(draws(make)).sentence == "dL/dx has the wrong sign"
