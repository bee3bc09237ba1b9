"""The check that all peers compute the same: derived bounds, as in `verify`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import manual_bp
from torch_ref.assignment import assignment_twin, manual_values
from torch_ref.benchmark.batch import Batch
from torch_ref.compare.autograd import gradients_by_autograd
from torch_ref.compare.graphs.recording import Recorded
from torch_ref.compare.graphs.side import record
from torch_ref.compare.rounding import Arithmetic, walk
from torch_ref.compare.rounding.linear import growth

# Samples that are walked at once: they fit the cache, and torch does not split so few over threads.
# (To tell it not to, by torch.set_num_threads, also tells MKL to split even a hundred numbers over
# threads from then on: eager peers would be timed up to ten times too slow.)
CHUNK = 16_384
Numbers = Mapping[str, Any]
Quantities = dict[str, Tensor]


class WrongPeerError(AssertionError):
    """A peer does not compute what it is timed for; the message names it and the quantity."""


@dataclass(frozen=True)
class Judge:
    """What is right, in float64, and what rounding allows a peer, by quantity.

    A peer computes by the manual formulas or by autograd's; the two bounds, walked in the batch's
    dtype, are added. Every batch of one dtype and size needs its own judge.
    """

    truth: Quantities
    allowed: Quantities
    what: str  # how a gradient is named: "d(mean loss)" or "dL"

    @staticmethod
    def of(batch: Batch) -> "Judge":
        """Of the mean loss and its gradient for PARAMETERS, shape ()."""
        count, arithmetic = batch.size, Arithmetic.of(batch.dtype)
        sums: Quantities = {}
        sizes: Quantities = {}
        bounds: Quantities = {}
        for values, errors in _walked(batch, ("loss", *manual_bp.PARAMETERS)):
            for name, value in values.items():
                _add(sums, name, value.sum())
                _add(sizes, name, value.abs().sum() + errors[name].sum())
                _add(bounds, name, errors[name].sum())
        # Of the mean: as a sum of n terms, divided by n before or after (two roundings more, and
        # each term may be flushed to zero); once for each of the two kinds of peer.
        roundings = 2 * (growth(count) + 3) * arithmetic.unit_roundoff
        flushed = 2 * (count + 1) * arithmetic.smallest_normal
        return Judge(
            {name: value / count for name, value in sums.items()},
            {n: (bounds[n] + roundings * sizes[n]) / count + flushed for n in sums},
            "d(mean loss)",
        )

    @staticmethod
    def of_samples(batch: Batch) -> "Judge":
        """Of all 21 gradients of each sample, shape (size,)."""
        parts = list(_walked(batch, None))
        names = [name for name in parts[0][0] if name not in ("loss", "t")]
        return Judge(
            {name: torch.cat([values[name] for values, _ in parts]) for name in names},
            {name: torch.cat([errors[name] for _, errors in parts]) for name in names},
            "dL",
        )

    def check(self, peer: str, found: Numbers) -> None:
        """Raise WrongPeerError where a number is off by more than rounding allows.

        Of means, the gradients may be missing or the loss, but not both.
        """
        wanted = {name for name in self.truth if name != "loss"}
        given = set(found) & self.truth.keys()
        if not given or given not in ({"loss"}, wanted, {*wanted, "loss"}):
            raise WrongPeerError(
                f"{peer}: it returns {', '.join(sorted(given)) or 'nothing that is asked for'}; "
                f"{', '.join(self.truth)} are asked for."
            )
        for name in sorted(given):
            self._check_one(peer, name, _as_tensor(found[name]))

    def _check_one(self, peer: str, name: str, value: Tensor) -> None:
        truth, allowed = self.truth[name], self.allowed[name]
        what = "the mean loss" if name == "loss" else f"{self.what}/d{name}"
        if value.numel() != truth.numel():
            raise WrongPeerError(
                f"{peer}: {what} has shape {tuple(value.shape)}, not {tuple(truth.shape)}."
            )
        value = value.reshape(truth.shape)
        wrong = ~((value - truth).abs() <= allowed)  # written so that NaN is wrong
        if bool(wrong.any()):
            at = int(wrong.flatten().nonzero()[0])
            place = f" of sample {at}" if truth.ndim else ""
            raise WrongPeerError(
                f"{peer}: {what}{place} is {float(value.flatten()[at])}; "
                f"{float(truth.flatten()[at])} is right, and rounding allows "
                f"{float(allowed.flatten()[at]):.1e}."
            )


def _as_tensor(value: Any) -> Tensor:
    """A tensor, an array of NumPy or JAX, or a number, in float64 on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().double().cpu()
    return torch.as_tensor(np.array(value, np.float64))


def _add(sums: Quantities, name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value


def _walked(batch: Batch, names: tuple[str, ...] | None) -> Any:
    """Values and bounds sample by sample, a chunk at a time; None: of every quantity."""
    on_cpu = Batch(batch.size, batch.dtype)
    parameters, inputs = on_cpu.parameters, on_cpu.inputs
    arithmetic = Arithmetic.of(batch.dtype)
    for first in range(0, batch.size, CHUNK):
        wide = {name: v[first : first + CHUNK].double() for name, v in inputs.items()}
        count = len(wide["t"])
        wide |= {n: v.double().expand(count).contiguous() for n, v in parameters.items()}
        hand, autograd = (walk(graph, wide, arithmetic) for graph in _graphs(count))
        wanted = autograd.values if names is None else names
        known = [name for name in wanted if name in hand.values]
        yield (
            {name: autograd.values[name] for name in known},
            {name: hand.bounds[name] + autograd.bounds[name] for name in known},
        )


@cache
def _graphs(count: int) -> tuple[Recorded, Recorded]:
    """Both sides on so many samples, every quantity and the loss."""
    example = Batch(count)
    values = {n: v.expand(count).contiguous() for n, v in example.parameters.items()}
    values |= example.inputs
    return record(_by_hand, values), record(_by_autograd, values)


def _by_hand(values: Quantities) -> Quantities:
    known = manual_values(values)
    parameters = {name: values[name] for name in manual_bp.PARAMETERS}
    return {
        "loss": known["loss"],
        **manual_bp.backward(parameters, known, check_values=False),
    }


def _by_autograd(values: Quantities) -> Quantities:
    reference = assignment_twin().reference
    return {"loss": reference(values)["loss"], **gradients_by_autograd(reference, values)}
