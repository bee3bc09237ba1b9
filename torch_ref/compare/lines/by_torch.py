"""Slices of a hand in torch, by its graph."""

from functools import partial

from torch.fx import Node
from torch.fx.node import map_arg

from torch_ref.compare.graphs.side import record_places
from torch_ref.compare.lines.slices import Slices, union
from torch_ref.compare.sides.hand import gradients_by_hand
from torch_ref.compare.twin import Twin, Values


def slices_by_torch(twin: Twin, inputs: Values, names: tuple[str, ...]) -> Slices:
    """Of these quantities, as the hand computes them from these inputs; what was written into the
    same memory before is a part of each. Raises whatever comes out of recording it."""
    graph = record_places(partial(gradients_by_hand, twin, names=names), inputs)
    nodes = list(graph.graph.nodes)
    made_of: dict[Node, int] = {}
    written: dict[int, int] = {}  # by where memory begins; 0 is none

    def whole(node: Node) -> int:
        return made_of[node] | written.get(_memory(node), 0)

    for place, node in enumerate(nodes):
        made_of[node] = 1 << place | union(map(whole, node.all_input_nodes))
        for changed in _changed(node):
            if _memory(changed):
                written[_memory(changed)] = whole(changed) | made_of[node]
    (results,) = nodes[-1].args
    given = union(1 << place for place, node in enumerate(nodes) if node.op == "placeholder")
    # what is made of no input was computed by others, as NumPy's arrays are
    slices = (bits if bits & given else 0 for bits in map(whole, results))
    found = dict(zip(graph.outputs, slices, strict=True))
    return Slices([node.meta.get("line") for node in nodes], found)


def _memory(node: Node) -> int:
    memory: int = node.meta.get("memory", 0)
    return memory


def _changed(node: Node) -> list[Node]:
    """What an operation changes in place."""
    schema = getattr(node.target, "_schema", None)
    changed: list[Node] = []
    if schema is not None and schema.is_mutable:
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                map_arg(value, changed.append)
    return changed
