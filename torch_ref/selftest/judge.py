"""Which mutants `verify` calls wrong: each is judged in place of `manual_bp`, in float64."""

from dataclasses import dataclass, replace
from functools import cache

import torch

from torch_ref.compare import Batch, Cases, Twin, TwinError
from torch_ref.compare.graphs.known import Graphs
from torch_ref.compare.judge import Judge
from torch_ref.selftest.mutate import Mutant, original
from torch_ref.selftest.twins import MakeTwin, Values, as_numpy_runs, mean_twin, twins_for

# Most mutants are wrong nearly everywhere. So many cases show it, as NumPy runs them: no graph is
# recorded then, which takes most of the time. All cases are spent on the others, on torch.
FEW = 96
BATCHES = 12  # of the twin whose case is a whole batch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Catch:
    """What gave a mutant away.

    by: the twin that did; first_wrong: the quantity it named (None where the mutant raised an
    error, or broke the contract otherwise); reason: in words.
    """

    by: str
    first_wrong: str | None
    reason: str


def judge(mutant: Mutant, cases: int) -> Catch | None:
    """How the mutant is caught on `cases` cases of each twin that sees it; None if it is not."""
    names = mutant.namespace()
    for make in twins_for(mutant.function):
        for batch in _batches(make, cases):
            on_numpy = batch.batched and batch.count <= FEW
            catch = _catch(make, as_numpy_runs(make(names)) if on_numpy else make(names), batch)
            if catch:
                return catch
    return None


@cache
def _batches(make: MakeTwin, cases: int) -> tuple[Batch, ...]:
    """The cases, the same for every mutant: a few first, then all."""
    drawn = Cases(make(original("_backward").namespace()), torch.float64, CPU, 0)
    counts = (BATCHES,) if make is mean_twin else (FEW, max(cases, FEW + 1))
    return tuple(batch for count in counts for batch in drawn.batches(count))


def _catch(make: MakeTwin, twin: Twin, batch: Batch) -> Catch | None:
    raised: list[Exception] = []

    def manual(values: Values) -> Values:
        try:
            return twin.manual(values)
        except Exception as error:  # a mutant can raise anything at all
            raised.append(error)
            raise

    judging = Judge(replace(twin, manual=manual), torch.float64, CPU, 0)
    # the reference is the same for every mutant: recording it once saves half of the time
    judging.recorder.share_graphs(reference=_reference_graphs(make), manual=Graphs())
    try:
        judging.judge(batch)
    except TwinError:
        if not raised:
            raise
        return Catch(twin.name, None, f"raises {type(raised[0]).__name__}")
    report = judging.report(batch.count, explain=False)
    if report.verdict != "differ":
        return None
    reason = report.failures[0] if report.failures else "differs by more than rounding"
    return Catch(twin.name, report.first_wrong, reason)


@cache
def _reference_graphs(make: MakeTwin) -> Graphs:
    return Graphs()
