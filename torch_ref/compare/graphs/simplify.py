"""A graph without what leaves its numbers as they are: each change is one pass over it."""

from typing import Any

import torch
from torch.fx import Graph, Node

_ATEN = torch.ops.aten
_FILLED = {
    _ATEN.full_like.default: None,
    _ATEN.ones_like.default: 1,
    _ATEN.zeros_like.default: 0,
}
_REPEATING = {_ATEN.expand.default, _ATEN.view.default, _ATEN.unsqueeze.default}
_SAME = {_ATEN.alias.default, _ATEN.detach.default}


def simplify(graph: Graph) -> None:
    """All of them, in place."""
    _without_examples_of_shape(graph)
    _without_copies(graph)
    _without_factors_of_one(graph)
    _without_repeats(graph)
    graph.eliminate_dead_code()


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
