"""The graph of a side: forward and backward recorded as one list of primitive operations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Graph, Node
from torch.fx.node import map_aggregate

from torch_ref.compare.layout import copy_of
from torch_ref.compare.recording import Recorded, recorded
from torch_ref.compare.taken_apart import DECOMPOSITIONS, TAKEN_APART_FIRST, as_written
from torch_ref.compare.twin import Values


def gradients_by_autograd(
    reference: Callable[[Values], Values],
    inputs: Values,
    names: tuple[str, ...] | None = None,
    given: Values | None = None,
    upstream: Tensor | None = None,
) -> Values:
    """dL/d(name) by autograd for the named inputs and intermediates (all of them when None).

    A name that the reference does not know is left out; one that the loss does not depend on has
    gradient zero. All are asked for, whatever is wanted: torch's group_norm ends the process where
    only its weight's is, and its input is channels_last.

    given: gradients to go on with instead, by name: what autograd has found for a quantity is
    still what is returned for it, but what lies further back is found from the given one.
    upstream: the gradient to start from, in the shape of the loss; 1 where there is none.
    """
    leaves = {
        name: value.detach().requires_grad_() if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    with torch.enable_grad():
        values = {**leaves, **reference(dict(leaves))}
        wanted = {
            name: values[name] for name in values if name != "loss" and values[name].requires_grad
        }
        replaced = {name: value for name, value in (given or {}).items() if name in wanted}
        found: Values = {}
        hooks = [_replace(wanted[name], name, value, found) for name, value in replaced.items()]
        loss = values["loss"] if upstream is None else values["loss"] * upstream
        grads = torch.autograd.grad(
            loss.sum(), list(wanted.values()), allow_unused=True, materialize_grads=True
        )
        for hook in hooks:
            hook.remove()
    found = {**dict(zip(wanted, grads, strict=True)), **found}
    return {name: found[name] for name in (found if names is None else names) if name in found}


def _replace(
    quantity: Tensor, name: str, given: Tensor, found: Values
) -> torch.utils.hooks.RemovableHandle:
    """Keep the gradient that arrives at a quantity, and go on with the given one."""

    def hook(gradient: Tensor) -> Tensor:
        found[name] = gradient
        return given

    register: Callable[..., torch.utils.hooks.RemovableHandle] = quantity.register_hook
    return register(hook)


def unused(reference: Callable[[Values], Values], inputs: Values) -> tuple[str, ...]:
    """The named quantities that the loss does not depend on, as the reference returns them."""
    leaves = {n: v.detach().requires_grad_() for n, v in inputs.items() if v.is_floating_point()}
    with torch.enable_grad():
        values = {**leaves, **reference({**inputs, **leaves})}
        wanted = {n: v for n, v in values.items() if n != "loss" and v.requires_grad}
        grads = torch.autograd.grad(
            values["loss"].sum(), list(wanted.values()), allow_unused=True, retain_graph=False
        )
    return tuple(name for name, grad in zip(wanted, grads, strict=True) if grad is None)


def record(
    function: Callable[[Values], Values], example: Values, *, may_decide: bool = False
) -> Recorded:
    """The graph of `function` on inputs shaped as `example`: no in-place operations, fused ones
    taken apart, dead ones removed.

    may_decide: as of `recorded`; who may not must not go on outside torch, either. Raises
    LooksAtNumbersError, LeavesTorchError, and whatever the function raises.
    """
    return _pure(_written(function, example, may_decide), example)


def record_in(
    dtype: torch.dtype, function: Callable[[Values], Values], example: Values
) -> Recorded | None:
    """The graph, as of `record`, of what the function does where its inputs are of a dtype under
    test with few digits; None where it does not go on in float32 there.

    The dtype itself is float64 in the graph, as it is where inputs are in float64.
    """
    narrow = {n: copy_of(v, lambda v: v.to(dtype)) if v.is_floating_point() else v
              for n, v in example.items()}  # fmt: skip
    written = _written(function, narrow, False)
    if not any(_is_float32(node) for node in written.graph.nodes):
        return None
    for node in written.graph.nodes:
        node.args, node.kwargs = map_aggregate(
            (node.args, node.kwargs), lambda one: torch.float64 if one is dtype else one
        )
    return _pure(written, example)


def _is_float32(node: Node) -> bool:
    form = node.meta.get("form")
    return form is not None and form.dtype == torch.float32


def _written(function: Callable[[Values], Values], example: Values, may_decide: bool) -> Recorded:
    """All operations as they are written, in place or fused."""
    names: list[str] = []

    def function_of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
        values = function(dict(zip(example, tensors, strict=True)))
        names[:] = values
        return tuple(values.values())

    with as_written(stays=not may_decide):
        written = recorded(
            function_of_tensors, *example.values(),
            decompositions=TAKEN_APART_FIRST, may_decide=may_decide,
        )  # fmt: skip
    written.graph.eliminate_dead_code()
    written.outputs = tuple(names)
    return written


def _pure(written: Recorded, example: Values) -> Recorded:
    """The same with none in place, and fused ones taken apart, dead ones removed."""
    with torch.no_grad():  # the derivatives are in the graph already
        pure = recorded(functionalize(written), *example.values(), decompositions=DECOMPOSITIONS)
    _without_examples_of_shape(pure.graph)
    _without_copies(pure.graph)
    _without_factors_of_one(pure.graph)
    _without_repeats(pure.graph)
    pure.graph.eliminate_dead_code()
    pure.inputs, pure.outputs = tuple(example), written.outputs
    pure.decided, pure.counted = written.decided, written.counted
    return pure


_ATEN = torch.ops.aten
_FILLED = {
    _ATEN.full_like.default: None,
    _ATEN.ones_like.default: 1,
    _ATEN.zeros_like.default: 0,
}
_REPEATING = {_ATEN.expand.default, _ATEN.view.default, _ATEN.unsqueeze.default}
_SAME = {_ATEN.alias.default, _ATEN.detach.default}


def _without_examples_of_shape(graph: Graph) -> None:
    """Constants shaped as a value are made without it: the sum of all losses is worked out for
    nothing else than the shape of the gradient to begin with."""
    for node in graph.nodes:
        value = node.meta.get("form")
        if node.target not in _FILLED or value is None:
            continue
        fill = node.args[1] if len(node.args) > 1 else _FILLED[node.target]
        with graph.inserting_before(node):
            filled = graph.call_function(
                _ATEN.full.default,
                (list(value.shape), fill),
                {"dtype": value.dtype, "device": value.device, "pin_memory": False},
            )
        filled.meta = dict(node.meta)
        node.replace_all_uses_with(filled)


def _without_copies(graph: Graph) -> None:
    """Other names for a value, which keep or cut the graph of autograd, are that value."""
    for node in graph.nodes:
        if node.target in _SAME:
            node.replace_all_uses_with(node.args[0])


def _without_factors_of_one(graph: Graph) -> None:
    """What is multiplied by 1, as by the gradient to begin with, is itself, repeated if need be."""
    if any("as_strided" in str(node.target) for node in graph.nodes):
        return  # it sees what lies around a number in memory
    for node in graph.nodes:
        factor = _times_one(node)
        if factor is None:
            continue
        value, product = factor.meta["form"], node.meta["form"]
        if (value.shape, value.stride) == (product.shape, product.stride):
            node.replace_all_uses_with(factor)
        elif value.shape != product.shape and product.contiguous:
            node.replace_all_uses_with(_repeated(graph, factor, node))


def _without_repeats(graph: Graph) -> None:
    """What is computed once more of the same values, as the mean beside a variance, is taken from
    where it was."""
    known: dict[tuple[object, str, str], Node] = {}
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded in tags:
            continue
        first = known.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)


def _times_one(node: Node) -> Node | None:
    """What a node multiplies by 1, in one dtype; None where it does not."""
    if node.target != _ATEN.mul.Tensor:
        return None
    for one, other in (node.args, node.args[::-1]):
        if not isinstance(other, Node) or not _is_one(one):
            continue
        value = other.meta.get("form")
        if value and value.dtype == node.meta["form"].dtype:
            return other
    return None


def _is_one(argument: Any) -> bool:
    while isinstance(argument, Node) and argument.target in _REPEATING:
        argument = argument.args[0]
    is_full = isinstance(argument, Node) and argument.target == _ATEN.full.default
    return is_full and argument.args[1] == 1


def _repeated(graph: Graph, value: Node, product: Node) -> Node:
    """The value in the product's shape, with memory of its own, as a product has."""
    size = list(product.meta["form"].shape)
    with graph.inserting_before(product):
        view = graph.call_function(_ATEN.expand.default, (value, size))
        copy = graph.call_function(
            _ATEN.clone.default, (view,), {"memory_format": torch.contiguous_format}
        )
    view.meta, copy.meta = dict(product.meta), dict(product.meta)
    return copy


def same_answers(left: Values, right: Values) -> bool:
    """Whether two sets of gradients are equal number for number, NaN equal to NaN."""
    return left.keys() == right.keys() and all(_identical(left[name], right[name]) for name in left)


def changed(before: Values, after: Values) -> list[str]:
    """The names of `before` that are gone, or whose numbers are others now."""
    return [
        name
        for name, value in before.items()
        if name not in after or not _identical(after[name], value)
    ]


def _identical(left: Tensor, right: Tensor) -> bool:
    if not (isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape):
        return False
    if left.layout != torch.strided:
        return left.layout == right.layout and _identical(left.to_dense(), right.to_dense())
    if "meta" in (left.device.type, right.device.type):  # holds no numbers
        return left.device == right.device
    return bool(((left == right) | (left.isnan() & right.isnan())).all())
