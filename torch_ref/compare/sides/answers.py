"""What both sides say to a batch as they are, before any graph is walked."""

from dataclasses import dataclass

import torch

from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.cases import Batch, widened
from torch_ref.compare.layout import copies_of
from torch_ref.compare.sides.hand import check_answer, gradients_by_hand, run_manual
from torch_ref.compare.strangers import Saying
from torch_ref.compare.twin import Twin, Values


@dataclass(frozen=True)
class Answers:
    """By name of the quantity.

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


def answers(twin: Twin, batch: Batch, dtype: torch.dtype) -> Answers:
    """Both sides' numbers; the batch is in this dtype. Raises TwinError."""
    inputs, wide = batch.inputs, widened(batch.inputs)
    answer, breaches, notes = run_manual(twin, inputs, thoroughly=batch.thoroughly)
    with Saying(twin.name, "reference, or autograd through it,"):
        known = gradients_by_autograd(twin.reference, wide)
    problems = check_answer(answer, known, inputs)
    fit = {name: value for name, value in answer.items() if name not in problems}
    expected = fit if dtype == torch.float64 else _in_float64(twin, wide, tuple(fit))
    notes, breaches = [*notes, *twin.notes()], [*breaches, *twin.failures()]
    return Answers(wide, fit, expected, known, tuple(answer), problems, breaches, notes)


def _in_float64(twin: Twin, wide: Values, names: tuple[str, ...]) -> Values | None:
    try:
        return gradients_by_hand(twin, copies_of(wide), names)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # anything at all can come out of a stranger's code
        return None
