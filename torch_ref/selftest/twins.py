"""The twins that mutants are judged by: between them they see all that is mutated.

The gradients are judged by the assignment's own twin. A value f that is no gradient is judged as
one: with L = weight * f, dL/d(weight) is f.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial, reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor

import manual_bp
from torch_ref.assignment import assignment_inputs, assignment_twin
from torch_ref.compare import Draw, Twin
from torch_ref.compare.graphs.recording import being_recorded

Values = dict[str, Tensor]
Namespace = Mapping[str, Any]  # the names of a mutated manual_bp
MakeTwin = Callable[[Namespace], Twin]

FORWARD = ("z3", "x3", "z4", "x4", "z5", "x5", "z6", "x6", "loss")
SCALAR = ("sigmoid", "sigmoid_derivative", "square", "square_derivative", "itakura_saito",
          "itakura_saito_derivative")  # fmt: skip


def twins_for(function: str) -> tuple[MakeTwin, ...]:
    """The twins whose answer depends on this function of `manual_bp`."""
    if function == "_mean_over_batch":
        return (mean_twin,)
    if function == "_backward":
        return (gradients_twin,)
    if function == "_forward":
        return (gradients_twin, values_twin)
    if function == "_loss":
        return (values_twin,)
    if function in ("sigmoid", "sigmoid_derivative", "square", "square_derivative",
                    "itakura_saito_derivative"):  # fmt: skip
        return (gradients_twin, functions_twin)
    return (functions_twin, values_twin)  # the loss's value, on which no gradient depends


def gradients_twin(names: Namespace) -> Twin:
    """The assignment's twin: 21 gradients."""
    return replace(_assignment(), manual=partial(_gradients, names))


def values_twin(names: Namespace) -> Twin:
    """The forward pass's values on the assignment's cases, named weight_z3 and so on."""
    reference = _assignment().reference

    def inputs(draw: Draw) -> Values:
        drawn = assignment_inputs(draw)
        return drawn | {f"weight_{name}": torch.ones_like(drawn["t"]) for name in FORWARD}

    def weighted(values: Values) -> Values:
        known = reference(values)
        return {"loss": _sum(values[f"weight_{name}"] * known[name] for name in FORWARD)}

    def manual(values: Values) -> Values:
        known = _forward(names, values)
        known["loss"] = names["_loss"](known["x6"], known["t"])
        return {f"weight_{name}": known[name] for name in FORWARD}

    return Twin("values", inputs, weighted, manual, _assignment().strata)


def functions_twin(names: Namespace) -> Twin:
    """The scalar functions on their whole domains, as NumPy runs them.

    The bound of their own arithmetic, which is recorded on torch, would leave nothing to judge
    where t/x is subnormal.
    """

    def reference(values: Values) -> Values:
        z, x, t = values["z"], values["x"], values["t"]
        known = {
            "sigmoid": torch.sigmoid(z),
            "sigmoid_derivative": torch.sigmoid(z) * torch.sigmoid(-z),
            "square": z * z,
            "square_derivative": 2 * z,
            "itakura_saito": t / x - (torch.log(t) - torch.log(x)) - 1,
            "itakura_saito_derivative": (x - t) / x / x,
        }
        return {"loss": _sum(values[f"weight_{name}"] * known[name] for name in SCALAR)}

    def manual(values: Values) -> Values:
        z, x, t = (values[name] for name in ("z", "x", "t"))
        arguments = {name: (x, t) if "saito" in name else (z,) for name in SCALAR}
        return {f"weight_{name}": names[name](*given) for name, given in arguments.items()}

    twin = Twin("functions", _function_inputs, reference, manual, FUNCTION_STRATA, stress=())
    return as_numpy_runs(twin)


