"""The assignment's gradients as fast as the machine goes, from the formulas of `manual_bp`.

`manual_bp` is run once on symbols, and what it does is written out as C, or as Python for a sample
of floats: there is no second copy of the derivation. What is not plain memory on the CPU, and
whatever is wrong with the arguments, goes to `manual_bp` itself; CUDA tensors go to torch.compile.
"""

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np
from array_api_compat import array_namespace

import manual_bp
from manual_bp.network import INPUTS, PARAMETERS, _mean_over_batch
from torch_ref.fused.arrays import Array, Samples, on_cuda, samples, traced
from torch_ref.fused.programs import BACKWARD, GRADIENTS, MEANS, SAMPLES, kernel, sample

Arrays = Mapping[str, Array]
Means = tuple[Array, dict[str, Array]]


def fused_gradients(
    parameters: Arrays, inputs: Arrays, *, check_values: bool = True, loss: bool = True
) -> Means:
    """The batch's mean loss, shape (), and its gradient for PARAMETERS, each in that one's shape.

    As `manual_bp.gradients`, with the same arguments, results and errors, but faster; and where all
    are Python floats, so are the results. NumPy arrays and torch tensors, on the CPU or CUDA, in
    float32 or float64, are fast; all else is left to `manual_bp`. Sums over the batch are kept in
    float64, the same bits for any number of threads. No autograd history is kept. With
    loss=False None comes in the loss's place, and parameters of one number each, the usual ones,
    take up to a third less time on the CPU.

    The first call compiles, which takes a second; the result is kept in a cache for later runs
    (`torch_ref.native.compiler.library` says where). Without a C compiler `manual_bp.gradients`
    answers, and a RuntimeWarning says so.
    """
    values = _in_order(parameters, inputs)
    found: Means | None = None
    if values is None:
        pass
    elif _FLOATS.issuperset(map(type, values)):
        return _of_floats(values, check_values, loss)
    elif traced():
        pass
    elif on_cuda(values):
        from torch_ref.fused import cuda

        found = cuda.gradients(parameters, inputs, check_values)
    else:
        found = _of_arrays(parameters, values, check_values, loss)
    if found is None:
        return manual_bp.gradients(parameters, inputs, check_values=check_values, loss=loss)
    return found if loss else (None, found[1])


def fused_backward(
    parameters: Arrays, inputs: Arrays, *, check_values: bool = True
) -> dict[str, Array]:
    """dL/d(name) of each sample, in backward order: `manual_bp.backward` of `manual_bp.forward`.

    Arguments, errors and speed are as for `fused_gradients`. Every gradient has the broadcast shape
    of the batch; those that are equal, as b6's and z6's, are one array.
    """
    values = _in_order(parameters, inputs)
    found: dict[str, Array] | None = None
    if values is None:
        pass
    elif _FLOATS.issuperset(map(type, values)):
        return _backward_of_floats(values, check_values)
    elif traced():
        pass
    elif on_cuda(values):
        from torch_ref.fused import cuda

        found = cuda.backward(parameters, inputs, check_values)
    elif (given := samples(values)) is not None:
        found = _stored(BACKWARD, given, check_values)
    return _by_hand(parameters, inputs, check_values) if found is None else found


_FLOATS = frozenset({float})
_parameters_of, _inputs_of = itemgetter(*PARAMETERS), itemgetter(*INPUTS)


def _in_order(parameters: Arrays, inputs: Arrays) -> list[Any] | None:
    """All arguments in the order of ARGUMENTS; None where names are wrong."""
    try:
        if len(parameters) != len(PARAMETERS) or len(inputs) != len(INPUTS):
            return None
        return [*_parameters_of(parameters), *_inputs_of(inputs)]
    except (TypeError, LookupError):  # no dict, or a name is missing: `manual_bp` says which
        return None


def _of_arrays(
    parameters: Arrays, values: list[Any], check_values: bool, with_loss: bool
) -> Means | None:
    """None for what is not plain memory or where there is no compiler; and if values are checked,
    where one is not finite.
    """
    given = samples(values)
    if given is None:
        return None
    if any(getattr(value, "ndim", 0) for value in values[: len(PARAMETERS)]):
        stored = _stored(SAMPLES, given, check_values)
        return None if stored is None else _means_of_samples(stored, parameters)
    run = kernel(MEANS if with_loss else GRADIENTS, given.dtype)
    if run is None:
        return None
    means = given.new((len(run.places),))
    if not run(given, [given.address(means)]) and check_values:
        return None
    numbers = iter(given.apart(means))
    loss = next(numbers) if with_loss else None
    return loss, dict(zip(PARAMETERS, numbers))


def _means_of_samples(stored: dict[str, Array], parameters: Arrays) -> Means:
    xp = array_namespace(stored["loss"])
    shapes = {name: tuple(getattr(parameters[name], "shape", ())) for name in PARAMETERS}
    gradients = {name: _mean_over_batch(stored[name], shape) for name, shape in shapes.items()}
    return xp.mean(stored["loss"]), gradients


def _stored(kind: str, given: Samples, check_values: bool) -> dict[str, Array] | None:
    """Quantities sample by sample; None as for `_of_arrays`."""
    run = kernel(kind, given.dtype)
    if run is None:
        return None
    arrays = [given.new(given.shape) for _ in set(run.places.values())]
    if not run(given, list(map(given.address, arrays))) and check_values:
        return None
    return {name: arrays[place] for name, place in run.places.items()}


def _of_floats(values: list[float], check_values: bool, with_loss: bool) -> Means:
    found = _sample(MEANS if with_loss else GRADIENTS, values, check_values)
    if found is not None:
        return found.pop("loss", None), found
    loss, gradients = manual_bp.gradients(
        *_as_numpy(values), check_values=check_values, loss=with_loss
    )
    numbers = {name: float(value) for name, value in gradients.items()}
    return float(loss) if with_loss else None, numbers


def _backward_of_floats(values: list[float], check_values: bool) -> dict[str, float]:
    found = _sample(BACKWARD, values, check_values)
    if found is not None:
        return found
    by_hand = _by_hand(*_as_numpy(values), check_values)
    return {name: float(value) for name, value in by_hand.items()}


def _sample(kind: str, values: list[float], check_values: bool) -> dict[str, float] | None:
    """The quantities of one sample; None where a function is left or a number is not finite."""
    try:
        found, sound = sample(kind)(*values)
    except (ArithmeticError, ValueError):
        return None
    return found if sound == 0 or not check_values else None


def _as_numpy(values: list[float]) -> tuple[Arrays, Arrays]:
    arrays = [np.float64(value) for value in values]
    count = len(PARAMETERS)
    return dict(zip(PARAMETERS, arrays[:count])), dict(zip(INPUTS, arrays[count:]))


def _by_hand(parameters: Arrays, inputs: Arrays, check_values: bool) -> dict[str, Array]:
    values = manual_bp.forward(parameters, inputs, check_values=check_values, loss=check_values)
    return manual_bp.backward(parameters, values, check_values=check_values)
