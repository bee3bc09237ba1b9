"""One training run three ways; what rounding may do to a trajectory, and what it may not."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import manual_bp
from torch_ref.experiments import ranks
from torch_ref.experiments.ranks import RankError, by_ranks
from torch_ref.experiments.trajectory import (
    WORLD,
    Descent,
    by_autograd,
    by_hand,
    descent,
    hand_gradients,
)
from torch_ref.experiments.ways import (
    AUTOGRAD,
    GRADIENTS,
    HAND,
    RANKS,
    UNIT_ROUNDOFF,
    Pair,
    accumulated,
    compared,
    local_differences,
    step_jacobians,
)

STEPS = 12
Values = dict[str, Tensor]


@pytest.fixture(scope="module")
def given() -> Descent:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    t = x[:, 0].exp() * torch.rand(300, generator=generator).double()
    return descent(x, t, steps=STEPS, samples=64)


@pytest.fixture(scope="module")
def trajectories(given: Descent) -> Values:
    return {HAND: by_hand(given), AUTOGRAD: by_autograd(given), RANKS: by_ranks(given)}


def with_an_error(given: Descent, size: float) -> Tensor:
    """The hand's trajectory, dL/dw46 being wrong by that share of itself."""

    def wrong(parameters: Values, x: Tensor, t: Tensor) -> Values:
        gradients = hand_gradients(parameters, x, t)
        return {**gradients, "w46": gradients["w46"] * (1 + size)}

    return by_hand(given, wrong)


def test_the_three_ways_agree_within_what_rounding_allows(
    given: Descent, trajectories: Values
) -> None:
    pairs = compared(given, trajectories)
    assert [(pair.first, pair.second) for pair in pairs] == [
        (HAND, AUTOGRAD),
        (HAND, RANKS),
        (AUTOGRAD, RANKS),
    ]
    assert all(pair.agree for pair in pairs), pairs
    assert all(pair.allowed < 1e-12 for pair in pairs)
    moved = (trajectories[HAND][-1] - given.start).abs()
    assert moved.min() > 1e-4  # every parameter has learnt something: there was much to differ in


@pytest.mark.parametrize("size", [1e-2, 1e-6, 1e-10])
def test_an_error_in_one_way_is_seen(given: Descent, trajectories: Values, size: float) -> None:
    wrong = {**trajectories, HAND: with_an_error(given, size)}
    found = {(pair.first, pair.second): pair.agree for pair in compared(given, wrong)}
    assert found == {(HAND, AUTOGRAD): False, (HAND, RANKS): False, (AUTOGRAD, RANKS): True}


def test_a_way_that_ends_in_nan_does_not_agree(given: Descent, trajectories: Values) -> None:
    wrong = trajectories[RANKS].clone()
    wrong[-1, 3] = torch.nan
    pairs = compared(given, {**trajectories, RANKS: wrong})
    assert [pair.agree for pair in pairs] == [True, False, False]


def test_a_way_on_the_wrong_batch_is_seen(given: Descent, trajectories: Values) -> None:
    batches = given.batches.clone()
    batches[STEPS // 2, 0] = batches[STEPS // 2, 1]
    other = Descent(given.start, given.x, given.t, batches, given.learning_rate)
    pairs = compared(given, {**trajectories, AUTOGRAD: by_autograd(other)})
    assert [pair.agree for pair in pairs] == [False, True, False]


def test_the_jacobians_carry_a_deviation_as_the_descent_does(given: Descent) -> None:
    """A start that is 1e-7 off ends where their product says, but for the second order."""
    path = by_hand(given)
    carried = torch.full_like(given.start, 1e-7)
    off = Descent(given.start + carried, given.x, given.t, given.batches, given.learning_rate)
    for jacobian in step_jacobians(given, path):
        carried = jacobian @ carried
    torch.testing.assert_close(by_hand(off)[-1] - path[-1], carried, rtol=1e-5, atol=1e-13)


def test_the_bound_is_the_sum_of_what_each_step_adds() -> None:
    jacobians = torch.tensor([[[5.0]], [[-2.0]], [[0.5]]], dtype=torch.float64)
    local = torch.tensor([[1.0], [3.0], [4.0]], dtype=torch.float64)
    assert accumulated(jacobians, local).flatten().tolist() == [1, 2 + 3, 1 + 1.5 + 4]


def test_what_one_step_may_add_is_both_gradients_and_both_updates(given: Descent) -> None:
    """From 1 to 1.5 with gradients that are 2 off together: 0.02 * 2 + 2 u (0.5 + 1.5)."""
    path = torch.tensor([[1.0], [1.5]], dtype=torch.float64)
    added = local_differences(given, path, torch.zeros(1, 1, dtype=torch.float64))
    assert added.item() == 2 * UNIT_ROUNDOFF * 2
    added = local_differences(given, path, torch.full((1, 1), 2.0, dtype=torch.float64))
    assert added.item() == pytest.approx(given.learning_rate * 2)


def test_a_rank_descends_on_its_share_alone(
    given: Descent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "DistributedDataParallel", lambda net: net)
    shares = given.batches.chunk(WORLD, dim=1)
    assert [share.shape for share in shares] == [(STEPS, 32)] * 2
    for rank, share in enumerate(shares):
        right = by_autograd(replace(given, batches=share))
        assert torch.equal(ranks._descended(given, rank), right)


@pytest.mark.parametrize("way", GRADIENTS)
def test_each_ways_gradient_is_the_mean_losss(given: Descent, way: str) -> None:
    parameters = dict(zip(manual_bp.PARAMETERS, given.start.unbind(), strict=True))
    found = GRADIENTS[way](parameters, *given.batch(0))
    right = hand_gradients(parameters, *given.batch(0))
    for name in manual_bp.PARAMETERS:
        torch.testing.assert_close(found[name], right[name], rtol=1e-12, atol=1e-15)


# ranks that fail ---------------------------------------------------------------------------------


def fake_ranks(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """What each rank runs instead; `rank` and `folder` are its arguments."""
    start = "import sys; from pathlib import Path; folder, rank = Path(sys.argv[1]), sys.argv[2]\n"

    def command(folder: Path, rank: int) -> list[str]:
        return [sys.executable, "-c", start + code, str(folder), str(rank)]

    monkeypatch.setattr(ranks, "_command", command)


def test_a_rank_that_dies_ends_the_others_and_is_named(
    given: Descent, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ranks(monkeypatch, "import time\nif rank == '0': time.sleep(99)\nsys.exit('out of luck')")
    with pytest.raises(RankError, match="rank 1 ended with code 1: out of luck"):
        by_ranks(given)


def test_ranks_that_never_end_are_given_up(given: Descent, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ranks(monkeypatch, "import time\ntime.sleep(99)")
    monkeypatch.setattr(ranks, "PATIENCE", 0.2)
    with pytest.raises(RankError, match=r"did not end within 0\.2 seconds: they said nothing"):
        by_ranks(given)


def test_ranks_that_hold_different_parameters_are_no_way(
    given: Descent, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import numpy as np\nfrom safetensors.numpy import save_file\n"
        "save_file({'trajectory': np.full(3, float(rank))}, folder / f'{rank}.safetensors')"
    )
    fake_ranks(monkeypatch, code)
    with pytest.raises(RankError, match="the ranks hold different parameters"):
        by_ranks(given)


def test_no_number_is_no_agreement() -> None:
    assert not Pair(HAND, RANKS, 0.0, 0.0, float("nan")).agree
