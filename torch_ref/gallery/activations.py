"""Activations of today's transformers: the gated SwiGLU layer and GELU by tanh."""

import math

import torch
from torch import nn

from torch_ref.compare.twin import Draw, Twin, Values


def swiglu_inputs(draw: Draw) -> Values:
    """x and dL/dy (tokens, width), w_gate and w_up (width, hidden), w_down (hidden, width)."""
    tokens, width, hidden = draw.size(2, 7), draw.size(2, 5), draw.size(2, 7)
    return {
        "x": draw.normal(shape=(tokens, width)),
        "w_gate": draw.normal(shape=(width, hidden)),
        "w_up": draw.normal(shape=(width, hidden)),
        "w_down": draw.normal(shape=(hidden, width)),
        "upstream": draw.normal(shape=(tokens, width)),
    }


def swiglu(values: Values) -> Values:
    """y = (silu(x w_gate) * (x w_up)) w_down, with silu(z) = z sigma(z)."""
    x = values["x"]
    gate = x @ values["w_gate"]  # (tokens, hidden)
    up = x @ values["w_up"]  # (tokens, hidden)
    silu = nn.functional.silu(gate)  # (tokens, hidden)
    hidden = silu * up  # (tokens, hidden)
    y = hidden @ values["w_down"]  # (tokens, width)
    named = {"gate": gate, "up": up, "silu": silu, "hidden": hidden, "y": y}
    return {**named, "loss": (y * values["upstream"]).sum()}


def swiglu_backward(values: Values) -> Values:
    """Product rule at hidden = silu(gate) up; silu'(z) = sigma(z) (1 + z sigma(-z)).

    Source: Shazeer, GLU Variants Improve Transformer (2020), arXiv:2002.05202, equation 6.
    """
    x, w_gate, w_up, w_down = (values[name] for name in ("x", "w_gate", "w_up", "w_down"))
    gate, up = x @ w_gate, x @ w_up  # (tokens, hidden)
    sigma = torch.sigmoid(gate)  # (tokens, hidden)
    silu = gate * sigma  # (tokens, hidden)

    dy = values["upstream"]  # (tokens, width)
    dw_down = (silu * up).mT @ dy  # (hidden, width)
    dhidden = dy @ w_down.mT  # (tokens, hidden)
    dup = dhidden * silu  # (tokens, hidden)
    dsilu = dhidden * up  # (tokens, hidden)
    dgate = dsilu * sigma * (1 + gate * torch.sigmoid(-gate))  # (tokens, hidden)
    dw_up = x.mT @ dup  # (width, hidden)
    dw_gate = x.mT @ dgate  # (width, hidden)
    dx = dup @ w_up.mT + dgate @ w_gate.mT  # (tokens, width)
    return {
        "y": dy, "w_down": dw_down, "hidden": dhidden, "up": dup, "silu": dsilu, "gate": dgate,
        "w_up": dw_up, "w_gate": dw_gate, "x": dx,
    }  # fmt: skip


swiglu_twin = Twin("SwiGLU", swiglu_inputs, swiglu, swiglu_backward)


def gelu_inputs(draw: Draw) -> Values:
    """x and dL/dy (batch, features)."""
    shape = (draw.size(2, 7), draw.size(2, 7))
    return {"x": draw.normal(std=2.0, shape=shape), "upstream": draw.normal(shape=shape)}


def gelu(values: Values) -> Values:
    """y = x (1 + tanh(inner)) / 2, inner = sqrt(2/pi) (x + 0.044715 x^3)."""
    x = values["x"]
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)  # (batch, features)
    tanh = torch.tanh(inner)  # (batch, features)
    y = 0.5 * x * (1 + tanh)  # (batch, features)
    return {"inner": inner, "tanh": tanh, "y": y, "loss": (y * values["upstream"]).sum()}


def gelu_backward(values: Values) -> Values:
    """y = x (1 + tanh(inner)) / 2: x is a factor, and inside tanh.

    (1 + tanh(u)) / 2 = sigma(2 u) and 1 - tanh(u)^2 = 4 sigma(2 u) sigma(-2 u), without the
    cancellation of the left sides.
    Source: Hendrycks and Gimpel, GELUs (2016), arXiv:1606.08415, section 2.
    """
    x = values["x"]
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)  # (batch, features)
    right, left = torch.sigmoid(2 * inner), torch.sigmoid(-2 * inner)  # (batch, features)

    dy = values["upstream"]  # (batch, features)
    dtanh = dy * 0.5 * x  # (batch, features)
    dinner = dtanh * (4 * right * left)  # (batch, features)
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)  # (batch, features)
    dx = dy * right + dinner * slope  # (batch, features)
    return {"y": dy, "tanh": dtanh, "inner": dinner, "x": dx}


gelu_twin = Twin("GELU by tanh", gelu_inputs, gelu, gelu_backward)
