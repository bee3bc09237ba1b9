"""What a wrong gradient looks like: each hypothesis on hand-made evidence, and what must not pass.

Every draw's numbers carry noise within their bounds, as rounding would put there.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from explain_maker import Maker, Tensors
from torch import Tensor

from torch_ref.compare.explain import Evidence, explain

Scenario = Callable[[Maker], Evidence]
SCENARIOS: dict[str, tuple[Scenario, str]] = {}


def scenario(phrase: str) -> Callable[[Scenario], Scenario]:
    """Registers a way to be wrong and the phrase that the sentence must contain."""

    def register(make: Scenario) -> Scenario:
        SCENARIOS[make.__name__] = (make, phrase)
        return make

    return register


def draws(make: Scenario, seed: int = 0, count: int = 6) -> list[Evidence]:
    generator = torch.Generator().manual_seed(seed)
    return [make(Maker(generator)) for _ in range(count)]


# One case: y = x W^T + b, the shapes of a linear layer, upstream dL/dy.


def linear(maker: Maker, batch: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = maker.normal(batch, inputs), maker.normal(outputs, inputs)
    dy = maker.normal(batch, outputs)
    maker.values = {"x": x, "W": weight, "b": maker.normal(outputs), "y": maker.normal(*dy.shape)}
    maker.gradients = {"y": dy}
    return x, weight, dy


def sizes(maker: Maker) -> tuple[int, int, int]:
    return maker.size(2, 7), maker.size(3, 8), maker.size(3, 9)


@scenario("dL/dW has the wrong sign")
def wrong_sign(maker: Maker) -> Evidence:
    x, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("W", -dy.T @ x, {"y": dy.T @ x})


@scenario("dL/dW is 1/2 of the truth")
def half(maker: Maker) -> Evidence:
    x, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("W", dy.T @ x / 2, {"y": dy.T @ x})


@scenario("dL/dW is 1.702 times the truth")
def some_constant(maker: Maker) -> Evidence:
    x, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("W", 1.702 * (dy.T @ x), {"y": dy.T @ x})


@scenario("dL/db is 1/32 of the truth: mean over the batch where the sum belongs")
def mean_for_sum(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, 32, 3, 5)
    return maker.evidence("b", dy.mean(0), {"y": dy.sum(0)})


@scenario(
    "dL/db is 1/N of the truth, N being the size of axis 0 of x: mean over the batch where the sum "
    "belongs"
)
def mean_for_sum_of_any_size(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("b", dy.mean(0), {"y": dy.sum(0)})


@scenario("dL/dW is N times the truth, N being the size of axis 0 of x: sum over the batch where")
def sum_for_mean(maker: Maker) -> Evidence:
    x, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("W", dy.T @ x * len(x), {"y": dy.T @ x})


@scenario("dL/dx is sqrt(N) times the truth, N being the size of axis 1 of x")
def scale_forgotten(maker: Maker) -> Evidence:
    x, weight, dy = linear(maker, *sizes(maker))
    return maker.evidence("x", dy @ weight * x.shape[1] ** 0.5, {"y": dy @ weight})


@scenario("dL/dx is K/N of the truth, K being the number of True elements in mask")
def mean_over_the_ignored(maker: Maker) -> Evidence:
    x, weight, dy = linear(maker, maker.size(5, 9), 3, 4)
    kept = maker.size(1, 4)
    maker.values["mask"] = torch.arange(len(x)) < kept
    return maker.evidence("x", dy @ weight * kept / len(x), {"y": dy @ weight})


@scenario("dL/db is 0 everywhere")
def zero(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("b", 0 * dy.sum(0), {"y": dy.sum(0)})


@scenario("dL/db is 1 everywhere")
def one(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("b", torch.ones_like(dy.sum(0)), {"y": dy.sum(0)})


@scenario("dL/db is not a number everywhere")
def not_a_number(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("b", dy.sum(0) * math.nan, {"y": dy.sum(0)})


@scenario("dL/dW is transposed")
def transposed(maker: Maker) -> Evidence:
    x, _, dy = linear(maker, 7, 4, 4)
    return maker.evidence("W", x.T @ dy, {"y": dy.T @ x})


@scenario("dL/dx is flipped along axis 1")
def flipped(maker: Maker) -> Evidence:
    _, weight, dy = linear(maker, *sizes(maker))
    return maker.evidence("x", (dy @ weight).flip(1), {"y": dy @ weight})


@scenario("dL/dx is shifted by 1 along axis 1")
def shifted(maker: Maker) -> Evidence:
    _, weight, dy = linear(maker, *sizes(maker))
    return maker.evidence("x", (dy @ weight).roll(1, 1), {"y": dy @ weight})


@scenario("dL/dx is dL/dy @ W.T where dL/dy @ W belongs")
def weight_transposed(maker: Maker) -> Evidence:
    _, weight, dy = linear(maker, 7, 4, 4)
    return maker.evidence("x", dy @ weight.T, {"y": dy @ weight})


@scenario("dL/dW is dL/dy.T @ h where dL/dy.T @ x belongs")
def wrong_value_in_a_matrix_product(maker: Maker) -> Evidence:
    x, _, dy = linear(maker, *sizes(maker))
    maker.values["h"] = maker.normal(*x.shape)
    return maker.evidence("W", dy.T @ maker.values["h"], {"y": dy.T @ x})


@scenario("dL/db has only the last term of the sum over axis 0 of dL/dy")
def last_term(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("b", dy[-1], {"y": dy.sum(0)})


@scenario("dL/db leaves out the first term of the sum over axis 0 of dL/dy")
def first_term_left_out(maker: Maker) -> Evidence:
    _, _, dy = linear(maker, *sizes(maker))
    return maker.evidence("b", dy[1:].sum(0), {"y": dy.sum(0)})


@scenario("dL/dW has the extra term 0.01 * W")
def weight_decay(maker: Maker) -> Evidence:
    x, weight, dy = linear(maker, *sizes(maker))
    return maker.evidence("W", dy.T @ x + 0.01 * weight, {"y": dy.T @ x})


# One case: normalizations and softmax over axis 1.


def softmax(maker: Maker) -> tuple[Tensor, Tensor, Tensor]:
    x = maker.normal(maker.size(2, 5), maker.size(4, 7))
    y, dy = x.softmax(1), maker.normal(*x.shape)
    maker.values = {"x": x, "y": y}
    maker.gradients = {"y": dy}
    return y, dy, y * (dy - (y * dy).sum(1, keepdim=True))


@scenario("dL/dx lacks the subtraction of y times the sum over axis 1 of y * dL/dy")
def softmax_without_its_sum(maker: Maker) -> Evidence:
    y, dy, truth = softmax(maker)
    return maker.evidence("x", y * dy, {"y": truth})


@scenario("dL/dx differs from the truth by y times a number that is constant along axis 1")
def softmax_with_another_sum(maker: Maker) -> Evidence:
    y, dy, truth = softmax(maker)
    return maker.evidence("x", y * (dy - dy.square().sum(1, keepdim=True)), {"y": truth})


@scenario("dL/dx is the truth plus its own mean over axis 1, which should be 0")
def mean_not_subtracted(maker: Maker) -> Evidence:
    _, dy, _ = softmax(maker)
    return maker.evidence("x", dy, {"y": dy - dy.mean(1, keepdim=True)})


@scenario("dL/dx is the truth times a factor that has no name and is constant along axis 1")
def missing_deviation(maker: Maker) -> Evidence:
    _, dy, _ = softmax(maker)
    deviation = dy.std(1, keepdim=True)
    truth = dy - dy.cumsum(1) / 3
    return maker.evidence("x", truth * deviation, {"y": truth})


@scenario("dL/dx has all along axis 1 its mean over it")
def mean_all_along(maker: Maker) -> Evidence:
    _, dy, truth = softmax(maker)
    truth = truth + dy
    return maker.evidence("x", truth.mean(1, keepdim=True).expand(dy.shape), {"y": truth})


# A batched twin: every tensor has the cases, 300 of them.

CASES = 300


def scalars(maker: Maker) -> Tensors:
    """z feeds x = sigma(z), which is multiplied by w, u and v on its three ways on."""
    names = ("z", "w", "u", "v", "t")
    maker.values = {name: maker.normal(CASES) for name in names}
    maker.values["z"] = 4 * maker.values["z"]
    maker.values["x"] = maker.values["z"].sigmoid()
    maker.gradients = {name: maker.normal(CASES) for name in ("p", "q", "r")}
    return {**maker.values, **{f"d{name}": value for name, value in maker.gradients.items()}}


def three_paths(maker: Maker, wrong: Callable[[Tensors], Tensor]) -> Evidence:
    v = scalars(maker)
    paths = {"p": v["w"] * v["dp"], "q": v["u"] * v["dq"], "r": v["v"] * v["dr"]}
    return maker.evidence("x", wrong({**v, **paths}), paths)


@scenario("dL/dx lacks the path through q: u * dL/dq")
def path_missing(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["p"] + v["r"])


@scenario("dL/dx has only the path through q: u * dL/dq")
def path_alone(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["q"])


@scenario("dL/dx counts twice the path through q: u * dL/dq")
def path_twice(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["p"] + 2 * v["q"] + v["r"])


@scenario("dL/dx subtracts the path through q: u * dL/dq")
def path_subtracted(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["p"] - v["q"] + v["r"])


@scenario("lacks the path through q: u * dL/dq and subtracts the path through r: v * dL/dr")
def two_paths_wrong(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["p"] - v["r"])


@scenario("has a wrong path through q: it is dL/dq * t where dL/dq * u belongs")
def path_with_the_wrong_factor(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["p"] + v["dq"] * v["t"] + v["r"])


@scenario("dL/dx has a wrong path through q: it lacks the factor u: dL/dq where dL/dq * u belongs")
def path_without_its_factor(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["p"] + v["dq"] + v["r"])


@scenario("dL/dx has w and u exchanged between the paths through p and through q")
def paths_exchanged(maker: Maker) -> Evidence:
    return three_paths(maker, lambda v: v["dp"] * v["u"] + v["dq"] * v["w"] + v["r"])


def one_path(maker: Maker, wrong: Callable[[Tensors], Tensor]) -> Evidence:
    """dL/dz = sigma'(z) dL/dx, with the gradient of x given by the hand before."""
    v = scalars(maker)
    maker.gradients["x"] = v["dx"] = maker.normal(CASES)
    return maker.evidence("z", wrong(v), {"x": v["dx"] * v["x"] * (-v["z"]).sigmoid()})


