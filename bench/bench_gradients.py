"""Every peer of `gradtwin bench` under pytest-benchmark, batches of 1 to 10^6 samples.

`pytest bench --benchmark-only`; only verified peers are timed, and they are verified again after.
"""

from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.judge import Judge
from torch_ref.benchmark.peers import WORKS, Peer, ready

SIZES = (1, 100, 10_000, 1_000_000)


@cache
def judge(size: int, dtype: torch.dtype) -> Judge:
    return Judge.of(Batch(size, dtype))


@pytest.mark.benchmark(max_time=0.3, min_rounds=3)
@pytest.mark.parametrize("peer", WORKS["gradients"], ids=lambda peer: peer.name)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def bench_gradients(
    device: str, dtype: str, size: int, peer: Peer, benchmark: BenchmarkFixture
) -> None:
    batch = Batch(size, getattr(torch, dtype), device)
    _skip_what_cannot_run(peer, batch)
    torch.compiler.reset()  # its caches are of a limited number of shapes
    step = ready(peer, batch)
    known = judge(size, batch.dtype)
    known.check(peer.name, step())
    step()  # a compiled peer is compiled by now

    benchmark.group = f"{device}, {dtype}, {size:,} samples"
    benchmark.extra_info["peer"] = peer.name
    found: dict[str, Any] = benchmark(step)
    known.check(peer.name, found)


def _skip_what_cannot_run(peer: Peer, batch: Batch) -> None:
    if batch.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    if peer.largest and batch.size > peer.largest:
        pytest.skip(f"it is meant for batches of at most {peer.largest}")
    if reason := peer.missing(batch):
        pytest.skip(reason)
