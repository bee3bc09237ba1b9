"""Whether a recorded graph does what it was recorded from: it is tried on other numbers."""

from torch import Tensor

from torch_ref.compare.cases import Batch
from torch_ref.compare.layout import backwards
from torch_ref.compare.rounding import Walked
from torch_ref.compare.twin import Values


def other_numbers(batch: Batch, wide: Values) -> Values:
    """Inputs laid out alike with other numbers: a graph that depends on its numbers then shows.

    The batch's cases in another order; of a single case, the floating numbers backwards and a bit
    smaller, each input by another factor: some functions have only ratios for their arguments.
    """
    if batch.batched:
        return {name: value.flip(0) for name, value in wide.items()}
    return {
        name: backwards(value, 0.875 - 0.125 * place / len(wide))
        if value.is_floating_point()
        else value
        for place, (name, value) in enumerate(wide.items())
    }


def faithful(walked: Walked, expected: Values) -> bool:
    """Whether the graph gives the numbers that were computed, up to rounding."""
    return not unfaithful(walked, expected)


def unfaithful(walked: Walked, expected: Values) -> list[str]:
    """The quantities whose recorded numbers are not the computed ones, up to rounding."""
    return [name for name in walked.values if _is_off(walked, name, expected[name])]


def _is_off(walked: Walked, name: str, expected: Tensor) -> bool:
    value = walked.values[name]
    off = (value - expected).abs() > 2 * walked.bounds[name]
    return bool(off.any()) and bool(is_off(value, expected, walked.bounds[name]).any())


def is_off(value: Tensor, expected: Tensor, bound: Tensor) -> Tensor:
    """Where a recorded number is not the computed one, up to rounding."""
    off = (value - expected).abs() > 2 * bound
    return off & value.isfinite() & expected.isfinite()
