"""Where in the author's code a wrong gradient is computed: lines that no right one is computed by.

The slice of a result are the operations that it is made of; without those that right results are
made of, too, few are left ("dicing": Lyle and Weiser, Automatic program bug location by program
slicing, 1987). `by_torch` and `by_numpy` find slices; of a hand in whose operations they see
nothing, nothing is said.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path

import torch

from torch_ref.compare.cases import Batch
from torch_ref.compare.lines.by_numpy import slices_by_numpy
from torch_ref.compare.lines.by_torch import slices_by_torch
from torch_ref.compare.lines.slices import Slices, union
from torch_ref.compare.strangers import Line
from torch_ref.compare.twin import Twin

CASES = 2  # of a batched twin; what is done is the same for more


@dataclass(frozen=True)
class Where:
    """Lines as "file.py:12 and 14"; "" where they are not known, or there are none.

    own: of each mistake. shared: of all of them, where there are several; those are not in `own`.
    """

    own: tuple[str, ...]
    shared: str


def lines_of_mistakes(
    twin: Twin, batch: Batch, mistakes: Sequence[str], wrong: Collection[str], order: Sequence[str]
) -> Where:
    """Where the hand computes the mistakes.

    wrong: all quantities that are, by inheritance, too. order: all that the hand gives, in backward
    order: what comes before a mistake is right by itself.
    """
    few = batch.part(0, min(batch.count, CASES)) if batch.batched else batch
    slices = _slices(twin, few, tuple(order))
    found = []
    for mistake in mistakes:
        others = [name for name in order if name not in mistakes]
        before = [name for name in others if name in order[: order.index(mistake)]]
        right = [name for name in others if name in before or name not in wrong]
        # what is right by chance, as a sum in which a mistake cancels, leaves nothing
        own = slices.only_in(mistake, right)
        found.append(own if any(slices.lines_of(own)) else slices.only_in(mistake, before))
    shared = reduce(and_, found) if len(found) > 1 else 0
    told = [listed(slices.lines_of(bits)) for bits in (*(own & ~shared for own in found), shared)]
    return Where(tuple(told[:-1]), told[-1])


def _slices(twin: Twin, batch: Batch, names: tuple[str, ...]) -> Slices:
    for find in (slices_by_torch, slices_by_numpy):
        try:
            slices = find(twin, batch.inputs, names)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # anything at all can come out of a stranger's code
            continue
        if any(slices.lines_of(union(slices.made_of.values()))):
            return slices
    return Slices([], {})


def listed(lines: Iterable[Line]) -> str:
    """ "a.py:3, 5 and 7-9, b.py:2"; of each file its name."""
    files: dict[str, list[int]] = {}
    for file, number in sorted(set(lines)):
        files.setdefault(Path(file).name, []).append(number)
    return ", ".join(f"{file}:{_runs(numbers)}" for file, numbers in files.items())


def _runs(numbers: Sequence[int]) -> str:
    """Those in a row as one: "3, 5 and 7-9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    *first, last = (f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"{', '.join(first)} and {last}" if first else last
