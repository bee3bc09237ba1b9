"""Twins of an nn.Module, whose reference is the module itself."""

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torch_ref.compare.contract import check_functions
from torch_ref.compare.twin import Draw, Twin, TwinError, Values


def from_module(
    module: nn.Module,
    loss: Callable[[Tensor, Values], Tensor],
    manual: Callable[[Values], Values],
    inputs: Callable[[Draw], Values],
    *,
    name: str | None = None,
) -> Twin:
    """What `Twin.from_module` says."""
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    called = name or type(module).__name__
    _check_kinds(called, module)
    check_functions(called, loss=loss, manual=manual, inputs=inputs)
    module = copy.deepcopy(module)
    named = {key: value.detach().clone() for key, value in module.named_parameters()}
    parameters = {n: v.double().cpu() for n, v in named.items() if v.is_floating_point()}
    buffers = {key: value.detach().clone() for key, value in module.named_buffers()}
    buffers |= {key: value for key, value in named.items() if key not in parameters}
    arguments = _arguments(module)
    places = [n for n, one in arguments.items() if one.kind == inspect.Parameter.POSITIONAL_ONLY]
    _check_names(called, module, [*parameters, *buffers], arguments)
    own = _name_of_output(module, [*parameters, *buffers, *arguments])
    paths = {part: path or own for path, part in module.named_modules()}

    def drawn(draw: Draw) -> Values:
        given = inputs(draw)
        if not isinstance(given, dict):
            return given  # the harness says what is wrong with it
        _check_inputs(called, given, [*paths.values(), "loss"])
        _check_arguments(called, given, arguments)
        return {**given, **{k: _around(v, draw) for k, v in parameters.items() if k not in given}}

    def reference(values: Values) -> Values:
        found: Values = {}
        count: Counter[str] = Counter()
        hooks = [
            part.register_forward_hook(_keep(found, count, path)) for part, path in paths.items()
        ]
        # Copies, of the arguments and the buffers: a module may change both in place. Parameters
        # without gaps: torch's batch_norm on CPU has wrong gradients where its weight is strided.
        given = {key: values[key].clone() for key in arguments if key in values}
        first = [given.pop(key) for key in places if key in given]
        state = {key: values[key].contiguous() for key in parameters}
        state |= _buffers_for(values, buffers)
        try:
            with _StatisticsStay(), _run_once(called):
                output: Tensor = functional_call(module, state, tuple(first), given)
        finally:
            for hook in hooks:
                hook.remove()
        if "loss" in found or "loss" in values:
            raise TwinError(
                f"{called}: the module has a part named loss, as the loss itself is: rename it, or "
                "wrap the module in another one."
            )
        return {**found, "loss": loss(output, values)}

    return Twin(called, drawn, reference, manual)


def _check_kinds(called: str, module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TwinError(f"from_module needs an nn.Module, such as Linear(2, 3); got {module!r}.")
    for key, value in [*module.named_parameters(), *module.named_buffers()]:
        if isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer)):
            raise TwinError(f"{called}: {key} has no shape yet: run the module once first.")
        if value.is_meta:
            raise TwinError(f"{called}: {key} is on the meta device and has no numbers.")
        if value.is_complex():
            raise TwinError(
                f"{called}: {key} is complex, and there are no rounding rules for that: use real "
                "numbers (torch.view_as_real)."
            )


def _arguments(module: nn.Module) -> dict[str, inspect.Parameter]:
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(module.forward).parameters
    return {key: one for key, one in parameters.items() if one.kind not in kinds}


def _check_arguments(called: str, given: Values, arguments: dict[str, inspect.Parameter]) -> None:
    for key, one in arguments.items():
        if one.default is inspect.Parameter.empty and key not in given:
            raise TwinError(
                f"{called}: `forward` needs {key}, which inputs did not give; it gave "
                f"{', '.join(given) or 'nothing'}."
            )


@contextmanager
def _run_once(called: str) -> Iterator[None]:
    """Without what runs parts of a module once more in its backward: by then the module's own
    parameters are back in their places."""
    message = (
        f"{called}: the module checkpoints activations, or packs saved tensors otherwise: switch "
        "that off, no gradient depends on it"
    )
    with torch.autograd.graph.disable_saved_tensors_hooks(message):
        yield


def _check_names(
    called: str, module: nn.Module, tensors: Iterable[str], arguments: Iterable[str]
) -> None:
    names = {
        **dict.fromkeys((path for path, _ in module.named_modules()), "a submodule"),
        **dict.fromkeys(tensors, "a parameter or buffer"),
        "loss": "the loss",
    }
    for argument in arguments:
        if argument in names:
            raise TwinError(
                f"{called}: {argument} names both an argument of `forward` and {names[argument]}: "
                "wrap the module in one whose `forward` calls it something else."
            )


def _name_of_output(module: nn.Module, others: Iterable[str]) -> str:
    taken = {*others, *(path for path, _ in module.named_modules())}
    return "module output" if "output" in taken else "output"


def _check_inputs(called: str, given: Values, taken: Iterable[str]) -> None:
    for name in given:
        if name in taken:
            raise TwinError(
                f'{called}: inputs gave "{name}", but that is the name of '
                f"{'the loss' if name == 'loss' else 'what a part of the module returns'}: give it "
                "another one."
            )


def _around(value: Tensor, draw: Draw) -> Tensor:
    spread = float(value.square().mean().sqrt()) or 1.0
    return draw.cast(value.numpy() + draw.generator.normal(0.0, spread, tuple(value.shape)))


def _buffers_for(values: Values, buffers: Values) -> Values:
    """Copies of the buffers, of the dtype and on the device of the inputs."""
    like = next(value for value in values.values() if value.is_floating_point())

    def copied(buffer: Tensor) -> Tensor:
        dtype = like.dtype if buffer.is_floating_point() else buffer.dtype
        # Made from an input: a constant changed in place could not be recorded.
        return like.detach().new_empty(buffer.shape, dtype=dtype).copy_(buffer)

    return {key: values[key].clone() if key in values else copied(b) for key, b in buffers.items()}


class _StatisticsStay(TorchFunctionMode):
    """Normalization by the statistics of a batch does not update the running ones.

    No gradient depends on that, and it cannot be recorded: torch does not declare that these
    functions change their arguments.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func not in (functional.batch_norm, functional.instance_norm):
            return func(*args, **(kwargs or {}))
        call = inspect.signature(func).bind(*args, **(kwargs or {}))
        call.apply_defaults()
        if call.arguments.get("training", call.arguments.get("use_input_stats")):
            call.arguments |= {"running_mean": None, "running_var": None}
        return func(*call.args, **call.kwargs)


def _keep(found: Values, count: Counter[str], path: str) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        if not (isinstance(output, Tensor) and output.is_floating_point()):
            return output
        count[path] += 1
        name = path if count[path] == 1 else f"{path} ({count[path]})"
        # What is kept is no other quantity (a module may return its argument), and what goes on
        # into the loss is made from it, but can be changed in place without changing it.
        found[name] = output.clone()
        return found[name].clone()

    return hook
