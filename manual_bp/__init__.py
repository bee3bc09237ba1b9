"""The assignment network's backward pass, written by hand; see `manual_bp.network`.

Works on NumPy, torch, JAX and array-api-strict arrays alike (on CuPy's through array-api-compat,
not tested here), and never imports torch.
"""

from manual_bp.network import (
    INPUTS,
    PARAMETERS,
    VALUES,
    backward,
    forward,
    gradients,
    init_parameters,
    sgd_step,
)

__all__ = [
    "INPUTS",
    "PARAMETERS",
    "VALUES",
    "backward",
    "forward",
    "gradients",
    "init_parameters",
    "sgd_step",
]
