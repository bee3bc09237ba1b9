"""Both sides of a batch held against each other, quantity by quantity."""

import math

from torch import Tensor

from torch_ref.compare.cases import Batch
from torch_ref.compare.rounding import Arithmetic
from torch_ref.compare.sides import Recorder
from torch_ref.compare.verdict import Compared, compare


def compared(recorder: Recorder, batch: Batch) -> tuple[dict[str, Compared], Tensor | None]:
    """How the two sides compare, by quantity, and which cases lie at kinks."""
    sides = recorder.sides(batch)
    unit_roundoff = Arithmetic.of(recorder.dtype).unit_roundoff
    by_name = {
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
    return by_name, sides.kinks
