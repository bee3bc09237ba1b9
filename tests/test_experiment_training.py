"""Training with every optimizer; a run that was killed goes on to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as as_bytes
from torch import Tensor

from torch_ref import AssignmentNet
from torch_ref.experiments import PROTOCOL, Feature, Series, volatility
from torch_ref.experiments.checkpoint import FORMAT, CheckpointError, load, save
from torch_ref.experiments.run import NETWORK
from torch_ref.experiments.training import DivergedError, Recipe, Training

RECIPES = {
    "sgd": Recipe("sgd", 0.05, steps=40, batch=64),
    "adam": Recipe("adam", 0.03, steps=40, batch=64),
    "lbfgs": Recipe("lbfgs", 1.0, steps=4),
}


def training_of(recipe: Recipe, seed: int = 3, restarts: int = 2) -> Training:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    t = (x[:, 0] + 0.3 * x[:, 1]).exp() * torch.rand(300, generator=generator).double()
    return Training(x, t, recipe, seed=seed, restarts=restarts)


def finished(training: Training) -> Training:
    while not training.finished:
        training.advance()
    return training


def same(left: Any, right: Any) -> bool:
    """To the bit; a NaN, which stands for a step not taken yet, is like another."""
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left.nan_to_num(-1), right.nan_to_num(-1))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


# training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_optimizer_learns(name: str) -> None:
    training = finished(training_of(RECIPES[name]))
    assert training.curves.isfinite().all()
    assert (training.curves[:, -1] < training.curves[:, 0]).all()
    with torch.no_grad():
        kept = training.loss(training.result()(training.x), training.t)
    assert kept == training.curves[:, -1].min() == training.best


def test_a_seed_decides_every_number_and_leaves_torchs_own_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (finished(training_of(RECIPES["sgd"], seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(one.state(), two.state())
    assert not torch.isclose(one.curves, other.curves).any()
    assert not torch.isclose(one.curves[0], one.curves[1]).any()  # restarts differ


def test_a_restart_that_diverges_is_never_kept() -> None:
    recipe = Recipe("sgd", 1e308, steps=5)
    with pytest.raises(DivergedError, match="no restart of 2 ended with a finite loss"):
        finished(training_of(recipe)).result()


# checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 3, 5])
@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_is_the_same_to_the_bit(name: str, stop: int, tmp_path: Path) -> None:
    """Stopped in the first restart, and in the second, whose best is then in the file."""
    recipe = replace(RECIPES[name], steps=4)
    whole, first = training_of(recipe), training_of(recipe)
    for _ in range(stop):
        first.advance()
    save(tmp_path / "run", first.state(), {"seed": 3})
    second = training_of(recipe)
    second.load_state(load(tmp_path / "run", {"seed": 3}))
    assert same(second.state(), first.state())
    assert same(finished(second).state(), finished(whole).state())


def test_a_part_that_is_left_out_shows(tmp_path: Path) -> None:
    """Adam's moments and the generator: without either the run is another."""
    recipe = RECIPES["adam"]
    whole, first = finished(training_of(recipe)), training_of(recipe)
    for _ in range(5):
        first.advance()
    fresh = training_of(recipe).state()
    for part in ("optimizer", "generator"):
        second = training_of(recipe)
        save(tmp_path / "run", {**first.state(), part: fresh[part]}, {})
        second.load_state(load(tmp_path / "run", {}))
        assert not same(finished(second).curves, whole.curves)


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.test_experiment_training import IDENTITY, KILLED, training_of
from torch_ref.experiments import run
run.BETWEEN = 0.0
run.train(training_of(KILLED), IDENTITY, Path(sys.argv[1]), False, lambda done, total: None)
"""
KILLED, IDENTITY = Recipe("adam", 0.01, steps=1500, batch=64), {"seed": 3, "digest": "abc"}


def test_after_kill_9_the_trajectory_is_the_same_to_the_bit(tmp_path: Path) -> None:
    """It saves after every step, so the kill mostly comes while a file is being written."""
    file, root = tmp_path / "run.safetensors", Path(__file__).parents[1]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(file)], cwd=root)
    deadline = time.monotonic() + 100
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = training_of(KILLED)
    resumed.load_state(load(file, IDENTITY))
    assert 0 < resumed.done < resumed.total
    assert same(finished(resumed).state(), finished(training_of(KILLED)).state())


def test_a_file_stays_whole_while_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run"
    save(file, {"step": 1}, {})

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as half:
            half.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        save(file, {"step": 2}, {})
    assert load(file, {}) == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_what_is_no_checkpoint_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*run to resume from"):
        load(file, {})
    save(file, {"x": torch.ones(9)}, {})
    whole = file.read_bytes()
    for content in (b"", b"nonsense" * 9, whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="is no whole safetensors file"):
            load(file, {})
    file.write_bytes(as_bytes({"x": torch.ones(9)}))
    with pytest.raises(CheckpointError, match=f"'{FORMAT}' was expected, None came"):
        load(file, {})
    metadata = {"format": FORMAT, "identity": "{}", "state": json.dumps({"tensor": "y"})}
    file.write_bytes(as_bytes({"x": torch.ones(9)}, metadata))
    with pytest.raises(CheckpointError, match="does not hold what its own list says"):
        load(file, {})


def test_a_state_that_no_file_can_hold_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        save(tmp_path / "run", {"x": {1, 2}}, {})


# the whole run -----------------------------------------------------------------------------------


def made_up() -> Series:
    generator = np.random.default_rng(0)
    returns = np.exp(0.5 * np.sin(np.arange(600) / 40)) * generator.normal(size=600)
    returns[[420, 550]] = 0
    return Series("made up", np.datetime64("2020-01-01") + np.arange(600), returns, 500)


SHORT = replace(PROTOCOL, recipe=Recipe("lbfgs", 1.0, steps=2), restarts=2)


def test_an_experiment_with_ones_own_series_and_features() -> None:
    told = []
    own = replace(SHORT, features=(Feature(0.8, 0.0), Feature(0.97, 1.0)))
    result = volatility(made_up(), own, progress=lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert isinstance(result.net, AssignmentNet)
    assert len(result.ranking) == 8
    losses = [row.qlike for row in result.ranking]
    assert losses == sorted(losses)
    assert {len(forecast) for forecast in result.forecasts.values()} == {600}
    assert result.to_dict()["series"]["judged"] == 99
    assert result.to_dict()["chosen_before"] is False


def test_the_network_learns_nothing_from_the_test_years() -> None:
    series = made_up()
    changed = series.returns.copy()
    changed[550:] *= 5
    other = replace(series, returns=changed)
    one, two = (volatility(given, SHORT) for given in (series, other))
    assert same(one.net.state_dict(), two.net.state_dict())
    assert np.array_equal(one.forecasts[NETWORK][:551], two.forecasts[NETWORK][:551])
    assert not np.isclose(one.forecasts[NETWORK][551:], two.forecasts[NETWORK][551:]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"restarts": 3}, "restarts is 2 there and 3 here"),
        ({"recipe": Recipe("sgd", 1.0, steps=2)}, "recipe's optimizer is lbfgs there and sgd"),
        ({"features": (Feature(0.5, 0.0), Feature(0.9, 0.0))}, "features is .*decay 0.6 .* there"),
        ({"series": 1.5}, "series is made up with digest"),
    ],
)
def test_another_runs_checkpoint_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    series, file = made_up(), tmp_path / "run"
    volatility(series, SHORT, checkpoint_file=file)
    if "series" in change:
        series, change = replace(series, returns=series.returns * change["series"]), {}
    with pytest.raises(CheckpointError, match=f"run is a checkpoint of another run: {message}"):
        volatility(series, replace(SHORT, **change), checkpoint_file=file, resume=True)


def test_a_checkpoint_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "run"
    whole = volatility(made_up(), SHORT, checkpoint_file=file)
    with pytest.raises(CheckpointError, match="is there already: go on from it with --resume"):
        volatility(made_up(), SHORT, checkpoint_file=file)
    again = volatility(made_up(), SHORT, checkpoint_file=file, resume=True)
    assert again.to_dict() == whole.to_dict()
