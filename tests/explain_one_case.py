"""Wrong gradients of one case: a linear layer's, and those of normalizations and softmax."""

import math

import torch
from explain_maker import Maker, scenario
from torch import Tensor

from torch_ref.compare.explain import Evidence

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


@scenario("dL/dx is 8 times the truth (64 is the size of axis 1 of x: its square root)")
def scale_of_one_size_forgotten(maker: Maker) -> Evidence:
    _, weight, dy = linear(maker, 3, 64, 5)
    return maker.evidence("x", dy @ weight * 8, {"y": dy @ weight})


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


@scenario("dL/dx is shifted by 1 along axis 1, whatever comes in at its start")
def shifted_by_padding(maker: Maker) -> Evidence:
    _, weight, dy = linear(maker, *sizes(maker))
    right = dy @ weight
    manual = torch.cat((maker.normal(len(right), 1), right[:, :-1]), 1)
    return maker.evidence("x", manual, {"y": right})


@scenario(
    "dL/dx is dL/dy / w where dL/dy / (1 + w^2) belongs; some of its numbers are infinite, or none "
    "at all"
)
def divided_by_what_is_0(maker: Maker) -> Evidence:
    w, dy = maker.normal(20), maker.normal(20)
    w[3], dy[7], w[7] = 0.0, 0.0, 0.0
    maker.values["w"], maker.gradients["y"] = w, dy
    return maker.evidence("x", dy / w, {"y": dy / (1 + w * w)})


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


@scenario("dL/dx has the sum over axis 0 of y * dL/dy where that over axis 1 belongs")
def softmax_over_the_batch(maker: Maker) -> Evidence:
    y, dy, truth = softmax(maker)
    return maker.evidence("x", y * (dy - (y * dy).sum(0, keepdim=True)), {"y": truth})


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
