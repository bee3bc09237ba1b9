"""The hand run: its answer as tensors, and what is wrong with how it came about."""

import math
import sys
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.identical import changed, near, same_answers
from torch_ref.compare.layout import copies_of
from torch_ref.compare.strangers import Saying, call
from torch_ref.compare.twin import Twin, Values

RANDOM = "manual gave another answer on a second run with the same inputs."
RANDOM_DIGITS = (
    "manual gave other last digits on a second run with the same inputs, as sums in another order "
    "do."
)


def run_manual(
    twin: Twin, inputs: Values, *, thoroughly: bool = True
) -> tuple[Values, list[str], list[str]]:
    """The manual side's answer on a copy of the inputs, what is wrong with how it came about, and
    what is worth saying.

    thoroughly: run it twice, the second time where autograd can record nothing, and look for
        changed inputs.
    """
    given = copies_of(inputs)
    answer = call(twin, "manual", given)
    if not isinstance(answer, dict):
        wrong = f"manual must return a dict of gradients by name; got {type(answer).__name__}."
        return {}, [wrong], []
    answer = {name: value for name, value in answer.items() if value is not None}
    if not answer:
        wrong = "manual gave no gradient: it must return dL/d(name) of at least one quantity."
        return {}, [wrong], []
    breaches = _breaches(answer, given, inputs if thoroughly else {})
    notes = [
        f"manual gave dL/d{name} as a {type(value).__module__}.{type(value).__name__}: it was "
        "converted to a torch.Tensor.".replace("builtins.", "")
        for name, value in answer.items()
        if _convertible(value)
    ]
    if not thoroughly:
        return as_tensors(answer, inputs), breaches, notes
    again, reason = _without_autograd(twin, inputs)
    once, twice = as_tensors(answer, inputs), as_tensors(again, inputs)
    if reason:
        breaches.append(reason)
    elif not breaches and not same_answers(once, twice):
        if _alike(once, twice):
            notes.append(RANDOM_DIGITS)
        else:
            breaches.append(RANDOM)
    return once, breaches, notes


def gradients_by_hand(twin: Twin, values: Values, names: tuple[str, ...]) -> Values:
    """dL/d(name) by the hand for these quantities; it may spoil the values."""
    answer = as_tensors(twin.manual(values), values)
    return {name: answer[name] for name in names}


def _alike(once: Values, twice: Values) -> bool:
    """Whether two answers are equal but for the last digits."""
    return once.keys() == twice.keys() and all(
        value.shape == twice[name].shape
        and value.is_floating_point()
        and value.dtype == twice[name].dtype
        and near(twice[name], value)
        for name, value in once.items()
    )


def as_tensors(answer: Any, inputs: Values) -> Values:
    """An answer's tensors; Python floats and NumPy arrays converted to the inputs' dtype."""
    like = next(value for value in inputs.values() if value.is_floating_point())
    return {
        name: torch.as_tensor(_in_float64(value), dtype=like.dtype, device=like.device)
        if _convertible(value)
        else value.detach()
        for name, value in (answer.items() if isinstance(answer, dict) else ())
        if _convertible(value) or isinstance(value, Tensor)
    }


def _in_float64(value: Any) -> Any:
    """NumPy's numbers as torch takes them: in its byte order, without negative strides; a whole
    number too large for any dtype is infinite."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return np.array(value, np.float64)


def _convertible(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiu"
    return isinstance(value, (float, int, np.floating, np.integer)) and not isinstance(value, bool)


def _breaches(answer: dict[str, Any], given: Values, inputs: Values) -> list[str]:
    strays = [
        f"dL/d{name} is of type {type(value).__name__}; a torch.Tensor is needed."
        for name, value in answer.items()
        if not isinstance(value, Tensor) and not _convertible(value)
    ]
    overwritten = [
        f"manual changed its input {name} in place: it must leave its inputs as they are."
        for name in changed(inputs, given)
    ]
    recorded = [
        f"manual let autograd record dL/d{name}: it must not use autograd (see torch.no_grad)."
        for name, value in answer.items()
        if getattr(value, "requires_grad", False)
    ]
    return [*strays, *overwritten, *recorded]


def _without_autograd(twin: Twin, inputs: Values) -> tuple[Any, str]:
    with Saying(twin.name, "manual", " on a second run with the same inputs"):
        try:
            with torch.inference_mode():
                return twin.manual(copies_of(inputs)), ""
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            wrong = f"it fails under torch.inference_mode ({error})"
            return {}, f"manual lets autograd record: {wrong}."


def check_answer(answer: Values, reference: Values, inputs: Values) -> dict[str, str]:
    """Why a quantity cannot be compared, by name: unknown, or of wrong shape, dtype or device."""
    like = next(value for value in inputs.values() if value.is_floating_point())
    problems = {}
    for name, value in answer.items():
        if name not in reference:
            problems[name] = (
                f"manual gives dL/d{name}, of which the reference has no gradient"
                f"{_guess(name, reference)}; it knows {', '.join(map(str, reference))}."
            )
        elif value.layout != torch.strided:
            problems[name] = f"dL/d{name} is sparse; a dense tensor is expected: use to_dense."
        elif value.shape != reference[name].shape:
            problems[name] = (
                f"dL/d{name} has shape {tuple(value.shape)}; {tuple(reference[name].shape)} is "
                f"expected, the shape of {name}{_shape_hint(value, reference[name])}."
            )
        elif value.dtype != like.dtype:
            problems[name] = (
                f"dL/d{name} has dtype {value.dtype}; {like.dtype} is expected, that of the inputs."
            )
        elif value.device != like.device:
            problems[name] = (
                f"dL/d{name} is on {value.device}; {like.device} is expected, where the inputs are."
            )
    return problems


def _guess(name: str, known: Values) -> str:
    by_small_letters = {str(other).lower(): str(other) for other in reversed(known)}
    close = get_close_matches(str(name).lower(), list(by_small_letters), n=1, cutoff=0.5)
    return f" (did you mean {by_small_letters[close[0]]}?)" if close else ""


def _shape_hint(value: Tensor, reference: Tensor) -> str:
    """What a wrong shape looks like: transposed, or not summed over what was broadcast."""
    if value.ndim >= 2 and value.shape == reference.T.shape if reference.ndim == 2 else False:
        return ": it looks transposed"
    extra = value.ndim - reference.ndim
    if extra > 0 and value.shape[extra:] == reference.shape:
        axes = ", ".join(map(str, range(extra)))
        return f": sum it over axis {axes}, along which it was broadcast"
    return ""
