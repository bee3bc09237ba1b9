"""Both sides run, recorded and bounded, batch after batch, and what there is to say about them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_ref.compare.autograd import unused
from torch_ref.compare.cases import Batch, widened
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.layout import copies_of
from torch_ref.compare.pooled import Pool
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.said import Said
from torch_ref.compare.sides.answers import Answers, answers
from torch_ref.compare.sides.granted import by_noise, by_reference
from torch_ref.compare.sides.hand import gradients_by_hand
from torch_ref.compare.sides.manual import Manual
from torch_ref.compare.sides.reference import FLOAT64, Reference, fits, with_room
from torch_ref.compare.twin import Twin, Values
from torch_ref.compare.verdict import Side


@dataclass(frozen=True)
class Sides:
    """What the two sides gave on a batch, by name of the quantity; all in float64.

    manual: the hand's numbers, computed in the dtype under test.
    manual_side: the hand's formulas in float64 and their bound in the dtype.
    reference, reference_in_dtype: autograd's numbers and their bound in float64, and with the
        dtype's overflow and bound.
    fits: where the reference's formulas are safe in the dtype, with some room.
    """

    manual: Values
    manual_side: dict[str, Side]
    reference: dict[str, Side]
    reference_in_dtype: dict[str, Side]
    fits: Values
    kinks: Tensor | None


class Recorder:
    """Runs and records both sides, and keeps the graphs of shapes it has met.

    said: what there is to say about the twin.
    """

    def __init__(self, twin: Twin, dtype: torch.dtype) -> None:
        self.twin, self.dtype, self.said = twin, dtype, Said()
        self.reference = Reference(twin, dtype, self.said)
        self.manual = Manual(twin, dtype, self.said)
        self._missing_said = False

    def share_graphs(self, reference: Graphs, manual: Graphs) -> None:
        """Keep graphs in these from now on: they are the same for every seed and dtype."""
        self.reference.graphs, self.manual.graphs = reference, manual

    def forget(self) -> None:
        """Begin anew, with nothing left over from other batches but graphs."""
        self.said.clear()
        self.reference.forget()
        self.manual.forget()

    def for_dtype(self, dtype: torch.dtype) -> "Recorder":
        """One of the same twin that shares the graphs."""
        other = Recorder(self.twin, dtype)
        other.share_graphs(self.reference.graphs, self.manual.graphs)
        return other

    def sides(self, batch: Batch) -> Sides:
        """Both sides on a batch; quantities that cannot be compared are left out, and said."""
        found = self.answers(batch)
        self.take(found)
        return self._bounded(batch, found)

    def answers(self, batch: Batch) -> Answers:
        """Both sides' numbers."""
        return answers(self.twin, batch, self.dtype)

    def take(self, found: Answers) -> None:
        """Keep what there is to say about a batch's answers."""
        self.said.say(
            failures=[*found.failures, *found.problems.values()],
            order=found.order,
            refused=[name for name in found.problems if name in found.known],
            notes=found.notes,
        )
        self._say_what_is_missing(found)

    def _bounded(self, batch: Batch, found: Answers) -> Sides:
        """Both sides' bounds; the graphs are recorded where they are not yet."""
        names, wide = tuple(found.answer), found.wide
        if not names:
            return Sides({}, {}, {}, {}, {}, None)
        exact, in_dtype = self.reference.walked(batch, wide, found.known, names)
        self._say_narrow("The reference", exact)
        given = {name: value.double() for name, value in found.answer.items()}
        reference, narrow = _sides(exact), _sides(in_dtype)
        arithmetic = Arithmetic.of(self.dtype)
        well = {name: fits(side, arithmetic) for name, side in narrow.items()}
        if not all(bool(value.isfinite().all()) for value in given.values()):
            graph = self.reference.graph(names, wide)
            well = with_room(graph, wide, exact.values, arithmetic)
        well = {name: well[name] & fits(side, arithmetic) for name, side in reference.items()}
        by_hand = self._by_hand(batch, found, given, exact, in_dtype)
        return Sides(given, by_hand, reference, narrow, well, in_dtype.kinks)

    def _by_hand(
        self, batch: Batch, found: Answers, given: Values, exact: Walked, in_dtype: Walked
    ) -> dict[str, Side]:
        """The hand's side: bounded as it computes, or granted what its reference may be off by."""
        wide, names = found.wide, tuple(given)
        manual = self.manual.walked(batch, wide, found.expected, names)
        if manual:
            self._say_narrow("The manual side", manual)
            if not manual.unbounded:
                return _sides(manual)
        bounds = by_reference(
            self.reference.graph(names, wide), wide, in_dtype, batch, self.dtype,
            by_norm=manual is not None,
        )  # fmt: skip
        if manual:
            return {name: Side(value, bounds[name]) for name, value in manual.values.items()}
        if found.expected and _are_off(given, exact, bounds):
            bounds = self._by_noise(wide, found.expected, bounds)
        return {name: Side(value, bounds[name]) for name, value in given.items()}

    def _by_noise(self, wide: Values, expected: Values, granted: Values) -> Values:
        def hand() -> Values:
            return gradients_by_hand(self.twin, copies_of(wide), tuple(granted))

        bounds = by_noise(hand, expected, granted, self.dtype)
        if bounds is None:
            return granted
        self.said.note(
            "The manual side loses more digits in places than a backward stable formula does: "
            "there it is granted what random errors in its NumPy operations move it by."
        )
        return bounds

    def pulls_of_constants(self, batch: Batch) -> dict[str, float]:
        """The estimate of `pooled` on a batch if numbers written in the code move each quantity as
        far up as they can; of no quantity where those of the hand cannot be seen."""
        sides, wide = self.sides(batch), widened(batch.inputs)
        names = tuple(sides.manual)
        graph = self.manual.graphs.find(names, wide)
        if not isinstance(graph, Recorded):
            return {}
        arithmetic = Arithmetic.of(self.dtype)
        same = _the_same_throughout(batch)
        by_hand = walk(graph, wide, arithmetic.of_constants_only(), constant=same).bounds
        reference = self.reference.graph(names, wide)
        by_autograd = walk(reference, wide, FLOAT64.of_constants_only(), constant=same).bounds
        return {
            name: Pool.of(
                (by_hand[name] + by_autograd[name]) * side.value.sign(),
                side.value,
                sides.manual_side[name].bound + side.bound,
                torch.ones_like(side.value, dtype=torch.bool),
                arithmetic.unit_roundoff,
                batch.batched,
            ).bias
            for name, side in sides.reference.items()
        }

    def _say_what_is_missing(self, found: Answers) -> None:
        wanted = [name for name in found.wide if name in found.known]
        self.said.say(missing=[name for name in wanted if name not in found.order])
        if self._missing_said:
            return
        self._missing_said = True
        for name in unused(self.twin.reference, found.wide):
            if name in found.wide:
                self.said.note(f"The loss does not depend on {name}, so dL/d{name} is 0.")
                continue
            self.said.note(
                f"The loss does not depend on {name} as the reference returns it, so dL/d{name} is "
                "0: return the very tensor that goes on into the loss."
            )

    def _say_narrow(self, side: str, walked: Walked) -> None:
        if walked.narrow:
            dtypes = " and ".join(
                sorted(str(dtype).removeprefix("torch.") for dtype in walked.narrow)
            )
            self.said.note(
                f"{side} computes in {dtypes} on the way, whatever its inputs are: it is judged by "
                f"the rounding of {dtypes}."
            )


def _sides(walked: Walked) -> dict[str, Side]:
    return {name: Side(value, walked.bounds[name]) for name, value in walked.values.items()}


def _the_same_throughout(batch: Batch) -> frozenset[str]:
    """The inputs that may be what numbers in the code are: whole ones, such as a count, and those
    that are equal in all cases."""
    return frozenset(
        name
        for name, value in batch.inputs.items()
        if not value.is_floating_point() or (batch.batched and bool((value == value[:1]).all()))
    )


def _are_off(given: Values, reference: Walked, bounds: Values) -> bool:
    """Whether a number of the hand's is further off than both bounds allow."""
    return any(
        bool(((given[name] - reference.values[name]).abs() > bound + reference.bounds[name]).any())
        for name, bound in bounds.items()
    )
