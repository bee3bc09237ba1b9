"""A side may ask for integers of its inputs, which rounding cannot turn: in Python's own loops,
as an index, in one_hot."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from torch_ref import Draw, Twin, TwinError, verify
from torch_ref.compare.graphs.recording import LooksAtNumbersError, recorded
from torch_ref.compare.twin import Values

STEPS, LABELS = 4, 3


def inputs(draw: Draw) -> Values:
    return {
        "score": draw.normal(std=2.0, shape=(STEPS, LABELS)),
        "move": draw.normal(shape=(LABELS, LABELS)),
        "labels": draw.integers(0, LABELS, (STEPS,)),
    }


def reference(values: Values) -> Values:
    """A linear chain's negative log-likelihood, its own score by indices without an axis."""
    score, move, labels = values["score"], values["move"], values["labels"]
    own, alpha = score[0, labels[0]], score[0]
    for t in range(1, STEPS):
        own = own + move[labels[t - 1], labels[t]] + score[t, labels[t]]
        alpha = torch.logsumexp(alpha[:, None] + move, 0) + score[t]
    return {"loss": torch.logsumexp(alpha, 0) - own}


def by_item(dmove: Tensor, labels: Tensor) -> None:
    for t in range(STEPS - 1):
        dmove[labels[t], labels[t + 1]] -= 1


def by_list(dmove: Tensor, labels: Tensor) -> None:
    known = labels.tolist()
    for before, after in pairwise(known):
        dmove[before, after] -= 1


def by_one_hot(dmove: Tensor, labels: Tensor) -> None:
    one_hot = functional.one_hot(labels, LABELS).to(dmove.dtype)
    dmove -= one_hot[:-1].T @ one_hot[1:]


def by_numpy(dmove: Tensor, labels: Tensor) -> None:
    known = labels.numpy()
    for before, after in pairwise(known):
        dmove[int(before), int(after)] -= 1


def chain(count: Callable[[Tensor, Tensor], None], factor: float = 1.0) -> Twin:
    def manual(values: Values) -> Values:
        score, move, labels = values["score"], values["move"], values["labels"]
        alphas = [score[0]]
        for t in range(1, STEPS):
            alphas.append(torch.logsumexp(alphas[-1][:, None] + move, 0) + score[t])
        upstream, dscore, dmove = alphas[-1].softmax(0), [], torch.zeros_like(move)
        for t in range(STEPS - 1, 0, -1):
            dscore.append(upstream)
            both = (alphas[t - 1][:, None] + move).softmax(0) * upstream
            dmove, upstream = dmove + both, both.sum(1)
        dscore.append(upstream)
        count(dmove, labels)
        chosen = functional.one_hot(labels, LABELS)
        return {"score": torch.stack(dscore[::-1]) - chosen, "move": dmove * factor}

    return Twin("chain", inputs, reference, manual)


@pytest.mark.parametrize("count", [by_item, by_list, by_one_hot, by_numpy])
def test_each_way_to_ask_is_recorded(count: Callable[[Tensor, Tensor], None]) -> None:
    report = verify(chain(count), dtype="float32", cases=12)
    report.assert_agreement()
    assert not report.notes
    assert verify(chain(count, 1.0001), dtype="float32", cases=12).first_wrong == "move"


def test_only_the_hand_asks_and_has_no_bound_of_its_own() -> None:
    def manual(values: Values) -> Values:
        gradient = torch.fft.ifft(torch.fft.fft(values["x"].softmax(0))).real
        for label in values["labels"].tolist():
            gradient[label] -= 1 / len(values["labels"])
        return {"x": gradient}

    twin = Twin(
        "by Fourier",
        lambda draw: {"x": draw.normal(shape=(4,)), "labels": draw.integers(0, 4, (3,))},
        lambda values: {
            "loss": functional.cross_entropy(values["x"].expand(3, 4), values["labels"])
        },
        manual,
    )
    report = verify(twin, cases=12)
    report.assert_agreement()
    assert any("granted" in note for note in report.notes)


class CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(x, labels)
        chosen = functional.one_hot(labels, x.shape[1])
        return -(x.log_softmax(-1) * chosen).sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        x, labels = ctx.saved_tensors
        return upstream * (x.softmax(-1) - functional.one_hot(labels, x.shape[1])), None


def test_one_hot_in_a_function_s_backward() -> None:
    def drawn(draw: Draw) -> Values:
        return {"x": draw.normal(shape=(3, 4)), "labels": draw.integers(0, 4, (3,))}

    def same(x: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(x, labels, reduction="sum")

    report = verify(Twin.from_function(CrossEntropy.apply, same, drawn), dtype="float32", cases=20)
    report.assert_agreement()
    assert not any("granted" in note for note in report.notes)


def test_a_float_is_still_not_asked_for_and_nor_is_what_it_decides() -> None:
    asking: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, n: x * float(x.sum()),
        lambda x, n: x[x.argmax()] * x,
        lambda x, n: x * int(n.index_put((n[:1],), (x > 0).sum()).sum()),
    ]
    for function in asking:
        with pytest.raises(LooksAtNumbersError):
            recorded(function, torch.arange(3.0), torch.arange(3))
    graph = recorded(lambda x, n: x * int(n.sum()), torch.ones(3), torch.arange(3))
    assert graph.counted
    assert not graph.decided


def test_a_reference_that_asks_for_a_float_is_refused() -> None:
    twin = Twin(
        "item",
        lambda draw: {"x": draw.normal(shape=(3,))},
        lambda values: {"loss": values["x"].sum() * float(values["x"][0].detach())},
        lambda values: {"x": values["x"]},
    )
    with pytest.raises(TwinError, match="it looks at its numbers"):
        verify(twin, cases=5)
