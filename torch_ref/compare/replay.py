"""One case again, every number of it: what `gradtwin replay SEED:INDEX` shows."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from torch_ref.compare.twin import SHARD, Twin, Values, draw_shard
from torch_ref.compare.verify import verify_inputs


@dataclass(frozen=True)
class Line:
    """One number of a case: a value (no tolerance, no verdict) or a gradient."""

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
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    manual_values: Callable[[Values], Values] | None = None,
) -> list[Line]:
    """Case `index` of `seed`: inputs and intermediates forward, then gradients backward.

    manual_values: the manual side's forward values by name, where it can give them.
    """
    drawn = draw_shard(twin, seed, index // SHARD, dtype, torch.device(device))
    inputs = {name: value[index % SHARD : index % SHARD + 1] for name, value in drawn.items()}
    wide = {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
    by_hand = {**inputs, **(manual_values(inputs) if manual_values else {})}
    with torch.no_grad():
        values = {**wide, **twin.reference(wide)}
    lines = [
        Line(name, by_hand[name].item() if name in by_hand else None, value.item())
        for name, value in values.items()
    ]
    report = verify_inputs(twin, inputs, seed=seed, index=index)
    for row in report.rows:
        lines.append(Line(f"dL/d{row.name}", row.manual, row.reference, row.tolerance, row.verdict))
    return lines
