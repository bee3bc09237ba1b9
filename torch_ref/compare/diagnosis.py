"""From "differ" to the bug: where mistakes enter, what each looks like, and whose they are.

A wrong gradient makes everything behind it wrong as well. So each wrong quantity is judged once
more, against what the reference's own derivatives make of the gradients that the *hand* gave for
what comes before it: backward runs through the reference, and at every named quantity the hand's
gradient takes the place of autograd's. Where even that does not give the hand's number, the
mistake is the quantity's own; elsewhere it is inherited.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.cases import Batch, widened
from torch_ref.compare.explain import Evidence, Explanation, explain
from torch_ref.compare.functions.values import is_second_order
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.graphs.side import record
from torch_ref.compare.layout import copy_of, has_gaps, layout, repeats
from torch_ref.compare.lines import lines_of_mistakes
from torch_ref.compare.report import Diagnosis
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.sides import Recorder, Sides
from torch_ref.compare.twin import Twin, TwinError, Values
from torch_ref.compare.verdict import Side
from torch_ref.compare.witness import stops_gradients, who_is_wrong

_REFERENCE_IS_WRONG = (
    "the reference's dL/d{0} is wrong, not the hand's: finite differences of the loss side with "
    "the hand (is a custom autograd.Function behind {0} wrong, or a gradient stopped on purpose?)"
)
Graphs = dict[object, Recorded]  # recorded, by what they are of and the layout of the inputs
_UPSTREAM = "the gradient that backward starts from"


def diagnose(recorder: Recorder, batches: Sequence[Batch], wrong: tuple[str, ...]) -> Diagnosis:
    """Diagnose the `wrong` quantities, in backward order, on batches that show them and some that
    do not: what is said must be true of these as well.

    In float64 where the first of them is wrong there, too, since little rounding hides it; else in
    the recorder's own dtype.
    """
    found: list[Local] = []
    if recorder.dtype != torch.float64:
        wide = [replace(batch, inputs=widened(batch.inputs)) for batch in batches]
        found = _all(recorder.for_dtype(torch.float64), wide, wrong[:1])
    found = found or _all(recorder, batches, wrong)
    own = [name for name in wrong if any(local.is_wrong(name) for local in found)]
    # double backward runs through the backward: what is wrong there is wrong here, too
    own = [name for name in own if not is_second_order(name)] or own
    if not own:
        together = "no known pattern; every step alone is within rounding, all together are not"
        return Diagnosis(wrong[:1], (f"dL/d{wrong[0]}: {together}",), (False,), ("",))
    # where a quantity has a wrong shape for some sizes, it cannot be looked at there
    seen = {name: [local for local in found if name in local.sides.manual] for name in own}
    evidence = {name: _evidence(name, seen[name]) for name in own}
    blame = {
        name: who_is_wrong(
            recorder.twin,
            draws,
            [local.batch for local in seen[name]],
            [local.sides.kinks for local in seen[name]],
        )
        for name, draws in evidence.items()
    }
    twice = any(map(is_second_order, recorder.said.order))  # autograd in it detaches by itself
    if "reference" in blame.values() and not twice and stops_gradients(recorder.twin, batches[0]):
        blame = {name: "" if one == "reference" else one for name, one in blame.items()}
    told = [
        _REFERENCE_IS_WRONG.format(name)
        if blame[name] == "reference"
        else _explained(seen[name], draws)
        for name, draws in evidence.items()
    ]
    by_hand = [name for name in own if blame[name] != "reference"]
    batch = next(local.batch for local in found if local.is_wrong(own[0]))
    order = tuple(recorder.said.order)
    where = lines_of_mistakes(recorder.twin, batch, by_hand, wrong, order)
    lines = dict(zip(by_hand, where.own, strict=True))
    return Diagnosis(
        mistakes=tuple(own),
        explanations=tuple(one if isinstance(one, str) else one.sentence for one in told),
        explained=tuple(isinstance(one, str) or one.known for one in told),
        lines=tuple(lines.get(name, "") for name in own),
        shared=where.shared,
        blame=blame[own[0]],
    )


def _evidence(name: str, seen: "list[Local]") -> list[Evidence]:
    """Of what leaves digits, if a mistake shows there: what it looks like is seen best."""
    shows = any(local.is_wrong(name, with_digits=True) for local in seen)
    return [local.evidence(name, with_digits=shows) for local in seen]


def _explained(seen: "list[Local]", draws: list[Evidence]) -> Explanation:
    """What a mistake looks like; where it shows for some layouts alone, what it is like there."""
    wrong = [local.is_wrong(draw.name) for local, draw in zip(seen, draws, strict=True)]
    where = _in_memory(seen, wrong)
    found = explain([draw for draw, is_wrong in zip(draws, wrong) if is_wrong] if where else draws)
    return replace(found, sentence=found.sentence + where)


def _in_memory(seen: "list[Local]", wrong: list[bool]) -> str:
    """How inputs lie in memory in the wrong draws and in no right one; "" if that does not tell."""
    if not 1 < sum(wrong) < len(wrong) - 1:
        return ""
    for has, text in (
        (repeats, "repeats its numbers without a copy"),
        (has_gaps, "is not contiguous"),
    ):
        if [has(local.batch.inputs) for local in seen] == wrong:
            return f", only where an input {text} in memory"
    return ""


def _all(recorder: Recorder, batches: Sequence[Batch], wrong: tuple[str, ...]) -> "list[Local]":
    """What each batch shows, right ones included; nothing where none shows a mistake."""
    graphs: Graphs = {}
    try:
        locals_ = [Local.of(recorder, batch, graphs) for batch in batches]
    except TwinError:  # the hand may not run in this dtype at all
        return []
    shown = any(local.is_wrong(name) for local in locals_ for name in wrong)
    return locals_ if shown else []


@dataclass(frozen=True)
class Local:
    """One batch, with what the reference makes of the hand's own gradients.

    sides: both sides; expected: for each quantity, by the hand's gradients of what comes before it.
    """

    recorder: Recorder
    batch: Batch
    sides: Sides
    expected: Walked
    graph: Recorded
    inputs: Values
    bounds: Values
    arithmetic: Arithmetic
    graphs: Graphs
    arrived: dict[str, Walked] = field(default_factory=dict)

    @staticmethod
    def of(recorder: Recorder, batch: Batch, graphs: Graphs) -> "Local":
        """Run the reference backward with the hand's gradients put in.

        graphs: those recorded so far, which batches laid out alike share.
        """
        sides, wide = recorder.sides(batch), widened(batch.inputs)
        graphs = {} if recorder.reference.branches else graphs
        with torch.no_grad():
            start = torch.ones_like(recorder.twin.reference(dict(wide))["loss"])
        given = {_key(name): value for name, value in sides.manual.items()}
        inputs = {**wide, **given, _UPSTREAM: start}
        key = ("backward", layout(inputs))
        if key not in graphs:
            backward = _with_given(recorder.twin, tuple(sides.manual))
            graphs[key] = record(backward, inputs, may_decide=True)
        graph = graphs[key]
        bounds = {_key(name): side.bound for name, side in sides.manual_side.items()}
        arithmetic = Arithmetic.of(recorder.dtype)
        expected = walk(graph, inputs, arithmetic, bounds=bounds)
        return Local(recorder, batch, sides, expected, graph, inputs, bounds, arithmetic, graphs)

    def side(self, name: str) -> Side:
        return Side(self.expected.values[name], self.expected.bounds[name])

    def is_wrong(self, name: str, *, with_digits: bool = False) -> bool:
        """Whether the hand's number is not what its own gradients before it lead to; with_digits:
        where it is no number, only if rounding leaves the reference a digit."""
        return name in self.sides.manual and bool(self._wrong(name, with_digits).any())

    def _wrong(self, name: str, with_digits: bool) -> Tensor:
        manual, expected = self.sides.manual[name], self.side(name)
        tolerance = self.sides.manual_side[name].bound + expected.bound
        beyond = ((manual - expected.value).abs() > tolerance) & tolerance.isfinite()
        lost = ~manual.isfinite() & expected.safe & self.sides.fits[name]
        if with_digits:
            lost = lost & expected.decided
        return (beyond & expected.value.isfinite()) | lost

    def evidence(self, name: str, *, with_digits: bool = False) -> Evidence:
        """Everything known about one wrong quantity."""
        manual = Side(self.sides.manual[name], self.sides.manual_side[name].bound)
        expected = self.side(name)
        larger = torch.maximum(manual.value.abs(), expected.value.abs())
        digits = expected.decided & (manual.bound <= larger / 2)
        return Evidence(
            name=name,
            manual=manual,
            expected=expected,
            decided=digits | self._wrong(name, with_digits),
            values=self._values(),
            gradients={
                other: Side(value, self.sides.manual_side[other].bound)
                for other, value in self.sides.manual.items()
            },
            paths=self._paths(name),
        )

    def _values(self) -> dict[str, Side]:
        """Inputs and intermediates, with the rounding of the forward pass."""
        wide = widened(self.batch.inputs)

        def forward(values: Values) -> Values:
            with torch.no_grad():
                found = self.recorder.twin.reference(values)
            return {name: value for name, value in found.items() if name != "loss"}

        exact = {
            name: Side(value, torch.zeros_like(value, dtype=torch.float64))
            for name, value in wide.items()
        }
        if not forward(dict(wide)):
            return exact
        key = ("forward", layout(wide))
        if key not in self.graphs:
            self.graphs[key] = record(forward, wide, may_decide=True)
        walked = walk(self.graphs[key], wide, self.arithmetic)
        return {**exact, **{n: Side(v, walked.bounds[n]) for n, v in walked.values.items()}}

    def _paths(self, name: str) -> dict[str, Side]:
        """What arrives through each quantity that uses this one, and from the loss itself."""
        sources = [*(other for other in self.sides.manual if other != name), "loss"]
        paths = {}
        for source in sources:
            walked = self._walked_with(source)
            if bool((walked.values[name] != 0).any()):
                paths[source] = Side(walked.values[name], walked.bounds[name])
        return paths

    def _walked_with(self, source: str) -> Walked:
        """Everything that arrives from one source; kept, since every quantity asks for it."""
        if source not in self.arrived:
            self.arrived[source] = walk(
                self.graph, self._only(source), self.arithmetic, bounds=self.bounds
            )
        return self.arrived[source]

    def _only(self, source: str) -> Values:
        """The graph's inputs with every gradient but one put to 0."""
        kept = _UPSTREAM if source == "loss" else _key(source)
        gradients = {_UPSTREAM, *map(_key, self.sides.manual)}
        return {
            name: copy_of(value, torch.zeros_like) if name in gradients and name != kept else value
            for name, value in self.inputs.items()
        }


def _key(name: str) -> str:
    return f"the hand's dL/d{name}"


def _with_given(twin: Twin, names: tuple[str, ...]) -> Callable[[Values], Values]:
    def gradients(values: Values) -> Values:
        given = {name: values.pop(_key(name)) for name in names}
        return gradients_by_autograd(
            twin.reference, values, names, given, upstream=values.pop(_UPSTREAM)
        )

    return gradients
