"""verify: draw, run both sides, bound both, judge; shard after shard, in constant memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from torch_ref.compare.contract import check_answer, run_manual
from torch_ref.compare.reference import record, reference_gradients, same_answers
from torch_ref.compare.rounding import Arithmetic, Walked, walk
from torch_ref.compare.twin import SHARD, Twin, Values, draw_shard
from torch_ref.compare.verdict import Report, Side, Tally, judge

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def verify(
    twin: Twin,
    *,
    cases: int = 100_000,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Judge the twin's manual backward pass against its reference on random cases.

    The manual side runs in `dtype` (float64, float32, bfloat16 or float16) on `device`; the
    reference runs in float64 on the same numbers. `progress` is called with the number of cases
    done after each shard. Raises ValueError for bad arguments.
    """
    if isinstance(cases, bool) or not isinstance(cases, int) or cases < 1:
        raise ValueError(f"cases must be a positive whole number; got {cases!r}.")
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype}.")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be a whole number from 0 to 2^64 - 1; got {seed}.")
    judging = _Judge(twin, dtype, torch.device(device), seed)
    for shard in range(-(-cases // SHARD)):
        count = min(SHARD, cases - shard * SHARD)
        judging.shard(shard, count)
        if progress:
            progress(shard * SHARD + count)
    return judging.report(cases)


def verify_inputs(twin: Twin, inputs: Values, *, seed: int = 0, index: int = 0) -> Report:
    """Judge the twin on these inputs, which are cases `index` and following of `seed`."""
    like = next(value for value in inputs.values() if value.is_floating_point())
    judging = _Judge(twin, like.dtype, like.device, seed)
    judging.judge(inputs, index)
    return judging.report(len(like))


@dataclass(frozen=True)
class _Graphs:
    """Both sides recorded for one shape of inputs; the manual one is None if it cannot be."""

    reference: GraphModule
    manual: GraphModule | None


class _Judge:
    def __init__(self, twin: Twin, dtype: torch.dtype, device: torch.device, seed: int) -> None:
        self.twin, self.dtype, self.device, self.seed = twin, dtype, device, seed
        self.graphs: dict[tuple[int, tuple[str, ...]], _Graphs] = {}
        self.tallies: dict[str, Tally] = {}
        self.failures: dict[str, None] = {}
        self.notes: dict[str, None] = {}

    def shard(self, shard: int, count: int) -> None:
        drawn = draw_shard(self.twin, self.seed, shard, self.dtype, self.device)
        self.judge({name: value[:count] for name, value in drawn.items()}, shard * SHARD)

    def judge(self, inputs: Values, first: int) -> None:
        wide = {name: _widen(value) for name, value in inputs.items()}
        answer, breaches = run_manual(self.twin, inputs)
        known = reference_gradients(self.twin.reference, wide)
        problems = check_answer(answer, known, inputs)
        self.failures |= dict.fromkeys([*breaches, *problems.values()])
        names = tuple(name for name in answer if name not in problems)
        if not names:
            return
        graphs = self.recorded(wide, names, known)
        wide_arithmetic = Arithmetic.of(torch.float64)
        narrow_arithmetic = Arithmetic.of(self.dtype)
        reference = walk(graphs.reference, wide, wide_arithmetic)
        reference_narrow = (
            reference
            if self.dtype == torch.float64
            else walk(graphs.reference, wide, narrow_arithmetic)
        )
        manual = walk(graphs.manual, wide, narrow_arithmetic) if graphs.manual else None
        if manual is not None and manual.unbounded:
            self.note_granted(f"it uses {', '.join(sorted(manual.unbounded))}, without a rule")
            manual = None
        self.note_unbounded(reference)
        most = -math.log10(narrow_arithmetic.unit_roundoff)
        for name in names:
            given = answer[name].double()
            if manual is not None:
                manual_side = Side(manual.values[name], manual.bounds[name])
            else:
                manual_side = Side(given, reference_narrow.bounds[name])
            reference_side = Side(reference.values[name], reference.bounds[name])
            in_dtype = Side(reference_narrow.values[name], reference_narrow.bounds[name])
            tally = judge(
                name, given, manual_side, reference_side, in_dtype,
                first_case=f"{self.seed}:{first}", most_digits=most,
            )  # fmt: skip
            before = self.tallies.get(name)
            self.tallies[name] = before + tally if before else tally

    def report(self, cases: int) -> Report:
        return Report(
            twin=self.twin.name,
            cases=cases,
            dtype=str(self.dtype).removeprefix("torch."),
            device=str(self.device),
            seed=self.seed,
            rows=tuple(tally.row() for tally in self.tallies.values()),
            failures=tuple(self.failures),
            notes=tuple(self.notes),
        )

    def recorded(self, wide: Values, names: tuple[str, ...], known: Values) -> _Graphs:
        """Both graphs, recorded on other numbers, so that one that depends on its data shows."""
        count = len(next(iter(wide.values())))
        if (count, names) not in self.graphs:
            example = {name: value.flip(0) for name, value in wide.items()}
            reference = record(
                lambda values: reference_gradients(self.twin.reference, values, names), example
            )
            wanted = {name: known[name] for name in names}
            if not same_answers(reference(wide), wanted):
                raise ValueError(
                    f"The reference of {self.twin.name} takes other operations for other numbers: "
                    "it cannot be recorded as one graph. Use torch.where instead of if."
                )
            self.graphs[count, names] = _Graphs(
                reference, self.recorded_manual(example, wide, names)
            )
        return self.graphs[count, names]

    def recorded_manual(
        self, example: Values, wide: Values, names: tuple[str, ...]
    ) -> GraphModule | None:
        """The manual side's graph in float64, or None where that is not all it does."""

        def manual(values: Values) -> Values:
            answer = self.twin.manual(values)
            return {name: answer[name] for name in names}

        try:
            graph = record(manual, example)
            faithful = same_answers(graph(wide), manual(dict(wide)))
        except Exception as error:  # anything at all can come out of a stranger's code
            self.note_granted(f"it cannot be recorded: {type(error).__name__}")
            return None
        if faithful:
            return graph
        self.note_granted("it takes other operations for other numbers")
        return None

    def note_granted(self, why: str) -> None:
        self.notes[
            f"The manual side has no rounding bound of its own ({why}): it is granted that of the "
            "reference in its dtype."
        ] = None

    def note_unbounded(self, walked: Walked) -> None:
        for operation in sorted(walked.unbounded):
            self.notes[
                f"The reference uses {operation}, which has no rounding rule: what depends on it "
                "is undecided."
            ] = None


def _widen(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value
