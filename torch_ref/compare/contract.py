"""What a twin must keep to, apart from the numbers: each breach is one clear sentence."""

import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.layout import copy_of
from torch_ref.compare.reference import changed, gradients_by_autograd, same_answers
from torch_ref.compare.twin import STRESS, Draw, Twin, TwinError, Values

# What torch says where a tensor is changed in place that repeats its numbers without a copy, and
# where one is that has a gradient.
_IN_PLACE = (
    "more than one element of the written-to tensor",
    "is being used in an in-place operation",
)
RANDOM = "manual gave another answer on a second run with the same inputs."


def call(twin: Twin, part: str, argument: Any) -> Any:
    """What twin.inputs, twin.reference or twin.manual returns.

    Raises TwinError for whatever it raises, with the place; out of memory goes through as it is.
    """
    function: Callable[[Any], Any] = getattr(twin, part)
    with Saying(twin.name, part, names=tuple(argument) if isinstance(argument, dict) else ()):
        return function(argument)


@dataclass(frozen=True)
class Saying:
    """Raises TwinError for whatever `what` raises, a stranger's code; out of memory goes through as
    it is. mend: what to add to the sentence. names: of what it was given.

    A class, since a generator's frames would stand in the place that is said.
    """

    name: str
    what: str
    mend: str = ""
    names: tuple[str, ...] = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(
            error, (torch.OutOfMemoryError, TwinError)
        ):
            return
        changes = any(words in str(error) for words in _IN_PLACE)
        in_place = " (it must leave what it is given as it is)" if changes else ""
        misnamed = isinstance(error, KeyError) and not {*error.args} & {*self.names}
        names = f" (the names are {', '.join(self.names)})" if misnamed and self.names else ""
        said = f"{self.name}: {self.what} raised {told(error)}{names}{in_place}{self.mend}."
        raise TwinError(said) from error


