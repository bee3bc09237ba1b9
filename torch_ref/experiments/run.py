"""The experiment: the network learns a series' variance, and is ranked against the baselines."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_ref.experiments import checkpoint
from torch_ref.experiments.baselines import baselines
from torch_ref.experiments.data import Array, Series
from torch_ref.experiments.features import network_inputs
from torch_ref.experiments.protocol import PROTOCOL, Protocol
from torch_ref.experiments.ranking import Ranked, rank
from torch_ref.experiments.training import Training
from torch_ref.module import AssignmentNet

NETWORK = "AssignmentNet"
BETWEEN = 0.5  # seconds between two checkpoints

Progress = Callable[[int, int], None]  # steps done, of how many


@dataclass(frozen=True)
class Result:
    """What came out. forecasts: by name, variances in percent^2 of every day, shape (n,).

    curves: the training loss before each step and after the last, shape (restarts, steps + 1); NaN
    from where a restart diverged.
    """

    series: Series
    protocol: Protocol
    net: AssignmentNet
    curves: Tensor
    forecasts: dict[str, Array]
    ranking: list[Ranked]

    def to_dict(self) -> dict[str, Any]:
        """The result in lists, numbers and strings, without the forecasts."""
        series = self.series
        return {
            "series": {
                "name": series.name,
                "train": [series.date(0), series.date(series.train - 1), series.train],
                "test": [series.date(series.train), series.date(-1), series.test],
                "zero_days": series.zero_days,
                "judged": len(series.judged),
            },
            "protocol": asdict(self.protocol),
            "chosen_before": self.protocol == PROTOCOL,
            "parameters": {name: value.item() for name, value in self.net.state_dict().items()},
            "training_loss": self.curves[:, -1].tolist(),
            "ranking": [asdict(row) for row in self.ranking],
        }


def volatility(
    series: Series,
    protocol: Protocol = PROTOCOL,
    *,
    checkpoint_file: Path | None = None,
    resume: bool = False,
    progress: Progress = lambda done, total: None,
) -> Result:
    """Train on the first years, rank on the others by mean QLIKE.

    checkpoint_file: where the run is kept, twice a second, so that with `resume` one that was
    killed goes on to the same bits. progress: called after every step.
    Raises SeriesError, DivergedError, CheckpointError, and OSError for a file that cannot be
    written.
    """
    x = torch.as_tensor(network_inputs(series, protocol.features))
    training = training_of(series, protocol)
    train(training, identity(series, protocol), checkpoint_file, resume, progress)
    net = training.result()
    with torch.no_grad():
        forecasts = {NETWORK: net(x).numpy(), **baselines(series)}
    judged = series.judged
    ranking = rank(
        {name: forecast[judged] for name, forecast in forecasts.items()},
        series.variance[judged],
        NETWORK,
    )
    return Result(series, protocol, net, training.curves, forecasts, ranking)


def training_of(series: Series, protocol: Protocol) -> Training:
    """The protocol's training, on the days learnt from; no step taken yet."""
    inputs = network_inputs(series, protocol.features)
    x, t = (torch.as_tensor(values[series.learnt]) for values in (inputs, series.variance))
    return Training(x, t, protocol.recipe, seed=protocol.seed, restarts=protocol.restarts)


def train(
    training: Training,
    identity: dict[str, Any],
    file: Path | None,
    resume: bool,
    progress: Progress,
) -> None:
    """To the end, from where the file left it."""
    if file is not None and resume:
        training.load_state(checkpoint.load(file, identity))
    elif file is not None and file.exists():
        raise checkpoint.CheckpointError(
            f"{file} is there already: go on from it with --resume, or give another file."
        )
    saved = time.monotonic()
    while not training.finished:
        training.advance()
        if file is not None and (training.finished or time.monotonic() - saved >= BETWEEN):
            checkpoint.save(file, training.state(), identity)
            saved = time.monotonic()
        progress(training.done, training.total)


def identity(series: Series, protocol: Protocol) -> dict[str, Any]:
    """All that decides a run's numbers; two runs with the same go the same way."""
    days = hashlib.sha256(series.returns.tobytes()).hexdigest()[:16]
    recipe = {f"recipe's {name}": value for name, value in asdict(protocol.recipe).items()}
    return {
        "series": f"{series.name} with digest {days}",
        "train": series.train,
        "features": [str(feature) for feature in protocol.features],
        **recipe,
        "restarts": protocol.restarts,
        "seed": protocol.seed,
        "torch": torch.__version__,
    }
