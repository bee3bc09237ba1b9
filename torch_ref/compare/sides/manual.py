"""The hand's side: the graph of its formulas, where it has one, and the bounds on it."""

from dataclasses import dataclass, field
from functools import partial

import torch

from torch_ref.compare.cases import Batch
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.graphs.side import record, record_in, why_not_recorded
from torch_ref.compare.layout import copies_of
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.said import Said
from torch_ref.compare.sides.faithful import faithful, other_numbers
from torch_ref.compare.sides.granted import GRANTED
from torch_ref.compare.sides.hand import gradients_by_hand
from torch_ref.compare.sides.reference import ASKS, FLOAT64
from torch_ref.compare.strangers import SINGULAR
from torch_ref.compare.twin import Twin, Values

BY_NUMBERS = "it does other things for other numbers, or leaves torch"
NO_FLOAT32 = "it does not go on in float32, or cannot be recorded in the dtype under test"


@dataclass
class Manual:
    """Records and walks the hand on batch after batch. said: where what there is to say goes."""

    twin: Twin
    dtype: torch.dtype
    said: Said
    graphs: Graphs = field(default_factory=Graphs)
    _in_dtype: Graphs = field(default_factory=Graphs)  # in the dtype under test

    def forget(self) -> None:
        """Forget that the numbers of a batch decided what it does, which those of another may
        not."""
        self.graphs.forget(BY_NUMBERS)

    def walked(
        self, batch: Batch, wide: Values, expected: Values | None, names: tuple[str, ...]
    ) -> Walked | None:
        """The hand's formulas in float64 and their bounds in the dtype under test; None where it
        has no graph, or none that does what it does.

        expected: its numbers in float64, where it does not fail there.
        """
        found = self._walked_or_why_not(batch, wide, expected, names)
        if isinstance(found, str):
            self.graphs.keep(names, wide, found)
            self._grant(found)
            return None
        if found.unbounded:
            self._grant(f"it uses {', '.join(sorted(found.unbounded))}, without a rule")
        return found

    def _walked_or_why_not(
        self, batch: Batch, wide: Values, expected: Values | None, names: tuple[str, ...]
    ) -> Walked | str:
        try:
            graph = self._graph(batch, wide, names)
            if isinstance(graph, str):
                return graph
            if expected is None:  # it fails, which is the reason
                expected = gradients_by_hand(self.twin, copies_of(wide), names)
            walked = self._walked_in_dtype(batch, wide, expected, names)
            walked = walked or self._walked(graph, batch, wide, expected)
            if not walked and graph.decided:  # otherwise for other numbers: as for these
                graph = self._recorded(wide, names)
                self.graphs.keep(names, wide, graph)
                walked = self._walked(graph, batch, wide, expected)
            return walked or BY_NUMBERS
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # anything at all can come out of a stranger's code
            return f"it cannot be recorded: {why_not_recorded(error)}"

    def _graph(self, batch: Batch, wide: Values, names: tuple[str, ...]) -> Recorded | str:
        graph = self.graphs.find(names, wide)
        if graph is None:
            try:
                graph = self._recorded(other_numbers(batch, wide), names)
            except SINGULAR:
                graph = self._recorded(wide, names)
            self.graphs.keep(names, wide, graph)
        return graph

    def _recorded(self, wide: Values, names: tuple[str, ...]) -> Recorded:
        hand = partial(gradients_by_hand, self.twin, names=names)
        graph = record(hand, wide, may_decide=True, stays=True)
        if graph.decided:
            self.said.note(ASKS.format("manual side"))
        return graph

    def _walked(
        self, graph: Recorded, batch: Batch, wide: Values, expected: Values
    ) -> Walked | None:
        walked = walk(graph, wide, Arithmetic.of(self.dtype), cases=batch.cases)
        return walked if self._runs_as_recorded(graph, walked, wide, expected) else None

    def _walked_in_dtype(
        self, batch: Batch, wide: Values, expected: Values, names: tuple[str, ...]
    ) -> Walked | None:
        """The bounds of what the hand does in the dtype under test, where it goes on in float32
        there, as kernels do for bfloat16; it may not in float64."""
        if self.dtype in (torch.float32, torch.float64):
            return None
        try:
            graph = self._in_dtype.find(names, wide)
            if graph is None:
                hand = partial(gradients_by_hand, self.twin, names=names)
                graph = record_in(self.dtype, hand, other_numbers(batch, wide)) or NO_FLOAT32
                self._in_dtype.keep(names, wide, graph)
            if isinstance(graph, str):
                return None
            return self._walked(graph, batch, wide, expected)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # anything at all can come out of a stranger's code
            self._in_dtype.keep(names, wide, NO_FLOAT32)
            return None

    def _runs_as_recorded(
        self, graph: Recorded, walked: Walked, wide: Values, expected: Values
    ) -> bool:
        """Whether the graph gives what the hand gives; a walk that overflows, as the dtype under
        test does, is no witness against it: one in float64 is."""
        if faithful(walked, expected):
            return True
        return self.dtype != torch.float64 and faithful(walk(graph, wide, FLOAT64), expected)

    def _grant(self, why: str) -> None:
        self.said.note(
            f"The manual side has no rounding bound of its own ({why}): it is granted {GRANTED} "
            "times that of the reference in its dtype, with inputs off by a rounding."
        )
