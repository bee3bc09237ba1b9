"""Connectionist temporal classification: written out it is what torch's kernels compute, and a
student's NumPy is judged by it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from torch_ref import Draw, Twin, verify
from torch_ref.compare.graphs import aligned
from torch_ref.compare.graphs.recording import recorded

Values = dict[str, Tensor]
STEPS, CLASSES, LENGTHS, LABELS = 6, 4, (6, 5), (3, 2)
OF_SAMPLES = tuple(zip(LENGTHS, LABELS, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    steps=st.integers(1, 8),
    classes=st.integers(2, 4),
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    joined=st.booleans(),
    infinite=st.booleans(),
)
def test_written_out_it_is_what_torch_computes(
    data: st.DataObject, steps: int, classes: int, lengths: list[int], joined: bool, infinite: bool
) -> None:
    blank = data.draw(st.integers(0, classes - 1))
    labels = [one for one in range(classes) if one != blank]
    drawn = [[data.draw(st.sampled_from(labels)) for _ in range(max(lengths))] for _ in lengths]
    targets = torch.tensor(drawn, dtype=torch.long)
    if joined and max(lengths):
        targets = torch.cat([row[:length] for row, length in zip(targets, lengths, strict=True)])
    until = [steps, *(data.draw(st.integers(1, steps)) for _ in lengths[1:])]
    seeded = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    shape = (steps, len(lengths), classes)
    known = torch.randn(shape, generator=seeded, dtype=torch.float64).log_softmax(-1)
    upstream = torch.randn(len(lengths), generator=seeded, dtype=torch.float64)

    given_to_both = (known, targets, until, lengths)
    loss, alpha = torch.ops.aten._ctc_loss(*given_to_both, blank, infinite)
    ours, our_alpha = aligned.ctc_loss(*given_to_both, blank, infinite)
    torch.testing.assert_close(ours, loss)
    torch.testing.assert_close(
        aligned.ctc_loss_backward(upstream, *given_to_both, ours, our_alpha, blank, infinite),
        torch.ops.aten._ctc_loss_backward(
            upstream, *given_to_both, loss, alpha, blank, infinite
        ),
        equal_nan=True,
    )  # fmt: skip


def inputs(draw: Draw) -> Values:
    return {
        "x": draw.normal(shape=(STEPS, len(LENGTHS), CLASSES)),
        "labels": draw.integers(1, CLASSES, shape=(len(LENGTHS), max(LABELS))),
    }


def reference(values: Values) -> Values:
    known = functional.log_softmax(values["x"], -1)
    return {"loss": functional.ctc_loss(known, values["labels"], LENGTHS, LABELS)}


def together(*ways: Any) -> Any:
    largest = np.maximum.reduce(ways)
    if largest == -math.inf:
        return largest
    return largest + np.log(sum(np.exp(way - largest) for way in ways))


def ways(known: Any, labels: list[int], begin: Any) -> Any:
    """As alpha, of whatever comes in the order of time."""
    found = np.full((len(known), len(labels)), -math.inf, known.dtype)
    found[0, :2] = begin
    for t in range(1, len(known)):
        for s, label in enumerate(labels):
            before = [found[t - 1, s - k] for k in (0, 1) if s >= k]
            if s > 1 and label != 0 and label != labels[s - 2]:
                before.append(found[t - 1, s - 2])
            found[t, s] = known[t, label] + together(*before)
    return found


def hand(factor: float) -> Callable[[Values], Values]:
    def manual(values: Values) -> Values:
        x = values["x"].numpy()
        known = x - x.max(-1, keepdims=True)
        known = known - np.log(np.exp(known).sum(-1, keepdims=True))
        gradient = np.zeros_like(x)
        for sample, (steps, length) in enumerate(OF_SAMPLES):
            labels = [0]
            for label in values["labels"][sample, :length].tolist():
                labels += [label, 0]
            own = known[:steps, sample]
            alpha = ways(own, labels, own[0, labels[:2]])
            beta = ways(own[::-1], labels[::-1], own[-1, labels[:-3:-1]])[::-1, ::-1]
            total = together(*alpha[-1, -2:])
            shares = np.zeros_like(own)
            for s, label in enumerate(labels):
                shares[:, label] += np.exp(alpha[:, s] + beta[:, s] - own[:, label] - total)
            scale = x.dtype.type(factor)
            gradient[:steps, sample] = (np.exp(own) - scale * shares) / (len(LENGTHS) * length)
        return {"x": torch.as_tensor(gradient)}

    return manual


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_student_s_numpy_is_judged_by_torch_s_ctc_loss(dtype: str) -> None:
    right = verify(Twin("CTC", inputs, reference, hand(1.0)), dtype=dtype, cases=20)
    right.assert_agreement()
    assert right.rows[0].undecided < 0.2
    wrong = verify(Twin("CTC", inputs, reference, hand(1.001)), dtype=dtype, cases=20)
    assert wrong.first_wrong == "x"


def test_a_tensor_that_is_made_of_a_list_in_c_is_a_constant() -> None:
    """It is memory that was asked for, to which numbers go without an operation."""

    def mean(known: Tensor) -> Tensor:
        targets = torch.ones(2, 2, dtype=torch.long)
        return functional.ctc_loss(known, targets, (3, 3), (2, 1), reduction="mean")

    example = torch.randn(3, 2, 3, dtype=torch.float64).log_softmax(-1)
    graph = recorded(mean, example)
    other = torch.randn(3, 2, 3, dtype=torch.float64).log_softmax(-1)
    assert torch.equal(graph(other), mean(other))


def test_memory_that_is_filled_by_operations_is_none() -> None:
    def filled(value: Tensor) -> Tensor:
        room = torch.empty(2, 3, dtype=value.dtype)
        room[0], room[1] = value, 2 * value
        return room.sum(0)

    graph = recorded(filled, torch.ones(3))
    assert torch.equal(graph(torch.arange(3.0)), 3 * torch.arange(3.0))
