"""A backward pass of your own: `gradtwin verify template.py` says whether it is right.

What stands here is a small layer that works. Put yours in its place, function by function.
"""

import torch
from torch import Tensor

from torch_ref import Draw, Twin

Values = dict[str, Tensor]


def inputs(draw: Draw) -> Values:
    """One random case: every tensor that the forward pass starts from, parameters included.

    draw has normal, uniform, log_normal, integers and booleans. draw.size(1, 7) is another number
    in other cases, so that a mistake that shows only at some sizes is found.
    """
    rows = draw.size(1, 7)
    return {
        "x": draw.normal(shape=(rows, 3)),
        "w": draw.normal(shape=(3, 2)),
        "b": draw.normal(shape=(2,)),
        "target": draw.normal(shape=(rows, 2)),
    }


def reference(values: Values) -> Values:
    """The forward pass in plain torch: autograd differentiates it from "loss", one number.

    The other names are intermediates that shall be judged, too.
    """
    z = values["x"] @ values["w"] + values["b"]
    y = torch.tanh(z)
    loss = ((y - values["target"]) ** 2).sum()
    return {"z": z, "y": y, "loss": loss}


def manual(values: Values) -> Values:
    """dL/d(name) by hand, in the shape of name, in the order in which you derive them.

    That order is backward, from the loss to the inputs: the first one that is wrong is where the
    mistake is. You may leave names out.
    """
    x, w, b, target = values["x"], values["w"], values["b"], values["target"]
    y = torch.tanh(x @ w + b)  # the forward pass, as far as its values are needed

    dy = 2 * (y - target)
    dz = dy * (1 - y * y)
    dw = x.T @ dz
    db = dz.sum(0)
    dx = dz @ w.T
    return {"y": dy, "target": -dy, "z": dz, "w": dw, "b": db, "x": dx}


twin = Twin("template", inputs, reference, manual)
