"""Both sides of a twin on one batch: what each gives, and how far rounding may have moved it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from torch_ref.compare.cases import Batch, widened
from torch_ref.compare.contract import Saying, as_tensors, check_answer, run_manual, told
from torch_ref.compare.faithful import faithful, is_off, other_numbers, unfaithful
from torch_ref.compare.graphs import Graphs
from torch_ref.compare.layout import copy_of
from torch_ref.compare.noise import scattered
from torch_ref.compare.pooled import Pool
from torch_ref.compare.recording import LooksAtNumbersError, Recorded
from torch_ref.compare.reference import gradients_by_autograd, record, record_in, unused
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.rounding.looks import Looks
from torch_ref.compare.rounding.walk import LOOKING
from torch_ref.compare.said import Said
from torch_ref.compare.taken_apart import LeavesTorchError
from torch_ref.compare.twin import Twin, TwinError, Values
from torch_ref.compare.verdict import Side

FLOAT64 = Arithmetic.of(torch.float64)
# An overflow that the reference misses by less than this factor is no mistake: a sum of a few terms
# overflows in one order and not in another.
ROOM = 16
# A reference of whose numbers fewer are off is taken as recorded, but for these.
FEW_OFF = 0.5
# ... and what is off in so many cases is undecided.
MANY_OFF = 0.25
# A hand that cannot be seen may round more often than the reference does: NumPy's x * (1 / s)
# twice, and x / s once.
GRANTED = 4
SINGULAR = (torch.linalg.LinAlgError, np.linalg.LinAlgError)  # type: ignore[attr-defined]
NO_FLOAT32 = "it does not go on in float32, or cannot be recorded in the dtype under test"
BY_NUMBERS = "it does other things for other numbers, or leaves torch"


@dataclass(frozen=True)
class Sides:
    """What the two sides gave on a batch, by name of the quantity; all in float64.

    manual: the hand's numbers, computed in the dtype under test.
    manual_side: the hand's formulas in float64 and their bound in the dtype.
    reference, reference_in_dtype: autograd's numbers and their bound in float64, and with the
        dtype's overflow and bound.
    fits: where the reference's formulas do well in the dtype, with room for a factor ROOM.
    """

    manual: Values
    manual_side: dict[str, Side]
    reference: dict[str, Side]
    reference_in_dtype: dict[str, Side]
    fits: Values
    kinks: Tensor | None


@dataclass(frozen=True)
class Answers:
    """What both sides say to a batch as they are, before any graph is walked; by name.

    wide: the inputs in float64. answer: the hand's where it can be compared, in the dtype under
        test; expected: in float64, None where it fails there. known: autograd's, in float64.
    order, problems, failures, notes: all that the hand gave, why some of it cannot be compared,
        what is wrong with how it came about, and what is worth saying.
    """

    wide: Values
    answer: Values
    expected: Values | None
    known: Values
    order: tuple[str, ...]
    problems: dict[str, str]
    failures: list[str]
    notes: list[str]


@dataclass
class Recorder:
    """Runs and records both sides, and keeps the graphs of shapes it has met.

    said: what there is to say about the twin.
    branches: whether the reference was seen to take other operations for other numbers.
    """

    twin: Twin
    dtype: torch.dtype
    said: Said = field(default_factory=Said)
    branches: bool = False
    _missing_said: bool = False
    _reference: Graphs = field(default_factory=Graphs)
    _manual: Graphs = field(default_factory=Graphs)
    _in_dtype: Graphs = field(default_factory=Graphs)  # of the hand, in the dtype under test
    _seen: int = 0
    _off: Counter[str] = field(default_factory=Counter)  # in how many cases a good part of it was

    def share_graphs(self, reference: Graphs, manual: Graphs) -> None:
        """Keep graphs in these from now on: they are the same for every seed and dtype."""
        self._reference, self._manual = reference, manual

    def forget(self) -> None:
        """Begin anew, with nothing left over but graphs: what was said, and that the numbers of a
        batch decided what the manual side does, which those of another may not."""
        self.said.clear()
        self._seen = 0
        self._off.clear()
        self._manual.forget(BY_NUMBERS)

    def for_dtype(self, dtype: torch.dtype) -> "Recorder":
        """One of the same twin that shares the graphs."""
        other = Recorder(self.twin, dtype)
        other.share_graphs(self._reference, self._manual)
        return other

    def sides(self, batch: Batch) -> Sides:
        """Both sides on a batch; quantities that cannot be compared are left out, and said."""
        answers = self.answers(batch)
        self.take(answers)
        return self._bounded(batch, answers)

    def answers(self, batch: Batch) -> Answers:
        """Both sides' numbers."""
        inputs, wide = batch.inputs, widened(batch.inputs)
        answer, breaches, notes = run_manual(self.twin, inputs, thoroughly=batch.thoroughly)
        known = self._by_autograd(wide)
        problems = check_answer(answer, known, inputs)
        fit = {name: value for name, value in answer.items() if name not in problems}
        expected = fit if self.dtype == torch.float64 else self._expected(wide, tuple(fit))
        notes, breaches = [*notes, *self.twin.notes()], [*breaches, *self.twin.failures()]
        return Answers(wide, fit, expected, known, tuple(answer), problems, breaches, notes)

    def _by_autograd(self, wide: Values) -> Values:
        with Saying(self.twin.name, "reference, or autograd through it,"):
            return gradients_by_autograd(self.twin.reference, wide)

    def take(self, answers: Answers) -> None:
        """Keep what there is to say about a batch's answers."""
        self.said.say(
            failures=[*answers.failures, *answers.problems.values()],
            order=answers.order,
            refused=[name for name in answers.problems if name in answers.known],
            notes=answers.notes,
        )
        self._say_what_is_missing(answers)

    def _bounded(self, batch: Batch, answers: Answers) -> Sides:
        """Both sides' bounds; the graphs are recorded where they are not yet."""
        wide, answer, known = answers.wide, answers.answer, answers.known
        names = tuple(answer)
        if not names:
            return Sides({}, {}, {}, {}, {}, None)
        cases = batch.count if batch.batched else None
        try:
            reference, in_dtype = self._walk_reference(batch, wide, names, known, cases)
        except (torch.OutOfMemoryError, TwinError):
            raise
        except Exception as error:  # a rule met what it does not know
            raise TwinError(
                f"{self.twin.name}: the reference's rounding cannot be bounded ({told(error)}): "
                "write it in simpler operations."
            ) from error
        given = {name: answer[name].double() for name in names}
        narrow = {n: Side(in_dtype.values[n], in_dtype.bounds[n]) for n in names}
        fits = {name: side.decided for name, side in narrow.items()}
        if not all(bool(value.isfinite().all()) for value in given.values()):
            arithmetic, graph = Arithmetic.of(self.dtype), self._reference_for(names, wide)
            fits = with_room(graph, wide, reference.values, arithmetic)
        manual = self._walk_manual(batch, wide, names, cases, answers.expected)
        if manual is None or manual.unbounded:
            sizes = {name: value.abs() for name, value in wide.items() if value.is_floating_point()}
            if manual:  # LAPACK's errors go by a matrix's norm
                sizes = {name: in_case(size, batch.batched) for name, size in sizes.items()}
            bounds = self._granted(wide, sizes, names, cases, in_dtype)
            if manual:
                bounds = {name: in_case(bounds[name], batch.batched) for name in names}
            elif answers.expected and _are_off(given, reference, bounds):
                bounds = self._by_noise(wide, answers.expected, bounds)
            values = manual.values if manual else given
        else:
            values, bounds = manual.values, manual.bounds
        return Sides(
            given,
            {name: Side(values[name], bounds[name]) for name in names},
            {name: Side(reference.values[name], reference.bounds[name]) for name in names},
            narrow,
            fits,
            in_dtype.kinks,
        )

    def _walk_reference(
        self, batch: Batch, wide: Values, names: tuple[str, ...], known: Values, cases: int | None
    ) -> tuple[Walked, Walked]:
        def gradients(values: Values) -> Values:
            return gradients_by_autograd(self.twin.reference, values, names)

        self._seen += 1
        if not self._reference.find(names, wide):
            try:
                graph = self._recorded(gradients, other_numbers(batch, wide))
            except TwinError as error:
                if not isinstance(error.__cause__, SINGULAR):
                    raise
                graph = self._recorded(gradients, wide)  # whose matrices are not
            self._reference.keep(names, wide, graph)
        walked = _walked(self._reference_for(names, wide), wide, cases)
        if not (walked and faithful(walked, known)):  # it branches: record it on these numbers
            self.branches = True
            self._reference.keep(names, wide, self._recorded(gradients, wide))
            walked = walk(self._reference_for(names, wide), wide, FLOAT64, cases=cases)
            for name in unfaithful(walked, known):
                self._open(name, walked, known[name])
        if walked.unbounded:
            self.said.say(
                unbounded=[n for n in names if _is_open(walked.values[n], walked.bounds[n])]
            )
        self._say_narrow("The reference", walked)
        for operation in sorted(walked.unbounded):
            self.said.note(
                f"The reference uses {operation}, which has no rounding rule: what depends on it "
                "is undecided. Write it out in simpler operations, or add a rule (CONTRIBUTING)."
            )
        if self.dtype == torch.float64:
            return walked, walked
        narrow = walk(
            self._reference_for(names, wide), wide, Arithmetic.of(self.dtype), cases=cases
        )
        return walked, narrow

    def _granted(
        self,
        wide: Values,
        sizes: Values,
        names: tuple[str, ...],
        cases: int | None,
        in_dtype: Walked,
    ) -> Values:
        """What is granted to a hand that cannot be seen, which may be another formula: GRANTED
        times the bound on the reference where its inputs are off by a rounding of these sizes each,
        as they may be for a backward stable hand (Higham 2002, section 1.5). At a kink they are as
        they are.
        """
        arithmetic = Arithmetic.of(self.dtype)
        rounded = {name: arithmetic.unit_roundoff * size for name, size in sizes.items()}
        graph = self._reference_for(names, wide)
        bounds = walk(graph, wide, arithmetic, bounds=rounded, cases=cases).bounds
        if in_dtype.kinks is not None:
            bounds = {
                name: torch.where(_by_case(in_dtype.kinks, bound), in_dtype.bounds[name], bound)
                for name, bound in bounds.items()
            }
        return {name: GRANTED * bound for name, bound in bounds.items()}

    def _by_noise(self, wide: Values, expected: Values, granted: Values) -> Values:
        """What is granted to a hand that loses more digits than that: as far as random errors in
        its operations move it, where they can be put in."""
        hand = partial(self.by_hand, names=tuple(granted))
        unit_roundoff = Arithmetic.of(self.dtype).unit_roundoff
        try:
            found = scattered(lambda: hand(_copies(wide)), expected, unit_roundoff)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # anything at all can come out of a stranger's code
            return granted
        bounds = {name: torch.maximum(bound, found[name]) for name, bound in granted.items()}
        if any(bool((bounds[name] > bound).any()) for name, bound in granted.items()):
            self.said.note(
                "The manual side loses more digits in places than a backward stable formula does: "
                "there it is granted what random errors in its NumPy operations move it by."
            )
        return bounds

    def _open(self, name: str, walked: Walked, known: Tensor) -> None:
        """Leave undecided where torch's own kernels give other numbers than what was recorded; all
        of a quantity, where these are a good part of it, and the quantity, where that is often."""
        off = is_off(walked.values[name], known, walked.bounds[name])
        few = float(off.double().mean()) < FEW_OFF
        walked.bounds[name] = torch.where(off | (not few), torch.inf, walked.bounds[name])
        self._off[name] += not few
        if self._off[name] > max(1, MANY_OFF * self._seen):
            self.said.say(unbounded=[name])
        self.said.note(
            f"In some cases the operations that the reference is recorded as give another "
            f"dL/d{name} than torch's own kernels, which lose digits or go by how tensors lie in "
            "memory, or it looks at its numbers: these are undecided. Where that is most of them, "
            "write it out in simpler operations."
        )

    def pulls_of_constants(self, batch: Batch) -> dict[str, float]:
        """The estimate of `pooled` on a batch if numbers written in the code move each quantity as
        far up as they can; of no quantity where those of the hand cannot be seen."""
        sides, wide = self.sides(batch), widened(batch.inputs)
        names = tuple(sides.manual)
        graph = self._manual.find(names, wide)
        if not isinstance(graph, Recorded):
            return {}
        arithmetic = Arithmetic.of(self.dtype)
        by_hand = walk(graph, wide, arithmetic.of_constants_only()).bounds
        reference = self._reference_for(names, wide)
        by_autograd = walk(reference, wide, FLOAT64.of_constants_only()).bounds
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

    def _reference_for(self, names: tuple[str, ...], wide: Values) -> Recorded:
        graph = self._reference.find(names, wide)
        assert isinstance(graph, Recorded)  # it was walked before
        return graph

    def _recorded(self, gradients: Callable[[Values], Values], wide: Values) -> Recorded:
        try:
            graph = record(gradients, wide, may_decide=True)
        except (torch.OutOfMemoryError, TwinError):
            raise
        except Exception as error:  # anything at all can come out of a stranger's code
            raise TwinError(
                f"{self.twin.name}: the reference cannot be recorded as one graph "
                f"({_why_not_recorded(error)}): write it in simpler operations."
            ) from error
        self.branches |= graph.decided or graph.counted
        if graph.decided:
            self.said.note(
                "The reference asks what is true of its numbers (if, assert): where rounding could "
                "turn the answer, that is not seen."
            )
        return graph

    def _walk_manual(
        self,
        batch: Batch,
        wide: Values,
        names: tuple[str, ...],
        cases: int | None,
        expected: Values | None,
    ) -> Walked | None:
        """The manual side's bounds, or None where it is granted those of the reference."""
        try:
            graph = self._manual.find(names, wide)
            if graph is None:
                by_hand = partial(self.by_hand, names=names)
                try:
                    graph = record(by_hand, other_numbers(batch, wide))
                except SINGULAR:
                    graph = record(by_hand, wide)
                self._manual.keep(names, wide, graph)
            if isinstance(graph, str):
                self._grant(graph)
                return None
            expected = expected or self.by_hand(_copies(wide), names)  # which then says why
            walked = self._walk_in_dtype(names, batch, wide, cases, expected)
            if walked is None:
                walked = walk(graph, wide, Arithmetic.of(self.dtype), cases=cases)
                if not self._runs_as_recorded(graph, walked, wide, expected):
                    self._manual.keep(names, wide, BY_NUMBERS)
                    self._grant(BY_NUMBERS)
                    return None
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # anything at all can come out of a stranger's code
            why = f"it cannot be recorded: {_why_not_recorded(error)}"
            self._manual.keep(names, wide, why)
            self._grant(why)
            return None
        self._say_narrow("The manual side", walked)
        if walked.unbounded:
            self._grant(f"it uses {', '.join(sorted(walked.unbounded))}, without a rule")
        return walked

    def _walk_in_dtype(
        self,
        names: tuple[str, ...],
        batch: Batch,
        wide: Values,
        cases: int | None,
        expected: Values,
    ) -> Walked | None:
        """The bounds of what the hand does in the dtype under test, where it goes on in float32
        there, as kernels do for bfloat16; it may not in float64."""
        if self.dtype in (torch.float32, torch.float64):
            return None
        try:
            graph = self._in_dtype.find(names, wide)
            if graph is None:
                by_hand = partial(self.by_hand, names=names)
                graph = record_in(self.dtype, by_hand, other_numbers(batch, wide)) or NO_FLOAT32
                self._in_dtype.keep(names, wide, graph)
            if isinstance(graph, str):
                return None
            walked = walk(graph, wide, Arithmetic.of(self.dtype), cases=cases)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # anything at all can come out of a stranger's code
            self._in_dtype.keep(names, wide, NO_FLOAT32)
            return None
        return walked if self._runs_as_recorded(graph, walked, wide, expected) else None

    def by_hand(self, values: Values, names: tuple[str, ...]) -> Values:
        """What the hand gives for these quantities."""
        answer = as_tensors(self.twin.manual(values), values)
        return {name: answer[name] for name in names}

    def _expected(self, wide: Values, names: tuple[str, ...]) -> Values | None:
        try:
            return self.by_hand(_copies(wide), names)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # anything at all can come out of a stranger's code
            return None

    def _runs_as_recorded(
        self, graph: Recorded, walked: Walked, wide: Values, expected: Values
    ) -> bool:
        """Whether the graph gives what the hand gives; a walk that overflows, as the dtype under
        test does, is no witness against it: one in float64 is."""
        if faithful(walked, expected):
            return True
        return self.dtype != torch.float64 and faithful(walk(graph, wide, FLOAT64), expected)

    def _say_what_is_missing(self, answers: Answers) -> None:
        wanted = [name for name in answers.wide if name in answers.known]
        self.said.say(missing=[name for name in wanted if name not in answers.order])
        if self._missing_said:
            return
        self._missing_said = True
        for name in unused(self.twin.reference, answers.wide):
            if name in answers.wide:
                self.said.note(f"The loss does not depend on {name}, so dL/d{name} is 0.")
                continue
            self.said.note(
                f"The loss does not depend on {name} as the reference returns it, so dL/d{name} is "
                "0: return the very tensor that goes on into the loss."
            )

    def _grant(self, why: str) -> None:
        self.said.note(
            f"The manual side has no rounding bound of its own ({why}): it is granted {GRANTED} "
            "times that of the reference in its dtype, with inputs off by a rounding."
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


def _are_off(given: Values, reference: Walked, bounds: Values) -> bool:
    """Whether a number of the hand's is further off than both bounds allow."""
    return any(
        bool(((given[name] - reference.values[name]).abs() > bound + reference.bounds[name]).any())
        for name, bound in bounds.items()
    )


def _walked(graph: Recorded, wide: Values, cases: int | None) -> Walked | None:
    """The walk in float64; None where these numbers lead to other shapes, as a mask does that
    chooses others."""
    try:
        return walk(graph, wide, FLOAT64, cases=cases)
    except (torch.OutOfMemoryError, TwinError):
        raise
    except Exception:  # or a rule met what it does not know, which the next walk then says
        return None


def with_room(
    graph: Recorded,
    wide: Values,
    reference: Values,
    arithmetic: Arithmetic,
    *,
    looks: Looks = LOOKING,
) -> Values:
    """Where the reference does well in a dtype even if its range were ROOM times smaller.

    graph, reference: the reference's, and what it gives in float64. looks: as of `walk`.
    """
    arithmetic = replace(arithmetic, largest=arithmetic.largest / ROOM)
    walked = walk(graph, wide, arithmetic, looks=looks)
    return {
        name: Side(value, walked.bounds[name]).decided & (value == reference[name])
        for name, value in walked.values.items()
    }


def in_case(bound: Tensor, batched: bool) -> Tensor:
    """The largest finite bound of each case, for operations of whose rounding nothing is known but
    that all numbers may share in it, as in a Fourier transform."""
    if bound.ndim <= batched or not bound.numel():
        return bound
    axes = list(range(int(batched), bound.ndim))
    largest = bound.nan_to_num(nan=0.0, posinf=0.0).amax(axes, keepdim=True)
    return torch.maximum(bound, largest)


def _by_case(kinks: Tensor, bound: Tensor) -> Tensor:
    """Cases, or one in all, in a shape that goes with a bound."""
    return kinks.reshape(-1, *(1,) * (bound.ndim - 1)) if bound.ndim else kinks.any()


def _why_not_recorded(error: Exception) -> str:
    if isinstance(error, LooksAtNumbersError):
        return "it looks at its numbers: use torch.where instead of if, item() or float()"
    return str(error) if isinstance(error, LeavesTorchError) else told(error)


def _is_open(value: Tensor, bound: Tensor) -> bool:
    """Whether a bound is infinite, or most are too large to say anything: what has no rule may have
    decided a mask, so that only zeros are left."""
    infinite = ~bound.isfinite() & value.isfinite()
    return bool(infinite.any() | ((bound > value.abs() / 2).double().mean() > 0.5))


def _copies(values: Values) -> Values:
    return {name: copy_of(value) for name, value in values.items()}
