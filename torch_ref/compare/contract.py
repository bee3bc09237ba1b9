"""What a manual side must keep to, apart from the numbers: each breach is one clear sentence."""

import torch

from torch_ref.compare.reference import same_answers
from torch_ref.compare.twin import Twin, Values


def run_manual(twin: Twin, inputs: Values) -> tuple[Values, list[str]]:
    """The manual side's answer on a copy of the inputs, and what is wrong with how it came about.

    It runs twice, the second time where autograd can record nothing.
    """
    given = {name: value.clone() for name, value in inputs.items()}
    answer = twin.manual(given)
    if not isinstance(answer, dict):
        return {}, [f"manual must return a dict of gradients by name; got {type(answer).__name__}."]
    if not answer:
        return {}, ["manual gave no gradient: it must return dL/d(name) of at least one quantity."]
    breaches = _breaches(answer, given, inputs)
    again, reason = _without_autograd(twin, inputs)
    if reason:
        breaches.append(reason)
    elif not breaches and not same_answers(answer, again):
        breaches.append("manual gave another answer on a second run with the same inputs.")
    tensors = {n: value.detach() for n, value in answer.items() if isinstance(value, torch.Tensor)}
    return tensors, breaches


def _breaches(answer: Values, given: Values, inputs: Values) -> list[str]:
    strays = [
        f"dL/d{name} is a {type(value).__name__}; a torch.Tensor is needed."
        for name, value in answer.items()
        if not isinstance(value, torch.Tensor)
    ]
    changed = [
        f"manual changed its input {name} in place: it must leave its inputs as they are."
        for name in inputs
        if name not in given or not same_answers({name: given[name]}, {name: inputs[name]})
    ]
    recorded = [
        f"manual let autograd record dL/d{name}: it must not use autograd (see torch.no_grad)."
        for name, value in answer.items()
        if getattr(value, "requires_grad", False)
    ]
    return [*strays, *changed, *recorded]


def _without_autograd(twin: Twin, inputs: Values) -> tuple[Values, str]:
    try:
        with torch.inference_mode():
            return twin.manual({name: value.clone() for name, value in inputs.items()}), ""
    except RuntimeError as error:
        return {}, f"manual lets autograd record: it fails under torch.inference_mode ({error})."


def check_answer(answer: Values, reference: Values, inputs: Values) -> dict[str, str]:
    """Why a quantity cannot be compared, by name: unknown, or of wrong shape, dtype or device."""
    like = next(value for value in inputs.values() if value.is_floating_point())
    problems = {}
    for name, value in answer.items():
        if name not in reference:
            known = ", ".join(reference)
            problems[name] = (
                f"manual gives dL/d{name}, which the reference does not know ({known})."
            )
        elif value.shape != reference[name].shape:
            problems[name] = (
                f"dL/d{name} has shape {tuple(value.shape)}; {tuple(reference[name].shape)} is "
                f"the shape of {name}."
            )
        elif value.dtype != like.dtype:
            problems[name] = f"dL/d{name} has dtype {value.dtype}; the inputs are {like.dtype}."
        elif value.device != like.device:
            problems[name] = f"dL/d{name} is on {value.device}; the inputs are on {like.device}."
    return problems
