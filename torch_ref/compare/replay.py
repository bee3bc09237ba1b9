"""One case again, every number of it: what `gradtwin replay SEED:INDEX` shows."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_ref.compare.cases import Batch, Cases, widened
from torch_ref.compare.sides import Recorder
from torch_ref.compare.twin import Twin, Values
from torch_ref.compare.verdict import Side, judge
from torch_ref.compare.verify import as_device, as_dtype, check_arguments


@dataclass(frozen=True)
class Line:
    """One number of a case: a value (no tolerance, no verdict) or an element of a gradient."""

    name: str
    manual: float | None
    reference: float | None
    tolerance: float | None = None
    verdict: str = ""


def replay(
    twin: Twin,
    seed: int,
    index: int,
    *,
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = "cpu",
    manual_values: Callable[[Values], Values] | None = None,
) -> list[Line]:
    """Case `index` of `seed`: inputs and intermediates forward, then gradients backward.

    Tensors with several numbers give a line each, named like "w[0, 2]".
    manual_values: the manual side's forward values by name, where it can give them.
    Raises ValueError for bad arguments, and TwinError as `verify` does.
    """
    check_arguments(twin, None, seed)
    if not 0 <= index < 2**64:
        raise ValueError(f"index must be from 0 to 2^64 - 1; got {index!r}.")
    dtype = as_dtype(dtype)
    batch = Cases(twin, dtype, as_device(device), seed).case(index)
    by_hand = {**batch.inputs, **(manual_values(batch.inputs) if manual_values else {})}
    wide = widened(batch.inputs)
    with torch.no_grad():
        values = {**wide, **twin.reference(dict(wide))}
    lines = [
        Line(f"{name}{place}", _number(by_hand.get(name), at), _number(value, at))
        for name, value in values.items()
        for place, at in _places(value, batch.batched)
    ]
    return lines + _gradient_lines(twin, batch, dtype)


def _gradient_lines(twin: Twin, batch: Batch, dtype: torch.dtype) -> list[Line]:
    sides = Recorder(twin, dtype).sides(batch)
    lines = []
    for name, given in sides.manual.items():
        three = (sides.manual_side[name], sides.reference[name], sides.reference_in_dtype[name])
        for place, at in _places(given, batch.batched):
            one = (Side(side.value[at].reshape(1), side.bound[at].reshape(1)) for side in three)
            fits = sides.fits[name][at].reshape(1)
            row = judge(name, given[at].reshape(1), *one, fits=fits).row()
            lines.append(
                Line(f"dL/d{name}{place}", row.manual, row.reference, row.tolerance, row.verdict)
            )
    return lines


def _number(value: Tensor | None, at: tuple[int, ...]) -> float | None:
    return None if value is None else float(value[at])


def _places(value: Tensor, batched: bool) -> list[tuple[str, tuple[int, ...]]]:
    """Every element of the case: its place as a reader writes it, "[0, 2]", and as torch does."""
    lead = (0,) if batched and value.ndim else ()
    places = itertools.product(*map(range, value.shape[len(lead) :]))
    return [(str(list(at)) if at else "", (*lead, *at)) for at in places]
