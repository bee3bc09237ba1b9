"""Which named quantity is computed from which: the reference's graph without what has no name."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Node

from torch_ref.compare.graphs.recording import Recorded, recorded
from torch_ref.compare.graphs.taken_apart import as_written
from torch_ref.compare.report import Graph
from torch_ref.compare.twin import Values


def forward_graph(reference: Callable[[Values], Values], inputs: Values) -> Graph:
    """The graph of the reference's values on inputs shaped as these, forward.

    An edge (a, b) says that b is computed from a on a way that passes no other named quantity.
    Empty where the reference cannot be recorded: it is a picture, and no verdict rests on it.
    """
    names: list[str] = []

    def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
        values = reference(dict(zip(inputs, tensors, strict=True)))
        names[:] = values
        return tuple(values.values())

    # With gradients: a reference may differentiate something itself.
    leaves = [v.detach().requires_grad_() if v.is_floating_point() else v for v in inputs.values()]
    try:
        with torch.enable_grad(), as_written():
            found = recorded(forward, *leaves, may_decide=True)
        if any(map(_changes_its_arguments, found.graph.nodes)):
            with torch.no_grad():
                found = recorded(functionalize(found), *inputs.values())
    except Exception:  # anything can come out of recording a user's function
        return Graph()
    return _simplified(found, tuple(inputs), tuple(names))


def _changes_its_arguments(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _simplified(found: Recorded, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
    """The recorded operations walked once; each knows the quantities that it comes from."""
    names = _names(found, inputs, outputs)
    sources: dict[Node, dict[str, None]] = {}  # a dict keeps its order, a set would not
    edges: dict[tuple[str, str], None] = {}
    quantities: dict[str, None] = {}
    for node in found.graph.nodes:
        before = {name: None for one in node.all_input_nodes for name in sources[one]}
        for name in names.get(node, ()):
            edges |= dict.fromkeys((source, name) for source in before)
            quantities[name] = None
            before = {name: None}  # another name of the same tensor comes after this one
        sources[node] = before
    return Graph(tuple(quantities), tuple(edges))


def _names(
    found: Recorded, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> dict[Node, list[str]]:
    """The names of each node; an input that the reference returns under its name, or replaces,
    counts once: where the reference has it."""
    names: dict[Node, list[str]] = {}
    nodes = list(found.graph.nodes)
    for name, node in zip(inputs, (n for n in nodes if n.op == "placeholder"), strict=True):
        if name not in outputs:
            names[node] = [name]
    for name, node in zip(outputs, nodes[-1].args[0], strict=True):
        if isinstance(node, Node):  # a constant has none
            names.setdefault(node, []).append(name)
    return names