def told(error: Exception) -> str:
    """The error's kind, text, and the line of the author's code that it came from."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    text = " ".join(str(error).split()) or "no message"
    ours = str(Path(__file__).parent)
    outside = [
        frame
        for frame in frames
        if "site-packages" not in frame.filename and not frame.filename.startswith(ours)
    ]
    if not outside:
        return f"{type(error).__name__}: {text.rstrip('.')}"
    place = f"{Path(outside[-1].filename).name}:{outside[-1].lineno}"
    return f"{type(error).__name__} at {place}: {text.rstrip('.')}"


def check_functions(whose: str, **functions: Any) -> None:
    """Raise TwinError for what cannot be called, by its name."""
    for name, one in functions.items():
        if not callable(one):
            raise TwinError(f"{whose}: {name} must be a function; got {one!r}.")


def check_strata(twin: Twin) -> None:
    """Raise TwinError for strata that are no names, and for stresses that the harness has not."""
    if isinstance(twin.strata, str) or not twin.strata:
        raise TwinError(
            f'{twin.name}: strata must be a tuple of at least one name, such as ("ordinary",); got '
            f"{twin.strata!r}."
        )
    if isinstance(twin.stress, str):
        raise TwinError(
            f'{twin.name}: stress must be a tuple of names, such as ("tied",), or (); got '
            f"{twin.stress!r}."
        )
    for stress in twin.stress:
        if stress not in STRESS:
            raise TwinError(
                f"{twin.name}: stress {stress} is not known; the stresses are {', '.join(STRESS)}."
            )


def check_inputs(twin: Twin, inputs: Any, draw: Draw) -> None:
    """Raise TwinError unless these are a dict of tensors as the draw makes them, with a floating
    one among them."""
    if not isinstance(inputs, dict):
        raise TwinError(
            f"{twin.name}: inputs must return a dict of tensors by name; got "
            f"{type(inputs).__name__}."
        )
    for name, value in inputs.items():
        if not isinstance(name, str):
            raise TwinError(f"{twin.name}: inputs must name its tensors by strings; got {name!r}.")
        if not isinstance(value, Tensor):
            raise TwinError(
                f"{twin.name}: inputs gave {name} as a {type(value).__name__}; a torch.Tensor is "
                "needed: use the helpers of `draw`, or draw.cast."
            )
        _check_kind(twin, "inputs", name, value)
        if value.requires_grad:
            raise TwinError(
                f"{twin.name}: inputs gave {name} as a tensor that requires grad: detach it; the "
                "harness asks autograd for gradients where it wants them."
            )
        wrong_dtype = value.is_floating_point() and value.dtype != draw.dtype
        if wrong_dtype or value.device.type != draw.device.type:
            raise TwinError(
                f"{twin.name}: inputs gave {name} as {value.dtype} on {value.device}; {draw.dtype} "
                f"on {draw.device} was asked for: use the helpers of `draw`, or draw.cast."
            )
    if not any(value.is_floating_point() for value in inputs.values()):
        raise TwinError(f"{twin.name}: inputs gave no floating tensor: there is no gradient.")


def check_numbers(twin: Twin, inputs: Values) -> None:
    """Raise TwinError where an input is NaN."""
    for name, value in inputs.items():
        if not value.is_floating_point() or math.isfinite(value.sum().item()):
            continue  # a sum is NaN where a term is, and found in a tenth of the time
        if bool(value.isnan().any()):
            raise TwinError(f"{twin.name}: inputs gave {name} with NaN in it.")


def check_drawn_alike(twin: Twin, once: Values, again: Values) -> None:
    """Raise TwinError where inputs made other numbers of one draw: no case could be replayed."""
    if not same_answers(once, again):
        raise TwinError(
            f"{twin.name}: inputs made other numbers of the same draw on a second run: take random "
            "numbers from the helpers of `draw` or from draw.generator alone."
        )


def _check_kind(twin: Twin, part: str, name: str, value: Tensor) -> None:
    if value.is_complex() or value.layout != torch.strided:
        kind = "complex" if value.is_complex() else "sparse"
        raise TwinError(
            f"{twin.name}: {part} gave {name} as a {kind} tensor, for which there are no rounding "
            "rules: use real, dense ones (torch.view_as_real, to_dense)."
        )


def check_cases(twin: Twin, inputs: Values, cases: int) -> None:
    """Raise TwinError unless every input of a batched twin has that many cases."""
    for name, value in inputs.items():
        if value.shape[:1] != (cases,):
            count = value.shape[0] if value.ndim else "no"
            raise TwinError(
                f"{twin.name}: inputs gave {name} with {count} cases; draw.cases, {cases}, were "
                "asked for."
            )


def check_drawn_together(twin: Twin, parts: dict[str, Values]) -> None:
    """Raise TwinError unless the strata of a batched twin, which are judged together, have the same
    inputs, with cases of one shape."""
    first = next(iter(parts))
    expected = _shapes(parts[first])
    for stratum, inputs in parts.items():
        found = _shapes(inputs)
        if found == expected:
            continue
        name = next(n for n in {**expected, **found} if expected.get(n) != found.get(n))
        raise TwinError(
            f"{twin.name}: inputs gave {name} with {_of_shape(expected.get(name))} a case in "
            f'stratum "{first}" and {_of_shape(found.get(name))} in "{stratum}": a batched '
            "twin's cases are alike; give a loss of shape () where they differ."
        )


def _shapes(inputs: Values) -> dict[str, tuple[int, ...]]:
    """Of one case."""
    return {name: tuple(value.shape[1:]) for name, value in inputs.items()}


def _of_shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"shape {shape}"


def check_loss(twin: Twin, inputs: Values, probe: int) -> bool:
    """Whether the loss has one number a case; TwinError where it has neither that nor shape ()."""
    with torch.no_grad():
        values = call(twin, "reference", dict(inputs))
    if not isinstance(values, dict):
        raise TwinError(
            f"{twin.name}: reference must return a dict of tensors by name, with the loss under "
            f'"loss"; got {type(values).__name__}.'
        )
    if "loss" not in values:
        raise TwinError(
            f'{twin.name}: reference must return the loss under "loss"; it returned '
            f"{', '.join(map(str, values)) or 'nothing'}."
        )
    strays = [name for name, value in values.items() if not isinstance(value, Tensor)]
    if strays:
        raise TwinError(
            f"{twin.name}: reference gave {strays[0]} as a {type(values[strays[0]]).__name__}; a "
            "torch.Tensor is needed."
        )
    for name, value in values.items():
        _check_kind(twin, "reference", name, value)
        if name in inputs and value is not inputs[name]:
            raise TwinError(
                f"{twin.name}: reference gave another tensor for its input {name}: give what is "
                "made of it a name of its own."
            )
    if not values["loss"].is_floating_point():
        raise TwinError(
            f"{twin.name}: the loss must be a floating number, which has a gradient; got "
            f"{values['loss'].dtype}."
        )
    if bool(values["loss"].isnan().all()):
        raise TwinError(
            f"{twin.name}: the loss is NaN on the first case: there is nothing to judge."
        )
    shape = tuple(values["loss"].shape)
    if shape not in ((), (probe,)):
        raise TwinError(
            f"{twin.name}: the loss must be a scalar, shape (), or one number a case, shape "
            f"({probe},) here; got {shape}: sum it, or take its mean."
        )
    if shape and any(value.shape[:1] != (probe,) for value in inputs.values()):
        raise TwinError(
            f"{twin.name}: the loss has one number a case, so every input needs the cases in its "
            "first dimension (draw.cases of them)."
        )
    return bool(shape)


def check_reference(twin: Twin, inputs: Values) -> None:
    """Raise TwinError for a reference that changes its inputs or answers differently again."""
    given = {name: copy_of(value) for name, value in inputs.items()}
    with torch.no_grad():
        first = call(twin, "reference", given)
    overwritten = changed(inputs, given)
    if overwritten:
        raise TwinError(
            f"{twin.name}: reference changed its input {overwritten[0]} in place: it must leave "
            "its inputs as they are."
        )
    with torch.no_grad():
        again = call(twin, "reference", dict(inputs))
    if not same_answers(first, again):
        raise TwinError(
            f"{twin.name}: reference gave another answer on a second run with the same inputs: it "
            "must draw nothing itself; make a dropout mask an input, for example."
        )
    leaves = {n: v.detach().requires_grad_() for n, v in inputs.items() if v.is_floating_point()}
    with torch.enable_grad():
        if not call(twin, "reference", {**inputs, **leaves})["loss"].requires_grad:
            raise TwinError(
                f"{twin.name}: the loss does not depend on any input, as autograd sees it: leave "
                "out detach() and torch.no_grad() on the way."
            )
    try:
        gradients_by_autograd(twin.reference, inputs)
    except RuntimeError as error:
        raise TwinError(
            f"{twin.name}: autograd cannot differentiate the reference: {told(error)}."
        ) from error


def run_manual(
    twin: Twin, inputs: Values, *, thoroughly: bool = True
) -> tuple[Values, list[str], list[str]]:
    """The manual side's answer on a copy of the inputs, what is wrong with how it came about, and
    what is worth saying.

    thoroughly: run it twice, the second time where autograd can record nothing, and look for
        changed inputs.
    """
    given = {name: copy_of(value) for name, value in inputs.items()}
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
    if reason:
        breaches.append(reason)
    elif not breaches and not same_answers(as_tensors(answer, inputs), as_tensors(again, inputs)):
        breaches.append(RANDOM)
    return as_tensors(answer, inputs), breaches, notes


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
                return twin.manual({name: copy_of(value) for name, value in inputs.items()}), ""
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
