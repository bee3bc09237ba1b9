"""Wrong gradients of a batched twin of scalars, cases in the first dimension of every tensor."""

from collections.abc import Callable
from dataclasses import replace

import torch
from explain_maker import Maker, Tensors, scenario
from torch import Tensor

from torch_ref.compare.explain import Evidence

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
