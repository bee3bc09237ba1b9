"""Who is wrong, the hand or the reference: finite differences of the loss, which need neither.

The loss is evaluated in float64 with one element of one quantity moved by +-h; an intermediate is
moved inside the recorded forward pass. Ridders' method (Adv. Eng. Software 4(2), 1982) makes of
differences at falling h an extrapolated derivative and an estimate of its error.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.cases import Batch, widened
from torch_ref.compare.explain import Evidence
from torch_ref.compare.graphs.recording import Recorded, recorded
from torch_ref.compare.graphs.taken_apart import as_written
from torch_ref.compare.layout import copy_of, layout
from torch_ref.compare.twin import Twin, Values

# The witness must side with one by far: be ten times nearer to it than the two are to each other.
CLEARLY = 10
Graphs = dict[object, Recorded]  # forward passes, by the quantity moved and the inputs' layout
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
    graphs: Graphs = {}
    votes = [
        _vote(twin, case, one.name, float(one.manual.value.reshape(-1)[at]), inner, graphs)
        for one, batch, at_kinks in zip(evidence, batches, kinks, strict=True)
        for case, at, inner in _wrong_places(one, batch, at_kinks, max(_VOTES // len(batches), 1))
    ]
    spoken = {vote for vote in votes if vote}
    return spoken.pop() if len(spoken) == 1 else ""


def stops_gradients(twin: Twin, batch: Batch) -> bool:
    """Whether the reference detaches something, or works it out under `no_grad`, so that its
    gradient may be another than the loss's on purpose, as in a straight-through estimator."""
    wide = widened(batch.inputs)
    watch = _WithoutGrad()

    def loss(*tensors: Tensor) -> Tensor:
        return twin.reference(dict(zip(wide, tensors, strict=True)))["loss"]

    try:
        with torch.no_grad(), as_written():
            nodes = recorded(loss, *wide.values(), may_decide=True).graph.nodes
        with torch.enable_grad(), watch:
            loss(*(copy_of(v).requires_grad_(v.is_floating_point()) for v in wide.values()))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # anything can come out of recording a user's function
        return False
    detach = torch.ops.aten.detach.default
    return watch.found or any(node.target is detach and node.users for node in nodes)


class _WithoutGrad(TorchFunctionMode):
    """Notes whether something is made of what has a gradient where the code has switched autograd
    off; in a custom Function's forward pass torch has."""

    off = found = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            self.off = not args[0]
        given = [one for one in args if isinstance(one, Tensor)]
        self.found |= self.off and any(one.requires_grad for one in given)
        return func(*args, **(kwargs or {}))


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


def _vote(twin: Twin, case: Values, name: str, manual: float, at: int, graphs: Graphs) -> str:
    reference = float(gradients_by_autograd(twin.reference, case, (name,))[name].reshape(-1)[at])
    gap = abs(manual - reference)
    derivative, error = finite_difference(twin, case, name, at, graphs)
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


def finite_difference(
    twin: Twin, wide: Values, name: str, at: int, graphs: Graphs | None = None
) -> tuple[float, float]:
    """The derivative of the (summed) loss by element `at` of a quantity, flattened, and how far
    off it may be; NaN and infinite where the reference raises for what is moved.

    graphs: those recorded so far, which cases laid out alike share.
    """
    try:
        return _differentiated(twin, wide, name, at, {} if graphs is None else graphs)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a stranger's code may raise anything outside its domain
        return math.nan, math.inf


def _differentiated(
    twin: Twin, wide: Values, name: str, at: int, graphs: Graphs
) -> tuple[float, float]:
    with torch.no_grad():
        values = {**wide, **twin.reference(dict(wide))}
    quantity = values[name].reshape(-1)
    if name in wide:
        loss = _loss_of_input(twin, wide, name, at)
    else:
        loss = _loss_of_intermediate(twin, wide, name, at, values, graphs)
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


def _loss_of_input(twin: Twin, wide: Values, name: str, at: int) -> Callable[[float], float]:
    """The summed loss as a function of how far one element of an input is moved."""

    def loss(by: float) -> float:
        moved = wide[name] + _only(at, by, wide[name])
        with torch.no_grad():
            return float(twin.reference({**wide, name: moved})["loss"].sum())

    return loss


def _loss_of_intermediate(
    twin: Twin, wide: Values, name: str, at: int, values: Values, graphs: Graphs
) -> Callable[[float], float]:
    """The same for an intermediate; values: what the reference gives where nothing is moved."""
    key = (name, layout(wide))

    def loss(by: float) -> float:
        with torch.no_grad():
            return float(graphs[key](_only(at, by, values[name]), *wide.values()))

    if key not in graphs or loss(0.0) != float(values["loss"].sum()):  # it may branch
        graphs[key] = _forward_graph(twin, wide, name)
    return loss


def _only(at: int, by: float, like: Tensor) -> Tensor:
    """Zeros shaped like a quantity, but for one element."""
    step = torch.zeros(like.numel(), dtype=like.dtype, device=like.device)
    step[at] = by
    return step.reshape(like.shape)


def _forward_graph(twin: Twin, wide: Values, name: str) -> Recorded:
    """The summed loss as a graph whose inputs are what is added to a quantity, and the twin's."""

    def forward(step: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        values = twin.reference(dict(zip(wide, tensors, strict=True)))
        return values["loss"].sum(), values[name]

    with as_written():
        graph = recorded(forward, torch.zeros(()), *wide.values(), may_decide=True)
    nodes = list(graph.graph.nodes)
    outputs: Any = nodes[-1].args[0]
    step, (loss, quantity) = nodes[0], outputs
    computed = next(node for node in nodes if node.op != "placeholder")
    before = computed if quantity.op == "placeholder" else quantity.next
    with graph.graph.inserting_before(before):
        moved = graph.graph.call_function(torch.add, (quantity, step))
    quantity.replace_all_uses_with(moved, delete_user_cb=lambda user: user is not moved)
    nodes[-1].args = (loss,)
    return graph