def as_numpy_runs(twin: Twin) -> Twin:
    """The twin with its manual side run on NumPy arrays.

    NumPy cannot be recorded, so it is granted the rounding of the reference. A manual side that
    runs on NumPy already is left as it is.
    """

    def manual(values: Mapping[str, Any]) -> Values:
        if being_recorded():  # else it would be recorded as constants, without a bound
            raise TypeError("NumPy cannot be recorded")
        arrays: Any = {n: v.numpy() if isinstance(v, Tensor) else v for n, v in values.items()}
        with np.errstate(all="ignore"):  # a mutant may divide by 0; that is judged, not said
            answer = twin.manual(arrays)
        return {n: v if isinstance(v, Tensor) else torch.as_tensor(v) for n, v in answer.items()}

    return replace(twin, manual=manual)


FUNCTION_STRATA = ("ordinary", "exact", "whole range", "huge", "tiny ratio")


def _function_inputs(draw: Draw) -> Values:
    """z of either sign, x > 0 and t > 0, each of shape (cases,).

    ordinary: |z| to 40 and t/x from 1/16 to 16;  exact: small multiples of 1/4, so that t/x is
    often exactly 1/2, 1, 2 or 4;  whole range: |z|, x and t anywhere in the dtype's range;
    huge: x, t and x + t next to the largest number;  tiny ratio: t/x down to subnormal numbers.
    """
    random, largest = draw.generator, math.log(torch.finfo(draw.dtype).max)
    z = random.uniform(-40, 40, draw.cases)
    x = random.lognormal(0, 1, draw.cases)
    t = x * np.exp(random.uniform(math.log(1 / 16), math.log(16), draw.cases))
    if draw.stratum == "exact":
        z = random.integers(-16, 17, draw.cases) / 4
        x, t = (random.integers(1, 33, draw.cases) / 4 for _ in range(2))
    elif draw.stratum == "whole range":
        z, x, t = (np.exp(random.uniform(-largest, largest, draw.cases)) for _ in range(3))
        z = z * random.choice([-1, 1], draw.cases)
    elif draw.stratum == "huge":
        x = torch.finfo(draw.dtype).max * random.uniform(0.25, 0.9, draw.cases)
        t = x * np.exp(random.uniform(math.log(1 / 16), math.log(1.1), draw.cases))
    elif draw.stratum == "tiny ratio":
        t = x * np.exp(random.uniform(-1.05, -0.9, draw.cases) * largest)
    arrays = {"z": z, "x": x, "t": t, **{f"weight_{n}": np.ones(draw.cases) for n in SCALAR}}
    return {name: draw.cast(array) for name, array in arrays.items()}


def mean_twin(names: Namespace) -> Twin:
    """`gradients` of one batch of shape (m, n): parameters shared by all, by some, or by none."""
    reference = _assignment().reference

    def inputs(draw: Draw) -> Values:
        rows, columns = draw.size(1, 4), draw.size(257, 300)
        batch = (rows, columns)
        shapes = {"w13": (columns,), "b4": (rows, 1), "w56": batch, "w23": (1, columns)}
        values = {n: draw.normal(shape=shapes.get(n, ())) for n in manual_bp.PARAMETERS}
        values |= {n: draw.uniform(0.1, 1.0, shapes.get(n, ())) for n in ("w36", "w46", "w56")}
        values["b6"] = draw.uniform(0.5, 1.0, ())
        values |= {name: draw.normal(shape=batch) for name in ("x1", "x2")}
        return values | {"t": draw.log_normal(shape=batch)}

    def mean_loss(values: Values) -> Values:
        return {"loss": reference(values)["loss"].mean()}

    def manual(values: Values) -> Values:
        given = ({n: values[n] for n in kind} for kind in (manual_bp.PARAMETERS, manual_bp.INPUTS))
        gradients: Values = names["gradients"](*given, check_values=False)[1]
        return gradients

    return Twin("mean over a batch", inputs, mean_loss, manual, stress=())


@cache
def _assignment() -> Twin:
    return assignment_twin()


def _forward(names: Namespace, values: Values) -> Values:
    given = (*manual_bp.PARAMETERS, *manual_bp.INPUTS)
    known: Values = names["_forward"](**{name: values[name] for name in given})
    return known


def _gradients(names: Namespace, values: Values) -> Values:
    parameters = {name: values[name] for name in manual_bp.PARAMETERS}
    gradients: Values = names["_backward"](**parameters, **_forward(names, values))
    return gradients


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(add, terms)
