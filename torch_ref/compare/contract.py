"""What a twin must keep to, apart from the numbers: each breach is one clear sentence."""

import math
from typing import Any

import torch
from torch import Tensor

from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.identical import changed, same_answers
from torch_ref.compare.layout import copies_of
from torch_ref.compare.strangers import call, told
from torch_ref.compare.twin import STRESS, Draw, Twin, TwinError, Values


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
    given = copies_of(inputs)
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