def slope(v: Tensors) -> Tensor:
    return v["x"] * (-v["z"]).sigmoid()


@scenario("dL/dz lacks the factor sigma'(z): dL/dx where dL/dx * sigma'(z) belongs")
def derivative_missing(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"])


@scenario("dL/dz is z times too large")
def extra_factor(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * slope(v) * v["z"])


@scenario("dL/dz has the extra factor sigma'(z)")
def derivative_twice(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * slope(v) ** 2)


@scenario("dL/dz is dL/dx * (1 - x^2) where dL/dx * sigma'(z) belongs")
def derivative_of_tanh(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * (1 - v["x"]) * (1 + v["x"]))


@scenario("dL/dz is dL/dx * sigma'(x) where dL/dx * sigma'(z) belongs")
def derivative_of_the_wrong_value(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * v["x"].sigmoid() * (-v["x"]).sigmoid())


@scenario("dL/dz is dL/dp where dL/dx * sigma'(z) belongs")
def copied(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dp"])


@scenario("dL/dz is t^2 / w times the truth")
def two_factors(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * slope(v) * v["t"] ** 2 / v["w"])


@scenario("dL/dz has in every case its mean over the batch")
def batch_mean(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: (v["dx"] * slope(v)).mean().expand(CASES))


@scenario("dL/dz is dL/dx * sigma'(z) of the case before where")
def neighbour(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * slope(v).roll(1))


@scenario("dL/dz is clipped at 0.1")
def clipped(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: (v["dx"] * slope(v)).clamp(-0.1, 0.1))


@scenario("dL/dz has its factor beside dL/dx clipped at 0.2")
def factor_clipped(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * slope(v).clamp(-0.2, 0.2))


@scenario("dL/dz is 0 exactly where z < -3.1")
def zero_somewhere(maker: Maker) -> Evidence:
    evidence = one_path(maker, lambda v: v["dx"] * slope(v) * (v["z"] >= -3.1))
    return kept_away(evidence, -3.1)


@scenario(
    "dL/dz lacks the factor sigma'(z): dL/dx where dL/dx * sigma'(z) belongs, exactly where |z| > 2"
)
def copied_somewhere(maker: Maker) -> Evidence:
    wrong = one_path(maker, lambda v: v["dx"] * torch.where(v["z"].abs() > 2, 1.0, slope(v)))
    return kept_away(kept_away(wrong, 2.0), -2.0)


@scenario("dL/dz has the wrong sign exactly where t > u")
def wrong_sign_somewhere(maker: Maker) -> Evidence:
    return one_path(maker, lambda v: v["dx"] * slope(v) * (1 - 2.0 * (v["t"] > v["u"])))


@scenario("dL/dz is wrong exactly where w < -1")
def wrong_somewhere(maker: Maker) -> Evidence:
    def wrong(v: Tensors) -> Tensor:
        return v["dx"] * slope(v) * torch.where(v["w"] < -1, v["t"].exp() + 2 * v["u"].sin(), 1.0)

    return kept_away(one_path(maker, wrong), -1.0, "w")


def kept_away(evidence: Evidence, limit: float, name: str = "z") -> Evidence:
    """Cases nearer than 0.01 to a limit left out, so that the limit is printed as it is."""
    away = (evidence.values[name].value - limit).abs() > 0.01
    return replace(evidence, decided=evidence.decided & away)


# A table of rows, picked by an integer tensor.


@scenario("dL/dx lacks the factor mask: dL/dy where dL/dy * mask belongs")
def mask_forgotten(maker: Maker) -> Evidence:
    dy = maker.normal(5, 6)
    mask = maker.normal(5, 6) > 0
    maker.values = {"mask": mask}
    maker.gradients = {"y": dy}
    return maker.evidence("x", dy, {"y": torch.where(mask, dy, 0.0)})


@scenario("dL/dtable is wrong exactly where the number of times that tokens holds the index")
def rows_overwritten(maker: Maker) -> Evidence:
    tokens, dy = maker.integers(0, 9, 12), maker.normal(12, 4)
    maker.values = {"tokens": tokens}
    maker.gradients = {"y": dy}
    table = torch.zeros(9, 4, dtype=torch.float64)
    last = table.clone()
    for row, token in enumerate(tokens.tolist()):
        last[token] = dy[row]
    return maker.evidence("table", last, {"y": table.index_add(0, tokens, dy)})


@scenario("dL/dx is 0 exactly where it is the last along axis 0")
def last_row_forgotten(maker: Maker) -> Evidence:
    dy = maker.normal(maker.size(4, 7), 6)
    maker.gradients = {"y": dy}
    maker.values = {"x": maker.normal(*dy.shape)}
    wrong = dy.clone()
    wrong[-1] = 0
    return maker.evidence("x", wrong, {"y": dy})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_mistake_is_explained(name: str, seed: int) -> None:
    make, phrase = SCENARIOS[name]
    found = explain(draws(make, seed))
    assert phrase in found.sentence
    assert found.known
