"""The one table of peers, for `gradtwin bench`, `pytest bench` and the tests.

Each is built for a batch and gives a step: a call without arguments that returns, by name, what is
in the peer's `returns`. Building takes the inputs into the form that the peer wants them in; a step
is what is timed.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from torch_ref.benchmark import autograd_peers, jax_peers, limit
from torch_ref.benchmark.batch import Batch
from torch_ref.fused import fused_backward, fused_gradients

Step = Callable[[], dict[str, Any]]
GRADIENTS, BOTH, LOSS = "gradients", "loss, gradients", "loss"
CHECKED, GRADIENTS_CHECKED = "loss, gradients; checks", "gradients; checks"
ALL, ALL_CHECKED = "21 gradients", "21 gradients; checks"


def _always(batch: Batch) -> str:
    return ""


@dataclass(frozen=True)
class Peer:
    """One way to the same numbers.

    returns: what a step gives; "checks": it raises where a value is not finite; missing(batch): why
    it cannot run, "" where it can; largest: the largest batch that it is meant for; own: whether it
    is this project's own code; variant: of another peer, left out where there is little time.
    """

    name: str
    returns: str
    build: Callable[[Batch], Step]
    missing: Callable[[Batch], str] = _always
    largest: int | None = None
    own: bool = False
    variant: bool = False


def _no_numpy(batch: Batch) -> str:
    return "" if batch.device == "cpu" else "NumPy computes on the CPU"


def _no_torch_compile(batch: Batch) -> str:
    there = any(map(shutil.which, ("c++", "g++", "clang++"))) or os.environ.get("CXX")
    return "" if there or batch.device != "cpu" else "torch.compile needs a C++ compiler"


def _no_fused(batch: Batch) -> str:
    return limit.no_compiler(batch) if batch.device == "cpu" else _no_torch_compile(batch)


def _as_numpy(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    parameters = {name: value.numpy() for name, value in batch.parameters.items()}
    return parameters, {name: value.numpy() for name, value in batch.inputs.items()}


def _as_tensors(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    return batch.parameters, batch.inputs


def _as_floats(batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    parameters, inputs = ({n: v.item() for n, v in d.items()} for d in _as_tensors(batch))
    return parameters, inputs


def _fused(batch: Batch, given: Callable[[Batch], Any]) -> Step:
    parameters, inputs = given(batch)

    def step() -> dict[str, Any]:
        loss, gradients = fused_gradients(parameters, inputs)
        gradients["loss"] = loss
        return gradients

    return step


def _fused_without_loss(batch: Batch, given: Callable[[Batch], Any]) -> Step:
    parameters, inputs = given(batch)
    return lambda: fused_gradients(parameters, inputs, loss=False)[1]


def _fused_samples(batch: Batch, given: Callable[[Batch], Any]) -> Step:
    parameters, inputs = given(batch)
    return lambda: fused_backward(parameters, inputs)


def _manual(batch: Batch, given: Callable[[Batch], Any], work: str) -> Step:
    parameters, inputs = given(batch)
    function = autograd_peers.MANUAL[work]
    return lambda: function(parameters, inputs)


def _by(function: Callable[..., Step], *arguments: Any, **options: Any) -> Callable[[Batch], Step]:
    def build(batch: Batch) -> Step:
        return function(batch, *arguments, **options)

    return build


_own = partial(Peer, own=True)
_fast_manual = autograd_peers.compiled_manual
_one_pass = autograd_peers.ONE_PASS
_then_backward, _module = autograd_peers.loss_then_backward, autograd_peers.forward_of_module

WORKS: dict[str, tuple[Peer, ...]] = {
    "gradients": (
        _own("fused_gradients, torch", CHECKED, _by(_fused, _as_tensors), _no_fused),
        _own("fused_gradients, NumPy", CHECKED, _by(_fused, _as_numpy), limit.no_compiler),
        _own("fused_gradients, floats", CHECKED, _by(_fused, _as_floats), largest=1),
        _own("fused_gradients, torch, no loss", GRADIENTS_CHECKED,
             _by(_fused_without_loss, _as_tensors), _no_fused),
        _own("fused_gradients, NumPy, no loss", GRADIENTS_CHECKED,
             _by(_fused_without_loss, _as_numpy), limit.no_compiler),
        _own("fused_gradients, floats, no loss", GRADIENTS_CHECKED,
             _by(_fused_without_loss, _as_floats), largest=1),
        _own("manual, NumPy", BOTH, _by(_manual, _as_numpy, "both"), _no_numpy),
        _own("manual, torch", BOTH, _by(_manual, _as_tensors, "both")),
        _own("manual, compiled", GRADIENTS, _by(_fast_manual, "gradients"), _no_torch_compile),
        _own("manual, compiled, with loss", BOTH, _by(_fast_manual, "both"), _no_torch_compile,
             variant=True),
        _own("manual, compiled in one pass", GRADIENTS,
             _by(_fast_manual, "gradients", _one_pass), _no_torch_compile, variant=True),
        Peer("autograd, eager", BOTH, _by(_then_backward, fast=False)),
        Peer("autograd, compiled loss", BOTH, _by(_then_backward, fast=True), _no_torch_compile),
        Peer("func.grad, compiled", GRADIENTS, autograd_peers.compiled_grad,
             _no_torch_compile),
        Peer("func.grad_and_value, compiled", BOTH, autograd_peers.compiled_grad_and_value,
             _no_torch_compile),
        Peer("jax.jit(grad)", GRADIENTS, jax_peers.grad, jax_peers.no_jax),
        Peer("jax.jit(value_and_grad)", BOTH, jax_peers.value_and_grad, jax_peers.no_jax),
        Peer("C loop", GRADIENTS, _by(limit.plain_loop, "gradients"), limit.no_compiler),
        Peer("C loop, with loss", BOTH, _by(limit.plain_loop, "both"), limit.no_compiler),
    ),
    "forward": (
        _own("manual, NumPy", LOSS, _by(_manual, _as_numpy, "forward"), _no_numpy),
        _own("manual, torch", LOSS, _by(_manual, _as_tensors, "forward")),
        _own("manual, compiled", LOSS, _by(_fast_manual, "forward"), _no_torch_compile),
        Peer("autograd, eager", LOSS, _by(_module, fast=False)),
        Peer("autograd, compiled loss", LOSS, _by(_module, fast=True), _no_torch_compile),
        Peer("jax.jit(loss)", LOSS, jax_peers.forward, jax_peers.no_jax),
        Peer("C loop", LOSS, _by(limit.plain_loop, "forward"), limit.no_compiler),
    ),
    "per-sample": (
        _own("fused_backward, torch", ALL_CHECKED, _by(_fused_samples, _as_tensors), _no_fused),
        _own("fused_backward, NumPy", ALL_CHECKED, _by(_fused_samples, _as_numpy),
             limit.no_compiler),
        _own("fused_backward, floats", ALL_CHECKED, _by(_fused_samples, _as_floats), largest=1),
        _own("manual, NumPy", ALL, _by(_manual, _as_numpy, "per-sample"), _no_numpy),
        _own("manual, torch", ALL, _by(_manual, _as_tensors, "per-sample")),
        _own("manual, compiled", ALL, _by(_fast_manual, "per-sample"), _no_torch_compile),
        Peer("vmap(grad), eager", ALL, _by(autograd_peers.per_sample, fast=False)),
        Peer("vmap(grad), compiled", ALL, _by(autograd_peers.per_sample, fast=True),
             _no_torch_compile),
        Peer("jax.jit(vmap(grad))", ALL, jax_peers.per_sample, jax_peers.no_jax),
    ),
}  # fmt: skip

# What every ratio is to: eager autograd.
BASE = {"gradients": "autograd, eager", "forward": "autograd, eager",
        "per-sample": "vmap(grad), eager"}  # fmt: skip
# Numbers that a sample makes any peer read and write. Of the 21 gradients 17 are different ones.
MOVED = {"gradients": 3, "forward": 3, "per-sample": 3 + 17}


def ready(peer: Peer, batch: Batch) -> Step:
    """The peer's step, synchronised: when it returns, the numbers are there."""
    step = peer.build(batch)
    if batch.device == "cpu":
        return step

    def synchronised() -> dict[str, Any]:
        found = step()
        torch.cuda.synchronize(batch.device)
        return found

    return synchronised


def named(work: str, name: str) -> Peer:
    """Raises KeyError where the table has no such peer."""
    return {peer.name: peer for peer in WORKS[work]}[name]
