"""The same on CUDA: torch.compile of `manual_bp`, with the look at the values inside."""

from collections.abc import Mapping
from functools import cache, reduce
from operator import and_
from typing import Any

import numpy as np
import torch
from torch import Tensor

import manual_bp
from manual_bp.checks import check_names, common_arrays
from manual_bp.network import INPUTS, PARAMETERS, _mean_over_batch
from torch_ref.fused.recording import WATCHED

Tensors = Mapping[str, Tensor]
Gradients = dict[str, Tensor]


def gradients(
    parameters: Tensors, inputs: Tensors, check_values: bool
) -> tuple[Tensor, Gradients] | None:
    """As `fused_gradients`; None where values are checked and one is not finite."""
    given = _checked(parameters, inputs)
    if 0 in np.broadcast_shapes(*(tuple(value.shape) for value in given.values())):
        return None  # `manual_bp` says what is wrong with an empty batch
    with torch.no_grad():
        loss, found, sound = _compiled(_means)(given)
    return (loss, found) if not check_values or bool(sound) else None


def backward(parameters: Tensors, inputs: Tensors, check_values: bool) -> Gradients | None:
    """As `fused_backward`; None as above."""
    given = _checked(parameters, inputs)
    with torch.no_grad():
        found, sound = _compiled(_samples)(given)
    return found if not check_values or bool(sound) else None


def _checked(parameters: Tensors, inputs: Tensors) -> Gradients:
    """The arguments as tensors; raises as `manual_bp` does, here and not while torch compiles."""
    check_names("parameters", parameters, PARAMETERS)
    check_names("inputs", inputs, INPUTS)
    return common_arrays({**parameters, **inputs})


@cache
def _compiled(function: Any) -> Any:
    # Everything is one pass over the inputs: a value is sooner computed again than stored.
    options: dict[str, Any] = {
        "realize_opcount_threshold": 10_000,
        "realize_reads_threshold": 10_000,
    }
    return torch.compile(function, options=options)


def _samples(given: Tensors) -> tuple[Gradients, Tensor]:
    """The gradients of each sample, and whether all is finite."""
    values, found = _values_and_gradients(given)
    return found, _sound(values, found)


def _means(given: Tensors) -> tuple[Tensor, Gradients, Tensor]:
    """The means over the batch, and whether all is finite."""
    values, found = _values_and_gradients(given)
    means = {name: _mean_over_batch(found[name], given[name].shape) for name in PARAMETERS}
    return values["loss"].mean(), means, _sound(values, found)


def _values_and_gradients(given: Tensors) -> tuple[Gradients, Gradients]:
    parameters = {name: given[name] for name in PARAMETERS}
    inputs = {name: given[name] for name in INPUTS}
    values = manual_bp.forward(parameters, inputs, check_values=False)
    return values, manual_bp.backward(parameters, values, check_values=False)


def _sound(values: Tensors, found: Tensors) -> Tensor:
    """Whether all is finite. Not by 0 * value, which Inductor takes for 0."""
    watched = [*(values[name] for name in WATCHED), *found.values()]
    return reduce(and_, (value.isfinite() for value in watched)).all()
