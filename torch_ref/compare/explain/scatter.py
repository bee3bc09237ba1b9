"""Rows that an integer tensor picks, as an embedding does: overwritten where they must add up."""

from collections.abc import Iterator

import torch
from torch import Tensor

from torch_ref.compare.explain.arithmetic import joined
from torch_ref.compare.explain.evidence import Answer, Evidence
from torch_ref.compare.explain.question import Question
from torch_ref.compare.verdict import Side


def overwritten(question: Question) -> Answer | None:
    """Each row has the gradient of the last, or of the first, place that picked it, and no sum."""
    for index in _indices(question):
        for name in question.consumers:
            for which in ("last", "first"):
                parts = [_picked_rows(draw, index, name, which) for draw in question.draws]
                if any(part is None for part in parts):
                    continue
                predicted = joined([part for part in parts if part is not None])
                if question.answered_by(predicted):
                    says = f"keeps only the {which} dL/d{name} of each row that {index} repeats"
                    return Answer(f"{says} where their sum belongs", predicted)
    return None


def _indices(question: Question) -> Iterator[str]:
    for name, side in question.draws[0].values.items():
        whole = not side.value.is_floating_point() and side.value.dtype != torch.bool
        if whole and all(name in draw.values for draw in question.draws):
            yield name


def _picked_rows(draw: Evidence, index: str, name: str, which: str) -> Side | None:
    """The gradient of one place for each row, 0 for rows without one; None if shapes differ."""
    if name not in draw.gradients:
        return None
    rows, gradient, table = draw.values[index].value, draw.gradients[name], draw.manual.value
    if table.ndim == 0 or gradient.value.shape != (*rows.shape, *table.shape[1:]):
        return None
    picks = rows.reshape(-1)
    if not bool(((picks >= 0) & (picks < len(table))).all()):
        return None
    places = _places(picks, len(table), which)
    zero = torch.zeros(1, *table.shape[1:], dtype=table.dtype)  # for place -1
    value, bound = (
        torch.cat([part.reshape(len(picks), *table.shape[1:]), zero])[places]
        for part in (gradient.value, gradient.bound)
    )
    return Side(value, bound)


def _places(picks: Tensor, rows: int, which: str) -> Tensor:
    """For each row the last or first place that picks it, -1 if none does."""
    places = torch.full((rows,), -1)
    order = range(len(picks)) if which == "last" else range(len(picks) - 1, -1, -1)
    for place in order:
        places[picks[place]] = place
    return places
