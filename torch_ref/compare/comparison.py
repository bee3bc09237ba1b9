"""Both sides of a batch held against each other, quantity by quantity."""

import math

import torch
from torch import Tensor

from torch_ref.compare.cases import Batch
from torch_ref.compare.rounding import Arithmetic
from torch_ref.compare.sides import Recorder, Sides
from torch_ref.compare.verdict import Compared, compare


def compared(recorder: Recorder, batch: Batch) -> tuple[dict[str, Compared], Tensor | None]:
    """How the two sides compare, by quantity, and which cases lie at kinks."""
    sides = recorder.sides(batch)
    return held_together(sides, recorder.dtype), sides.kinks


def held_together(sides: Sides, dtype: torch.dtype) -> dict[str, Compared]:
    """How the two sides compare in a dtype, by quantity."""
    unit_roundoff = Arithmetic.of(dtype).unit_roundoff
    return {
        name: compare(
            given,
            sides.manual_side[name],
            sides.reference[name],
            sides.reference_in_dtype[name],
            fits=sides.fits[name],
            most_digits=-math.log10(unit_roundoff),
            unit_roundoff=unit_roundoff,
        )
        for name, given in sides.manual.items()
    }
