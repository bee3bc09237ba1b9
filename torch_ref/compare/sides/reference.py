"""Autograd's side: the graph of the reference and its gradients, and the bounds on it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.cases import Batch
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.graphs.side import record, why_not_recorded
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.rounding.looks import Looks
from torch_ref.compare.rounding.walk import LOOKING
from torch_ref.compare.said import Said
from torch_ref.compare.sides.faithful import faithful, is_off, other_numbers, unfaithful
from torch_ref.compare.strangers import SINGULAR, told
from torch_ref.compare.twin import Twin, TwinError, Values
from torch_ref.compare.verdict import Side

ASKS = (
    "The {} asks what is true of its numbers (if, assert): where rounding could turn the answer, "
    "that is not seen."
)
FLOAT64 = Arithmetic.of(torch.float64)
# An overflow that the reference misses by less than this factor is no mistake: a sum of a few terms
# overflows in one order and not in another.
ROOM = 16
LARGE = 1e30  # float16 ends at 65,504
# A reference of whose numbers fewer are off is taken as recorded, but for these.
FEW_OFF = 0.5
# ... and what is off in so many cases is undecided.
MANY_OFF = 0.25


@dataclass
class Reference:
    """Records and walks the reference, with autograd through it, on batch after batch.

    said: where what there is to say goes. branches: whether it was seen to take other operations
    for other numbers.
    """

    twin: Twin
    dtype: torch.dtype
    said: Said
    graphs: Graphs = field(default_factory=Graphs)
    branches: bool = False
    _batches: int = 0
    _off: Counter[str] = field(default_factory=Counter)  # in how many a good part of it was

    def forget(self) -> None:
        """Begin anew, with nothing left over but graphs."""
        self._batches = 0
        self._off.clear()

    def graph(self, names: tuple[str, ...], wide: Values) -> Recorded:
        """The graph for these quantities, of inputs that it was walked on before."""
        graph = self.graphs.find(names, wide)
        assert isinstance(graph, Recorded)
        return graph

    def walked(
        self, batch: Batch, wide: Values, known: Values, names: tuple[str, ...]
    ) -> tuple[Walked, Walked]:
        """The reference in float64, and as it does in the dtype under test.

        known: its numbers as they are. Raises TwinError where it has no graph.
        """
        try:
            return self._walked(batch, wide, known, names)
        except (torch.OutOfMemoryError, TwinError):
            raise
        except Exception as error:  # a rule met what it does not know
            raise TwinError(
                f"{self.twin.name}: the reference's rounding cannot be bounded ({told(error)}): "
                "write it in simpler operations."
            ) from error

    def _walked(
        self, batch: Batch, wide: Values, known: Values, names: tuple[str, ...]
    ) -> tuple[Walked, Walked]:
        exact = self._in_float64(batch, wide, known, names)
        self._say_unbounded(names, exact)
        if self.dtype == torch.float64:
            return exact, exact
        graph = self.graph(names, wide)
        return exact, walk(graph, wide, Arithmetic.of(self.dtype), cases=batch.cases)

    def _in_float64(
        self, batch: Batch, wide: Values, known: Values, names: tuple[str, ...]
    ) -> Walked:
        def gradients(values: Values) -> Values:
            return gradients_by_autograd(self.twin.reference, values, names)

        self._batches += 1
        if not self.graphs.find(names, wide):
            try:
                graph = self._recorded(gradients, other_numbers(batch, wide))
            except TwinError as error:
                if not isinstance(error.__cause__, SINGULAR):
                    raise
                graph = self._recorded(gradients, wide)  # whose matrices are not
            self.graphs.keep(names, wide, graph)
        walked = _walked_if_it_fits(self.graph(names, wide), wide, batch.cases)
        if walked and faithful(walked, known):
            return walked
        self.branches = True  # record it on these numbers
        self.graphs.keep(names, wide, self._recorded(gradients, wide))
        walked = walk(self.graph(names, wide), wide, FLOAT64, cases=batch.cases)
        for name in unfaithful(walked, known):
            self._open(name, walked, known[name])
        return walked

    def _recorded(self, gradients: Callable[[Values], Values], wide: Values) -> Recorded:
        try:
            graph = record(gradients, wide, may_decide=True)
        except (torch.OutOfMemoryError, TwinError):
            raise
        except Exception as error:  # anything at all can come out of a stranger's code
            raise TwinError(
                f"{self.twin.name}: the reference cannot be recorded as one graph "
                f"({why_not_recorded(error)}): write it in simpler operations."
            ) from error
        self.branches |= graph.decided or graph.counted
        if graph.decided:
            self.said.note(ASKS.format("reference"))
        return graph

    def _open(self, name: str, walked: Walked, known: Tensor) -> None:
        """Leave undecided where torch's own kernels give other numbers than what was recorded; all
        of a quantity, where these are a good part of it, and the quantity, where that is often."""
        off = is_off(walked.values[name], known, walked.bounds[name])
        few = float(off.double().mean()) < FEW_OFF
        walked.bounds[name] = torch.where(off | (not few), torch.inf, walked.bounds[name])
        self._off[name] += not few
        if self._off[name] > max(1, MANY_OFF * self._batches):
            self.said.say(unbounded=[name])
        self.said.note(
            f"In some cases the operations that the reference is recorded as give another "
            f"dL/d{name} than torch's own kernels, which lose digits or go by how tensors lie in "
            "memory, or it looks at its numbers: these are undecided. Where that is most of them, "
            "write it out in simpler operations."
        )

    def _say_unbounded(self, names: tuple[str, ...], walked: Walked) -> None:
        if walked.unbounded:
            self.said.say(
                unbounded=[n for n in names if _is_open(walked.values[n], walked.bounds[n])]
            )
        for operation in sorted(walked.unbounded):
            self.said.note(
                f"The reference uses {operation}, which has no rounding rule: what depends on it "
                "is undecided. Write it out in simpler operations, or add a rule (CONTRIBUTING)."
            )


def _walked_if_it_fits(graph: Recorded, wide: Values, cases: int | None) -> Walked | None:
    """The walk in float64; None where these numbers lead to other shapes, as a mask does that
    chooses others."""
    try:
        return walk(graph, wide, FLOAT64, cases=cases)
    except (torch.OutOfMemoryError, TwinError):
        raise
    except Exception:  # or a rule met what it does not know, which the next walk then says
        return None


def _is_open(value: Tensor, bound: Tensor) -> bool:
    """Whether a bound is infinite, or most are too large to say anything: what has no rule may have
    decided a mask, so that only zeros are left."""
    infinite = ~bound.isfinite() & value.isfinite()
    return bool(infinite.any() | ((bound > value.abs() / 2).double().mean() > 0.5))


def with_room(
    graph: Recorded,
    wide: Values,
    reference: Values,
    arithmetic: Arithmetic,
    *,
    looks: Looks = LOOKING,
) -> Values:
    """Where the reference is safe in a dtype even if its range were ROOM times smaller.

    graph, reference: the reference's, and what it gives in float64. looks: as of `walk`.
    """
    less = replace(arithmetic, largest=arithmetic.largest / ROOM)
    walked = walk(graph, wide, less, looks=looks)
    return {
        name: fits(Side(value, walked.bounds[name]), arithmetic) & (value == reference[name])
        for name, value in walked.values.items()
    }


def fits(reference: Side, arithmetic: Arithmetic) -> Tensor:
    """Where a hand must give a number: where no rounding keeps the reference from doing so.

    In a dtype of small range right hands overflow on the way to what is nearly 0: there it must
    where the reference leaves a digit.
    """
    return reference.safe if arithmetic.largest > LARGE else reference.decided
