"""The graph of a side: forward and backward recorded as one list of primitive operations."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Node
from torch.fx.node import map_aggregate

from torch_ref.compare.graphs.recording import LooksAtNumbersError, Recorded, recorded
from torch_ref.compare.graphs.simplify import simplify
from torch_ref.compare.graphs.taken_apart import (
    DECOMPOSITIONS,
    TAKEN_APART_FIRST,
    LeavesTorchError,
    as_written,
)
from torch_ref.compare.layout import copy_of
from torch_ref.compare.strangers import told
from torch_ref.compare.twin import Values


def record(
    function: Callable[[Values], Values],
    example: Values,
    *,
    may_decide: bool = False,
    stays: bool = False,
) -> Recorded:
    """The graph of `function` on inputs shaped as `example`: no in-place operations, fused ones
    taken apart, dead ones removed.

    may_decide: as of `recorded`. stays: whether to raise LeavesTorchError where it goes on outside
    torch. Raises LooksAtNumbersError, too, and whatever the function raises.
    """
    return _pure(_written(function, example, may_decide, stays), example)


def record_in(
    dtype: torch.dtype, function: Callable[[Values], Values], example: Values
) -> Recorded | None:
    """The graph, as of `record`, of what the function does where its inputs are of a dtype under
    test with few digits; None where it does not go on in float32 there.

    The dtype itself is float64 in the graph, as it is where inputs are in float64.
    """
    narrow = {n: copy_of(v, lambda v: v.to(dtype)) if v.is_floating_point() else v
              for n, v in example.items()}  # fmt: skip
    written = _written(function, narrow, may_decide=True, stays=True)
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


def record_places(function: Callable[[Values], Values], example: Values) -> Recorded:
    """All operations as they are written, with where they are: see `recorded`."""
    return _written(function, example, may_decide=True, stays=False, places=True)


def _written(
    function: Callable[[Values], Values],
    example: Values,
    may_decide: bool,
    stays: bool,
    places: bool = False,
) -> Recorded:
    """All operations as they are written, in place or fused."""
    names: list[str] = []

    def function_of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
        values = function(dict(zip(example, tensors, strict=True)))
        names[:] = values
        return tuple(values.values())

    with as_written(stays=stays):
        written = recorded(
            function_of_tensors, *example.values(),
            decompositions=TAKEN_APART_FIRST, may_decide=may_decide, places=places,
        )  # fmt: skip
    written.graph.eliminate_dead_code()
    written.outputs = tuple(names)
    return written


def _pure(written: Recorded, example: Values) -> Recorded:
    """The same with none in place, and fused ones taken apart, dead ones removed."""
    with torch.no_grad():  # the derivatives are in the graph already
        pure = recorded(functionalize(written), *example.values(), decompositions=DECOMPOSITIONS)
    simplify(pure.graph)
    pure.inputs, pure.outputs = tuple(example), written.outputs
    pure.decided, pure.counted = written.decided, written.counted
    return pure


def why_not_recorded(error: Exception) -> str:
    """What `record` raised, as a reason to be told."""
    if isinstance(error, LooksAtNumbersError):
        return "it looks at its numbers: use torch.where instead of if, item() or float()"
    return str(error) if isinstance(error, LeavesTorchError) else told(error)
