"""A linear layer: y = x W^T + b."""

from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values


def linear_inputs(draw: Draw) -> Values:
    """x (batch, inputs), weight (outputs, inputs), bias (outputs,) and dL/dy (batch, outputs)."""
    batch, inputs, outputs = draw.size(2, 7), draw.size(2, 7), draw.size(2, 7)
    return {
        "x": draw.normal(shape=(batch, inputs)),
        "weight": draw.normal(shape=(outputs, inputs)),
        "bias": draw.normal(shape=(outputs,)),
        "upstream": draw.normal(shape=(batch, outputs)),
    }


def linear(values: Values) -> Values:
    """y = x W^T + b, shape (batch, outputs)."""
    y = nn.functional.linear(values["x"], values["weight"], values["bias"])
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def linear_backward(values: Values) -> Values:
    """y_ij = sum_k x_ik W_jk + b_j: each factor's gradient is dy times the other, summed.

    Source: Goodfellow, Bengio and Courville, Deep Learning (2016), section 6.5.6.
    """
    x, weight = values["x"], values["weight"]

    dy = values["upstream"]  # (batch, outputs)
    dbias = dy.sum(0)  # (outputs,)
    dweight = dy.T @ x  # (outputs, inputs)
    dx = dy @ weight  # (batch, inputs)
    return {"y": dy, "bias": dbias, "weight": dweight, "x": dx}


linear_twin = Twin("linear", linear_inputs, linear, linear_backward)
