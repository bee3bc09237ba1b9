"""The benchmark's peers agree, and a wrong one would not be timed."""

from collections.abc import Iterator

import jax
import pytest
import torch

from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.judge import Judge
from torch_ref.benchmark.peers import WORKS, named, ready

DTYPES = {"float64": torch.float64, "float32": torch.float32}


@pytest.fixture(autouse=True)
def jax_as_it_was() -> Iterator[None]:
    """The peers switch float64 on in JAX, which other tests do not expect."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("work", WORKS)
def test_peers_agree(work: str, size: int, dtype: str) -> None:
    batch = Batch(size, DTYPES[dtype])
    judge = Judge.of_samples(batch) if work == "per-sample" else Judge.of(batch)
    for peer in WORKS[work]:
        if "compiled" in peer.name or (peer.largest and size > peer.largest):
            continue
        if not peer.missing(batch):
            judge.check(peer.name, ready(peer, batch)())


@pytest.mark.parametrize(
    ("work", "name"),
    [(w, p.name) for w, peers in WORKS.items() for p in peers if "compiled" in p.name],
)
def test_compiled_peers_agree(work: str, name: str) -> None:
    batch, peer = Batch(100, torch.float32), named(work, name)
    if reason := peer.missing(batch):
        pytest.skip(reason)
    torch.compiler.reset()
    judge = Judge.of_samples(batch) if work == "per-sample" else Judge.of(batch)
    judge.check(name, ready(peer, batch)())


@pytest.mark.parametrize("error", [1e-6, float("nan")])
def test_a_wrong_peer_is_refused(error: float) -> None:
    batch = Batch(100)
    gradients = ready(named("gradients", "manual, torch"), batch)()
    gradients["w46"] = gradients["w46"] * (1 + error)
    with pytest.raises(AssertionError, match="a wrong one: d\\(mean loss\\)/dw46 is"):
        Judge.of(batch).check("a wrong one", gradients)


def test_a_wrong_loss_and_a_wrong_sample_are_refused() -> None:
    batch = Batch(100)
    found = ready(named("gradients", "manual, torch"), batch)()
    with pytest.raises(AssertionError, match="a wrong one: the mean loss is"):
        Judge.of(batch).check("a wrong one", {**found, "loss": found["loss"] * (1 + 1e-9)})
    each = ready(named("per-sample", "manual, torch"), batch)()
    each["x1"] = each["x1"].clone()
    each["x1"][7] *= 1 + 1e-9
    with pytest.raises(AssertionError, match="a wrong one: dL/dx1 of sample 7 is"):
        Judge.of_samples(batch).check("a wrong one", each)


def test_a_peer_that_leaves_a_gradient_out_is_refused() -> None:
    batch = Batch(10)
    found = ready(named("gradients", "manual, torch"), batch)()
    del found["b6"]
    with pytest.raises(AssertionError, match=r"a wrong one: it returns b3, .*are asked for"):
        Judge.of(batch).check("a wrong one", found)


def test_the_check_leaves_threads_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """To set them makes MKL split small arrays from then on: eager peers would be too slow."""
    monkeypatch.setattr(torch, "set_num_threads", lambda number: pytest.fail("it sets threads"))
    Judge.of(Batch(10))
    Judge.of_samples(Batch(10))
