"""Who is wrong, the hand or the reference: finite differences of the loss, which need neither.

The loss is evaluated in float64 with one element of one quantity moved by +-h; an intermediate is
moved inside the recorded forward pass. Ridders' method (Adv. Eng. Software 4(2), 1982) makes of
differences at falling h an extrapolated derivative and an estimate of its error.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx

from torch_ref.compare.cases import Batch, widened
from torch_ref.compare.explain.evidence import Evidence
from torch_ref.compare.twin import Twin, Values

# The witness must side with one by far: be ten times nearer to it than the two are to each other.
CLEARLY = 10
_CASES = 4


def who_is_wrong(twin: Twin, evidence: Sequence[Evidence], batches: Sequence[Batch]) -> str:
    """ "manual" or "reference": the side that the finite differences are against; "" if unclear.

    Looks at the worst element of up to four cases; all that speak must agree.
    """
    votes = set()
    for one, batch in list(zip(evidence, batches, strict=True))[:_CASES]:
        votes.add(_vote(twin, one, batch))
    votes.discard("")
    return votes.pop() if len(votes) == 1 else ""


def _vote(twin: Twin, evidence: Evidence, batch: Batch) -> str:
    manual, expected = evidence.manual.value, evidence.expected.value
    wide = widened(batch.inputs)
    truth = _reference_gradient(twin, wide, evidence.name)
    difference = (manual - truth).abs()
    usable = evidence.decided & difference.isfinite() & (difference > 0)
    if not bool(usable.any()):
        return "manual" if bool((~manual.isfinite() & expected.isfinite()).any()) else ""
    relative = torch.where(usable, difference / torch.maximum(manual.abs(), truth.abs()), -1.0)
    at = int(relative.reshape(-1).argmax())
    derivative, error = finite_difference(twin, wide, evidence.name, at)
    gap = float(difference.reshape(-1)[at])
    if not math.isfinite(derivative) or error * CLEARLY > gap:
        return ""
    for blamed, other in (("manual", truth), ("reference", manual)):
        if abs(derivative - float(other.reshape(-1)[at])) * CLEARLY < gap:
            return blamed
    return ""


def _reference_gradient(twin: Twin, wide: Values, name: str) -> Tensor:
    from torch_ref.compare.reference import gradients_by_autograd

    return gradients_by_autograd(twin.reference, wide, (name,))[name]


def finite_difference(twin: Twin, wide: Values, name: str, at: int) -> tuple[float, float]:
    """The derivative of the (summed) loss by element `at` of a quantity, flattened, and how far
    off it may be."""
    loss = _loss_of(twin, wide, name, at)
    with torch.no_grad():
        quantity = {**wide, **twin.reference(dict(wide))}[name].reshape(-1)
    scale = abs(float(quantity[at])) or 1.0
    best, error = math.nan, math.inf
    for start in (0.1, 1e-3):
        found, off = _ridders(loss, start * scale)
        if off < error:
            best, error = found, off
    return best, error


def _ridders(loss: Callable[[float], float], step: float) -> tuple[float, float]:
    """Central differences at steps falling by 1.4, extrapolated to step 0."""
    shrink = 1.4
    best, error = math.nan, math.inf
    before: list[float] = []
    for order in range(12):
        h = step / shrink**order
        row = [(loss(h) - loss(-h)) / (2 * h)]
        for column, earlier in enumerate(before):
            weight = shrink ** (2 * (column + 1))
            row.append((row[column] * weight - earlier) / (weight - 1))
            off = max(abs(row[-1] - row[column]), abs(row[-1] - earlier))
            if off <= error:
                best, error = row[-1], off
        before = row
    return best, error


def _loss_of(twin: Twin, wide: Values, name: str, at: int) -> Callable[[float], float]:
    """The summed loss as a function of how far one element of a quantity is moved."""

    def moved(value: Tensor, by: float) -> Tensor:
        flat = value.clone().reshape(-1)
        flat[at] += by
        return flat.reshape(value.shape)

    if name in wide:

        def of_input(by: float) -> float:
            with torch.no_grad():
                values = twin.reference({**wide, name: moved(wide[name], by)})
            return float(values["loss"].sum())

        return of_input
    graph, node = _forward_graph(twin, wide, name)

    def of_intermediate(by: float) -> float:
        with torch.no_grad():
            return float(_Moving(graph, node, lambda value: moved(value, by)).run(*wide.values()))

    return of_intermediate


def _forward_graph(twin: Twin, wide: Values, name: str) -> tuple[GraphModule, Node]:
    """The forward pass as a graph that gives the summed loss, and the node of a quantity in it."""

    def forward(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        values = twin.reference(dict(zip(wide, tensors, strict=True)))
        return values["loss"].sum(), values[name]

    graph = make_fx(forward)(*wide.values())
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    loss, quantity = output.args[0]
    output.args = (loss,)
    graph.recompile()
    return graph, quantity


class _Moving(Interpreter):
    """Runs a graph, and moves the value of one node before others use it."""

    def __init__(self, graph: GraphModule, node: Node, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__(graph)
        self.node, self.move = node, move

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        return self.move(value) if n is self.node else value
