"""Dropout whose mask was saved in the forward pass."""

import torch

from torch_ref.compare.twin import Draw, Twin, Values

KEPT = 0.8  # the probability with which an element is kept


def dropout_inputs(draw: Draw) -> Values:
    """x, mask and dL/dy (batch, features); mask is bool, True where x is kept."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    return {
        "x": draw.normal(shape=shape),
        "mask": draw.booleans(KEPT, shape),
        "upstream": draw.normal(shape=shape),
    }


def dropout(values: Values) -> Values:
    """y = x / KEPT where the mask is True, else 0: its mean is that of x."""
    y = torch.where(values["mask"], values["x"] / KEPT, 0.0)  # (batch, features)
    return {"y": y, "loss": (y * values["upstream"]).sum()}


def dropout_backward(values: Values) -> Values:
    """y = mask x / KEPT: the same mask and the same scale.

    Source: Srivastava et al., Dropout, JMLR 15 (2014), section 10, scaled in training.
    """
    dy = values["upstream"]  # (batch, features)
    dx = values["mask"] * dy / KEPT  # (batch, features)
    return {"y": dy, "x": dx}


dropout_twin = Twin("dropout", dropout_inputs, dropout, dropout_backward)
