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
from torch_ref.compare.explain import Evidence
from torch_ref.compare.reference import gradients_by_autograd
from torch_ref.compare.twin import Twin, Values

# The witness must side with one by far: be ten times nearer to it than the two are to each other.
CLEARLY = 10
_VOTES = 12  # wrong elements looked at


def who_is_wrong(
    twin: Twin,
    evidence: Sequence[Evidence],
    batches: Sequence[Batch],
    kinks: Sequence[Tensor | None],
) -> str:
    """ "manual" or "reference": the side that the finite differences are against; "" if unclear.

    Looks at wrong elements of a few cases, none at a kink, where a difference means nothing; all
    that speak must agree. kinks: which cases of each batch are at one.
    """
    votes = [
        _vote(twin, case, one.name, float(one.manual.value.reshape(-1)[at]), inner)
        for one, batch, at_kinks in zip(evidence, batches, kinks, strict=True)
        for case, at, inner in _wrong_places(one, batch, at_kinks, max(_VOTES // len(batches), 1))
    ]
    spoken = {vote for vote in votes if vote}
    return spoken.pop() if len(spoken) == 1 else ""


def _wrong_places(
    evidence: Evidence, batch: Batch, kinks: Tensor | None, most: int
) -> list[tuple[Values, int, int]]:
    """Some wrong elements: the inputs of their case, their place in the batch and in the case."""
    manual, expected = evidence.manual, evidence.expected
    gap = (manual.value - expected.value).abs()
    wrong = evidence.decided & ~(gap <= manual.bound + expected.bound)
    if kinks is not None and wrong.numel():
        wrong = wrong.reshape(len(kinks), -1) & ~kinks[:, None]
    wide = widened(batch.inputs)
    each = manual.value.numel() // (batch.count if batch.batched else 1)
    places = []
    for at in wrong.reshape(-1).nonzero().reshape(-1)[:most].tolist():
        case = at // each
        one = {n: v[case : case + 1] for n, v in wide.items()} if batch.batched else wide
        places.append((one, at, at % each))
    return places


def _vote(twin: Twin, case: Values, name: str, manual: float, at: int) -> str:
    reference = float(gradients_by_autograd(twin.reference, case, (name,))[name].reshape(-1)[at])
    gap = abs(manual - reference)
    derivative, error = finite_difference(twin, case, name, at)
    if not math.isfinite(derivative):
        return ""
    if not math.isfinite(manual):
        return "manual" if abs(derivative - reference) * CLEARLY < abs(reference) else ""
    if error * CLEARLY > gap:
        return ""
    for blamed, other in (("manual", reference), ("reference", manual)):
        if abs(derivative - other) * CLEARLY < gap:
            return blamed
    return ""


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
    if best == error == 0:
        return _unmoved(loss, scale)
    return best, error


def _unmoved(loss: Callable[[float], float], scale: float) -> tuple[float, float]:
    """The loss did not move at all: its derivative is 0 if a large step does not move it either,
    as far as its own rounding lets see; otherwise the steps were too small to tell."""
    step, start = 10 * scale, loss(0.0)
    if loss(step) == start == loss(-step):
        return 0.0, 2.0**-52 * abs(start) / step
    return math.nan, math.inf


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
