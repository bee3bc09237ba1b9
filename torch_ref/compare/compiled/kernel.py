"""The compiled formulas: a batch's numbers in, a tally of each quantity out."""

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from torch_ref.compare.compiled.emit import FLAGS, source
from torch_ref.compare.compiled.formulas import SUMS, Formulas, columns
from torch_ref.compare.histogram import BINS, WITHIN
from torch_ref.compare.pooled import Pool
from torch_ref.compare.sides.answers import Answers
from torch_ref.compare.verdict import Tally, place_of
from torch_ref.native.compiler import library


@dataclass(frozen=True, eq=False)
class Kernel:
    """run: the function of this name in `c_driver`."""

    formulas: Formulas
    run: Callable[..., int]

    def __call__(self, answers: Answers, first_case: str) -> tuple[list[Tally], int] | None:
        """What judging the batch gives, and how many cases are at kinks; None where only the plain
        way can judge it, where something in it is wrong, and without memory for a block of cases.

        Raises ValueError for cases of other shapes than those that the formulas were made of.
        """
        names, quantities = self.formulas.names, len(self.formulas.names)
        rows = columns(answers, names)
        if len(rows) != len(self.formulas.arguments):
            raise ValueError("These cases are of other shapes than those that were compiled.")
        pointers = (ctypes.c_void_p * len(rows))(*(row.data_ptr() for row in rows))
        sums = np.zeros(len(self.formulas.sums) + 1)
        counts = np.zeros((quantities, WITHIN + 1), np.int64)
        digits = np.zeros((quantities, 2))
        worst, places = np.zeros((quantities, 4)), np.zeros(quantities, np.int64)
        out = (array.ctypes.data for array in (sums, counts, digits, worst, places))
        cases = len(rows[0])
        if self.run(cases, pointers, *out):
            return None
        *of_quantities, kinks, only_plainly = sums.tolist()
        if only_plainly or (worst[:, 0] > 1).any():
            return None
        tallies = [
            self._tally(
                quantity, cases, first_case, of_quantities[SUMS * quantity : SUMS * (quantity + 1)],
                counts[quantity].tolist(), digits[quantity].tolist(), worst[quantity].tolist(),
                int(places[quantity]),
            )
            for quantity in range(quantities)
        ]  # fmt: skip
        return tallies, int(kinks)

    def _tally(
        self, quantity: int, cases: int, first_case: str, sums: list[float], counts: list[int],
        digits: list[float], worst: list[float], place: int,
    ) -> Tally:  # fmt: skip
        shape = self.formulas.shapes[quantity]
        signed, squares, spread, pooled, deviations = sums
        by_hand, by_autograd = digits
        ratio, *numbers = worst
        within, decided = counts[:-1], counts[-1]
        ends = [0, *within, *[decided] * (BINS - WITHIN)]
        where = place_of(place, shape, first_case, batched=True)
        return Tally(
            name=self.formulas.names[quantity],
            elements=cases * math.prod(shape),
            decided=decided,
            worst_ratio=ratio,
            worst={
                **where,
                **dict(zip(("manual", "reference", "tolerance"), numbers, strict=True)),
            },
            digits_manual=by_hand,
            digits_reference=by_autograd,
            pool=Pool(signed, squares, spread, int(pooled), deviations),
            histogram=tuple(after - before for before, after in pairwise(ends)),
        )


def compiled(formulas: Formulas) -> Kernel:
    """The formulas as code in memory. Raises NoCompilerError."""
    run = library(source(formulas), FLAGS).run
    run.argtypes = (ctypes.c_int64, *[ctypes.c_void_p] * 6)
    return Kernel(formulas, run)
