"""The assignment's network and its backward pass, written by hand. No autograd anywhere.

    z3 = w13 x1 + w23 x2 + b3            x3 = sigma(z3)
    z4 = w34 x3 + b4                     x4 = sigma(z4)
    z5 = w35 x3 + b5                     x5 = sigma(z5)
    z6 = w36 x3 + w46 x4 + w56 x5 + b6   x6 = rho(z6) = z6^2
    L  = t/x6 - ln(t/x6) - 1,  t > 0

Inputs and parameters are real floating arrays of one library (NumPy, torch, JAX,
array-api-strict; CuPy through array-api-compat, not tested here), dtype and device; each is a
scalar, shared by the batch, or holds one value a sample, and all broadcast together. Python floats
are taken along; NumPy's scalars, numpy.float64 too, are arrays with a dtype. Results stay in that
library, dtype and device.

Every function checks names, dtypes, devices and shapes. With `check_values=True` it also looks
at the numbers, which a tracer (torch.compile, vmap, jax.jit) cannot: pass False there.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from manual_bp.checks import (
    check_backward_values,
    check_forward_values,
    check_gradient,
    check_names,
    common_arrays,
    numpy_warnings_off,
)
from manual_bp.functions import (
    itakura_saito,
    itakura_saito_derivative,
    sigmoid,
    sigmoid_derivative,
    square,
    square_derivative,
)

Array = Any

INPUTS = ("x1", "x2", "t")
PARAMETERS = ("w13", "w23", "b3", "w34", "b4", "w35", "b5", "w36", "w46", "w56", "b6")
VALUES = (*INPUTS, "z3", "x3", "z4", "x4", "z5", "x5", "z6", "x6", "loss")


def init_parameters(seed: int = 0, dtype: Any = np.float64) -> dict[str, np.ndarray[Any, Any]]:
    """Random parameters: NumPy arrays of shape () by the names in PARAMETERS.

    The weights into node 6 and b6 are positive, so z6 starts positive and away from 0, where the
    loss is infinite: z6 > b6 >= 1/2. The others are standard normal.
    Raises TypeError for a dtype that is not real floating.
    """
    try:
        floating = np.issubdtype(np.dtype(dtype), np.floating)
    except TypeError:  # NumPy knows no such dtype
        floating = False
    if not floating:
        raise TypeError(
            f"dtype must be a NumPy floating dtype, such as numpy.float64; got {dtype!r}."
        )
    generator = np.random.default_rng(seed)
    parameters = {name: generator.standard_normal() for name in PARAMETERS}
    parameters |= {name: generator.uniform(0.1, 1.0) for name in ("w36", "w46", "w56")}
    parameters["b6"] = generator.uniform(0.5, 1.0)
    return {name: np.asarray(value, dtype=dtype) for name, value in parameters.items()}


def forward(
    parameters: Mapping[str, Array], inputs: Mapping[str, Array], *, check_values: bool = True,
    loss: bool = True,
) -> dict[str, Array]:  # fmt: skip
    """Every value of the network, by the names in VALUES; `loss` has one number a sample.

    parameters: the names in PARAMETERS; inputs: x1, x2 and t. All broadcast. loss: whether to
    compute it, too, which takes longer than all the rest; `backward` needs only what leads to it.
    Raises ValueError for wrong names, shapes, devices or values (t <= 0, not finite, a loss that
    overflows), TypeError for wrong dtypes or mixed libraries.
    """
    check_names("parameters", parameters, PARAMETERS)
    check_names("inputs", inputs, INPUTS)
    given = common_arrays({**parameters, **inputs})
    with numpy_warnings_off(check_values):
        values = _forward(**given)
        if loss:
            values["loss"] = _loss(values["x6"], values["t"])
    if check_values:
        check_forward_values(given, values)
    return values


def _forward(
    w13: Array, w23: Array, b3: Array, w34: Array, b4: Array, w35: Array, b5: Array,
    w36: Array, w46: Array, w56: Array, b6: Array, x1: Array, x2: Array, t: Array,
) -> dict[str, Array]:  # fmt: skip
    z3 = w13 * x1 + w23 * x2 + b3
    x3 = sigmoid(z3)
    z4 = w34 * x3 + b4
    x4 = sigmoid(z4)
    z5 = w35 * x3 + b5
    x5 = sigmoid(z5)
    z6 = w36 * x3 + w46 * x4 + w56 * x5 + b6
    x6 = square(z6)
    return {
        "x1": x1, "x2": x2, "t": t, "z3": z3, "x3": x3, "z4": z4, "x4": x4, "z5": z5, "x5": x5,
        "z6": z6, "x6": x6,
    }  # fmt: skip


def _loss(x6: Array, t: Array) -> Array:
    return itakura_saito(x6, t)  # (1)


def backward(
    parameters: Mapping[str, Array], values: Mapping[str, Array], *, check_values: bool = True
) -> dict[str, Array]:
    """dL/d(name) of each sample, in the order in which they are derived, from x6 down to x1, x2.

    By the chain rule from the module's formulas; (3) and (5) are equations of the assignment.
    parameters: as for `forward`; values: what `forward` returned, with the loss or without. Every
    gradient has the broadcast shape of the batch. Raises as `forward` does, and ValueError for a
    gradient that overflows.
    """
    check_names("parameters", parameters, PARAMETERS)
    check_names("values", values, VALUES, optional=("loss",))
    given = common_arrays({**parameters, **values})
    given.pop("loss", None)  # the derivatives need no loss, only what leads to it
    with numpy_warnings_off(check_values):
        gradients = _backward(**given)
    if check_values:
        check_backward_values(gradients)
    return gradients


def _backward(
    w13: Array, w23: Array, b3: Array, w34: Array, b4: Array, w35: Array, b5: Array,
    w36: Array, w46: Array, w56: Array, b6: Array, x1: Array, x2: Array, t: Array,
    z3: Array, x3: Array, z4: Array, x4: Array, z5: Array, x5: Array, z6: Array, x6: Array,
) -> dict[str, Array]:  # fmt: skip
    # node 6: x6 = z6^2, z6 = w36 x3 + w46 x4 + w56 x5 + b6
    dx6 = itakura_saito_derivative(x6, t)  # (3)
    dz6 = dx6 * square_derivative(z6)  # (5)
    dw36 = dz6 * x3
    dw46 = dz6 * x4  # b)
    dw56 = dz6 * x5
    db6 = dz6  # c)
    # node 5: x5 = sigma(z5), z5 = w35 x3 + b5
    dx5 = dz6 * w56
    dz5 = dx5 * sigmoid_derivative(z5)
    dw35 = dz5 * x3
    db5 = dz5
    # node 4: x4 = sigma(z4), z4 = w34 x3 + b4
    dx4 = dz6 * w46
    dz4 = dx4 * sigmoid_derivative(z4)
    dw34 = dz4 * x3
    db4 = dz4
    # node 3: x3 = sigma(z3) feeds nodes 6, 5 and 4; z3 = w13 x1 + w23 x2 + b3
    dx3 = dz6 * w36 + dz5 * w35 + dz4 * w34
    dz3 = dx3 * sigmoid_derivative(z3)  # d)
    dw13 = dz3 * x1
    dw23 = dz3 * x2
    db3 = dz3
    # the inputs
    dx1 = dz3 * w13
    dx2 = dz3 * w23
    return {
        "x6": dx6, "z6": dz6, "w36": dw36, "w46": dw46, "w56": dw56, "b6": db6,
        "x5": dx5, "z5": dz5, "w35": dw35, "b5": db5,
        "x4": dx4, "z4": dz4, "w34": dw34, "b4": db4,
        "x3": dx3, "z3": dz3, "w13": dw13, "w23": dw23, "b3": db3, "x1": dx1, "x2": dx2,
    }  # fmt: skip


def gradients(
    parameters: Mapping[str, Array], inputs: Mapping[str, Array], *, check_values: bool = True,
    loss: bool = True,
) -> tuple[Array, dict[str, Array]]:  # fmt: skip
    """The batch's mean loss, shape (), and its gradient for PARAMETERS, each in that one's shape.

    loss: whether to compute it, too; where not, None comes in its place.
    Raises as `forward` and `backward` do, and ValueError for an empty batch.
    """
    values = forward(parameters, inputs, check_values=check_values, loss=loss)
    per_sample = backward(parameters, values, check_values=check_values)
    batch = per_sample["x6"].shape
    if 0 in batch:
        raise ValueError(
            f"The batch is empty (shape {tuple(batch)}): a mean needs at least one sample. "
            "Check how the batch was cut or filtered."
        )
    means = {
        name: _mean_over_batch(per_sample[name], getattr(parameters[name], "shape", ()))
        for name in PARAMETERS
    }
    mean_loss = array_namespace(values["x6"]).mean(values["loss"]) if loss else None
    return mean_loss, means


def _mean_over_batch(gradient: Array, shape: tuple[int, ...]) -> Array:
    """d(mean loss)/d(parameter) for a parameter of `shape`, broadcast over the batch.

    The sum over the samples that share the parameter, divided by the number of all samples.
    """
    xp = array_namespace(gradient)
    padded = (1,) * (gradient.ndim - len(shape)) + tuple(shape)
    shared = tuple(axis for axis, size in enumerate(padded) if size != gradient.shape[axis])
    if shared:
        gradient = xp.mean(gradient, axis=shared, keepdims=True)
    return _divided(xp.reshape(gradient, tuple(shape)), math.prod(gradient.shape))


def _divided(gradient: Array, count: int) -> Array:
    """gradient / count, rounded once more at most.

    Divided in float32 at least: a count is infinite in float16 from 65,520 on, and has 8 bits only
    in bfloat16.
    """
    xp = array_namespace(gradient)
    if xp.finfo(gradient.dtype).bits >= 32:
        return gradient / count
    return xp.astype(xp.astype(gradient, xp.float32) / count, gradient.dtype)


def sgd_step(
    parameters: Mapping[str, Array], gradients: Mapping[str, Array], learning_rate: float
) -> dict[str, Array]:
    """The assignment's update w <- w - k dL/dw for every parameter, k = learning_rate > 0.

    Returns a new dict; the arguments are left as they were. Each parameter stays an array of its
    shape and dtype; a Python float becomes one of its gradient's.
    Raises ValueError for wrong names or shapes, or a learning rate that is not positive and finite,
    TypeError for a gradient of another dtype than its parameter.
    """
    check_names("parameters", parameters, PARAMETERS)
    check_names("gradients", gradients, PARAMETERS)
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be positive and finite; got {learning_rate}.")
    k = float(learning_rate)  # a numpy.float64 would turn float32 parameters into float64
    for name in PARAMETERS:
        check_gradient(name, gradients[name], parameters[name])
    return {name: _as_array(parameters[name] - k * gradients[name]) for name in PARAMETERS}


def _as_array(value: Array) -> Array:
    """NumPy's arithmetic turns arrays of shape () into its scalars; those are made arrays again."""
    return np.asarray(value) if isinstance(value, np.generic) else value
