"""Every peer of `gradtwin bench` under pytest-benchmark, batches of 1 to 10^7 samples.

`pytest bench --benchmark-only`; only verified peers are timed, and they are verified again after.
Peak memory is measured by `gradtwin bench` alone, in processes of its own.
"""

from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.judge import Judge
from torch_ref.benchmark.peers import WORKS, Peer, ready

SIZES = (1, 100, 10_000, 1_000_000, 10_000_000)
PER_SAMPLE = 1_000_000  # the largest batch of which every sample has its own 21 gradients
PEERS = [(work, peer) for work, peers in WORKS.items() for peer in peers]


@cache
def judge(work: str, size: int, dtype: torch.dtype) -> Judge:
    batch = Batch(size, dtype)
    return Judge.of_samples(batch) if work == "per-sample" else Judge.of(batch)


@pytest.mark.benchmark(max_time=0.3, min_rounds=3)
@pytest.mark.parametrize(("work", "peer"), PEERS, ids=[f"{w}-{p.name}" for w, p in PEERS])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def bench_gradients(
    device: str, dtype: str, size: int, work: str, peer: Peer, benchmark: BenchmarkFixture
) -> None:
    batch = Batch(size, getattr(torch, dtype), device)
    _skip_what_cannot_run(work, peer, batch)
    torch.compiler.reset()  # its caches are of a limited number of shapes
    step = ready(peer, batch)
    known = judge(work if work == "per-sample" else "gradients", size, batch.dtype)
    known.check(peer.name, step())
    step()  # a compiled peer is compiled by now

    benchmark.group = f"{work}, {device}, {dtype}, {size:,} samples"
    benchmark.extra_info["peer"] = peer.name
    found: dict[str, Any] = benchmark(step)
    known.check(peer.name, found)


def _skip_what_cannot_run(work: str, peer: Peer, batch: Batch) -> None:
    if work == "per-sample" and batch.size > PER_SAMPLE:
        pytest.skip("the gradients of so many samples do not fit into memory everywhere")
    if batch.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    if peer.largest and batch.size > peer.largest:
        pytest.skip(f"it is meant for batches of at most {peer.largest}")
    if reason := peer.missing(batch):
        pytest.skip(reason)
