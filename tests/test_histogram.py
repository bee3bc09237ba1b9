"""Errors counted by size: every decided element once, and the wrong ones right of 1."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torch_ref.assignment import assignment_twin
from torch_ref.compare.histogram import BINS, FEW, HIGHEST, LOWEST, WITHIN, added, histogram
from torch_ref.compare.judge import Judge
from torch_ref.compare.twin import Values


def place(ratio: float) -> int | None:
    """The bin by comparison alone."""
    if ratio < 0:
        return None
    edges = [0.0, *(4.0**k for k in range(LOWEST, HIGHEST + 1)), math.inf]
    return next(at for at, edge in enumerate(edges) if ratio <= edge)


EDGES = [4.0**k for k in range(LOWEST - 2, HIGHEST + 3)]
NEAR = [math.nextafter(edge, to) for edge in EDGES for to in (0.0, math.inf)]
ratios = st.sampled_from([-1.0, 0.0, math.inf, *EDGES, *NEAR]) | st.floats(1e-300, 1e300)


@given(st.lists(ratios, max_size=40))
def test_each_element_is_in_its_bin(numbers: list[float]) -> None:
    """Few elements and many are counted in different ways."""
    places = [place(number) for number in numbers]
    expected = tuple(places.count(at) for at in range(BINS))
    few = torch.tensor(numbers, dtype=torch.float64)
    assert histogram(few) == expected
    assert histogram(few.repeat(FEW + 1)) == tuple((FEW + 1) * count for count in expected)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (0, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    counts = histogram(torch.full(shape, 0.5, dtype=torch.float64))
    assert sum(counts) == counts[WITHIN - 1] == math.prod(shape)


def test_counts_add_up() -> None:
    one, other = torch.tensor([0.0, 1.0]).double(), torch.tensor([3.0, -1.0]).double()
    assert added(histogram(one), histogram(other)) == histogram(torch.cat((one, other)))


def test_a_tally_counts_its_decided_and_its_wrong_elements() -> None:
    twin = assignment_twin()

    def manual(values: Values) -> Values:
        found = twin.manual(values)
        return {**found, "w46": -found["w46"]}

    judging = Judge(replace(twin, manual=manual), torch.float32, torch.device("cpu"), 0)
    for batch in judging.cases.batches(600):
        judging.judge(batch)
    both = judging.tallies["w46"] + judging.tallies["x1"]
    assert sum(both.histogram) == both.decided > both.wrong
    assert sum(both.histogram[WITHIN:]) == both.wrong > 0
    assert both.row().histogram == both.histogram
