"""DistributedDataParallel over 2 gloo ranks gives the gradient that the hand gives for all samples.

Run as a script, this file is one rank: `python test_data_parallel.py RANK FOLDER`.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

import manual_bp
from torch_ref import AssignmentNet, ItakuraSaitoLoss
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, walk
from torch_ref.experiments.ranks import leave

SAMPLES, WORLD = 1024, 2
# Samples of rank 0; powers of two, so that the weights of the ranks' losses are exact.
CUTS = {"equal": 512, "unequal": 128}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
Values = dict[str, Any]


def values_in(dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters of shape () and inputs of shape (SAMPLES,)."""
    generator = np.random.default_rng(7)
    inputs = {name: generator.normal(size=SAMPLES) for name in manual_bp.INPUTS}
    inputs["t"] = np.exp(inputs["t"])
    drawn = {**manual_bp.init_parameters(seed=7), **inputs}
    return {name: torch.as_tensor(value).to(dtype) for name, value in drawn.items()}


def shard_of(values: Values, rank: int, cut: int) -> tuple[Tensor, Tensor, float]:
    """A rank's x of shape (n, 2), its t of shape (n,), and the weight of its mean loss.

    DistributedDataParallel takes the plain mean over ranks, so n samples of N weigh WORLD n/N.
    """
    part = slice(None, cut) if rank == 0 else slice(cut, None)
    x = torch.stack((values["x1"], values["x2"]), dim=-1)[part]
    return x, values["t"][part], WORLD * len(x) / SAMPLES


# one rank ----------------------------------------------------------------------------------------


def run_as_rank(rank: int, folder: Path) -> None:
    """Write the gradients of every dtype and cut, with and without weights, to FOLDER/RANK.json."""
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD)
    found = {
        f"{dtype} {cut} {weighted}": gradients_on(rank, dtype, cut, weighted)
        for dtype in DTYPES
        for cut in CUTS
        for weighted in (True, False)
    }
    (folder / f"{rank}.json").write_text(json.dumps(found))
    leave()


def gradients_on(rank: int, dtype: str, cut: str, weighted: bool) -> dict[str, float]:
    values = values_in(DTYPES[dtype])
    net = AssignmentNet(dtype=DTYPES[dtype])
    net.load_state_dict({name: values[name] for name in manual_bp.PARAMETERS})
    parallel = DistributedDataParallel(net)  # kept: without it backward would not reduce
    x, t, weight = shard_of(values, rank, CUTS[cut])
    loss = ItakuraSaitoLoss()(parallel(x), t)
    (loss * weight if weighted else loss).backward()
    return {name: parameter.grad.item() for name, parameter in net.named_parameters()}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """What rank 0 found, which is what rank 1 found."""
    folder = tmp_path_factory.mktemp("ranks")
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    first, second = (json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORLD))
    assert first == second
    return dict(first)


# what rounding allows ----------------------------------------------------------------------------


def by_hand(values: Values) -> Values:
    """The gradient of the mean loss over all samples."""
    parameters = {name: values[name] for name in manual_bp.PARAMETERS}
    inputs = {name: values[name] for name in manual_bp.INPUTS}
    return manual_bp.gradients(parameters, inputs, check_values=False)[1]


def in_parallel(values: Values, cut: int) -> Values:
    """The same as the ranks compute it: each its own mean, then the mean of these."""
    total: Values = {}
    for rank in range(WORLD):
        x, t, weight = shard_of(values, rank, cut)
        leaves = {name: values[name].detach().requires_grad_() for name in manual_bp.PARAMETERS}
        with torch.enable_grad():
            output = functional_call(AssignmentNet(dtype=torch.float64), leaves, (x,))
            loss = ItakuraSaitoLoss()(output, t) * weight
            found = torch.autograd.grad(loss, list(leaves.values()))
        for name, gradient in zip(leaves, found, strict=True):
            part = gradient / WORLD
            total[name] = total[name] + part if name in total else part
    return total


@cache
def allowed(dtype: str, cut: str) -> dict[str, float]:
    """How far rounding may move the two sides apart, by parameter."""
    values = {name: value.double() for name, value in values_in(DTYPES[dtype]).items()}
    bounds = [
        walk(record(side, values), values, Arithmetic.of(DTYPES[dtype])).bounds
        for side in (by_hand, lambda values: in_parallel(values, CUTS[cut]))
    ]
    return {n: sum(bound[n].item() for bound in bounds) for n in manual_bp.PARAMETERS}


def beyond_rounding(gradients: dict[str, float], dtype: str, cut: str) -> list[str]:
    """The parameters at which |ranks - hand| is more; the hand runs in the dtype, too."""
    hand = by_hand(values_in(DTYPES[dtype]))
    return [
        name
        for name, bound in allowed(dtype, cut).items()
        if not abs(gradients[name] - hand[name].item()) <= bound
    ]


# the tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ranks_give_the_gradient_of_all_samples(
    found: dict[str, dict[str, float]], dtype: str, cut: str
) -> None:
    assert set(found[f"{dtype} {cut} True"]) == set(manual_bp.PARAMETERS)
    assert not beyond_rounding(found[f"{dtype} {cut} True"], dtype, cut)


@pytest.mark.parametrize("dtype", DTYPES)
def test_unequal_shards_need_their_weights(found: dict[str, dict[str, float]], dtype: str) -> None:
    """Without them the plain mean over ranks is wrong, and for equal shards it is not."""
    assert len(beyond_rounding(found[f"{dtype} unequal False"], dtype, "unequal")) == 11
    assert not beyond_rounding(found[f"{dtype} equal False"], dtype, "equal")


def test_an_error_of_1e_10_shows(found: dict[str, dict[str, float]]) -> None:
    """For the bounds are no wider than that."""
    right = found["float64 equal True"]
    for name, value in right.items():
        wrong = {**right, name: value * (1 + 1e-10)}
        assert beyond_rounding(wrong, "float64", "equal") == [name]


if __name__ == "__main__":
    run_as_rank(int(sys.argv[1]), Path(sys.argv[2]))
