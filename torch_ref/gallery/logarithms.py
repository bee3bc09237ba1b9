"""Logarithms of sums of exponentials: logsumexp, log-softmax, softplus, logaddexp.

exp overflows soon (at 89 in float32), its ratios never do: the backward pass, like the forward
pass, only uses ratios, either after a shift by the largest number or as sigmoid of a difference.
"""

import torch
from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values

THRESHOLD = 20.0  # torch's softplus is x itself above
STRATA = ("ordinary", "large")


def _std(draw: Draw) -> float:
    """The size of the inputs: exp overflows in every dtype where they are large."""
    return 3000.0 if draw.stratum == "large" else 1.0


def logsumexp_inputs(draw: Draw) -> Values:
    """x (batch, terms) and dL/dy (batch,)."""
    batch, terms = draw.size(2, 7), draw.size(2, 7)
    return {
        "x": draw.normal(std=_std(draw), shape=(batch, terms)),
        "upstream": draw.normal(shape=(batch,)),
    }


def logsumexp(values: Values) -> Values:
    """y_i = ln sum_j exp(x_ij), shape (batch,)."""
    y = values["x"].logsumexp(1)
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def logsumexp_backward(values: Values) -> Values:
    """d ln sum_j exp(x_j) / dx_j = exp(x_j) / sum_k exp(x_k): the softmax of x.

    Source: Boyd and Vandenberghe, Convex Optimization (2004), section 3.1.5.
    """
    x = values["x"]
    e = (x - x.amax(1, keepdim=True)).exp()  # (batch, terms)

    dy = values["upstream"]  # (batch,)
    dx = dy[:, None] * e / e.sum(1, keepdim=True)  # (batch, terms)
    return {"y": dy, "x": dx}


logsumexp_twin = Twin("logsumexp", logsumexp_inputs, logsumexp, logsumexp_backward, STRATA)


def log_softmax_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, classes)."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    return {"x": draw.normal(std=_std(draw), shape=shape), "upstream": draw.normal(shape=shape)}


def log_softmax(values: Values) -> Values:
    """y_ij = x_ij - ln sum_k exp(x_ik), shape (batch, classes)."""
    y = nn.functional.log_softmax(values["x"], dim=1)
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def log_softmax_backward(values: Values) -> Values:
    """dy_j / dx_k = [j = k] - p_k, with p the softmax of x: dx = dy - p sum_j dy_j.

    Source: the derivative of logsumexp, above.
    """
    x = values["x"]
    e = (x - x.amax(1, keepdim=True)).exp()  # (batch, classes)
    p = e / e.sum(1, keepdim=True)  # (batch, classes)

    dy = values["upstream"]  # (batch, classes)
    dx = dy - p * dy.sum(1, keepdim=True)  # (batch, classes)
    return {"y": dy, "x": dx}


log_softmax_twin = Twin(
    "log-softmax", log_softmax_inputs, log_softmax, log_softmax_backward, STRATA
)


def softplus_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, features)."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    return {"x": draw.normal(std=_std(draw), shape=shape), "upstream": draw.normal(shape=shape)}


def softplus(values: Values) -> Values:
    """y = ln(1 + exp(x)), shape (batch, features)."""
    y = nn.functional.softplus(values["x"], threshold=THRESHOLD)
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def softplus_backward(values: Values) -> Values:
    """d ln(1 + exp(x)) / dx = sigmoid(x); above the threshold y is x, with derivative 1.

    Source: Dugas et al., Incorporating Second-Order Functional Knowledge (2000).
    """
    x = values["x"]

    dy = values["upstream"]  # (batch, features)
    dx = dy * torch.where(x > THRESHOLD, 1.0, x.sigmoid())  # (batch, features)
    return {"y": dy, "x": dx}


softplus_twin = Twin("softplus", softplus_inputs, softplus, softplus_backward, STRATA)


def logaddexp_inputs(draw: Draw) -> Values:
    """a and dL/dy (batch, features), b (features,)."""
    batch, features = draw.size(2, 7), draw.size(2, 7)
    return {
        "a": draw.normal(std=_std(draw), shape=(batch, features)),
        "b": draw.normal(std=_std(draw), shape=(features,)),
        "upstream": draw.normal(shape=(batch, features)),
    }


def logaddexp(values: Values) -> Values:
    """y = ln(exp(a) + exp(b)), shape (batch, features)."""
    y = torch.logaddexp(values["a"], values["b"])
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def logaddexp_backward(values: Values) -> Values:
    """dy/da = exp(a) / (exp(a) + exp(b)) = sigmoid(a - b); b serves every row: its gradient sums.

    Source: the derivative of logsumexp, above, of two terms.
    """
    a, b = values["a"], values["b"]

    dy = values["upstream"]  # (batch, features)
    da = dy * (a - b).sigmoid()  # (batch, features)
    db = (dy * (b - a).sigmoid()).sum(0)  # (features,)
    return {"y": dy, "a": da, "b": db}


logaddexp_twin = Twin("logaddexp", logaddexp_inputs, logaddexp, logaddexp_backward, STRATA)
