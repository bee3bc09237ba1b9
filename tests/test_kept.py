"""Batches kept for a diagnosis: few in all, of every size and stratum."""

import torch

from torch_ref.compare.cases import Batch
from torch_ref.compare.kept import EACH, MOST, Kept


def case(first: int, size: int) -> Batch:
    return Batch({"x": torch.zeros(size)}, first, 1, batched=False)


def kept(sizes: tuple[int, ...], strata: tuple[str, ...], cases: int) -> Kept:
    """Strata by turns, and once all had theirs, the next size."""
    found = Kept()
    for first in range(cases):
        found.add(
            case(first, sizes[first // len(strata) % len(sizes)]), strata[first % len(strata)]
        )
    return found


def test_every_size_and_stratum_is_among_a_few() -> None:
    strata = tuple("abcdef")
    chosen = kept((2, 3, 5, 7), strata, 1000).some(6)
    assert {strata[batch.first % 6] for batch in chosen} == set(strata)
    assert {len(batch.inputs["x"]) for batch in chosen} == {2, 3, 5, 7}


def test_what_is_kept_does_not_grow() -> None:
    assert len(kept((2,), ("a",), 1000).some(1000)) == EACH
    assert len(kept(tuple(range(100)), tuple("abcdef"), 10_000).some(1000)) == MOST


def test_of_batches_of_many_cases_one_is_kept() -> None:
    found = Kept()
    assert not found
    for first in (0, 10):
        found.add(Batch({"x": torch.zeros(10)}, first, 10, batched=True), "")
    assert [batch.first for batch in found.some(12)] == [0]
    assert found
