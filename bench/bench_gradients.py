"""Manual against autograd: time for the mean loss's gradient, batches of 1 to 10^6 samples.

`pytest bench --benchmark-only`; only verified peers are timed, and they are verified again after.
"""

import shutil
from functools import cache

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.peers import PEERS, Batch, Gradients, Judge

SIZES = (1, 100, 10_000, 1_000_000)


@cache
def judge(size: int, dtype: torch.dtype) -> Judge:
    return Judge.of(Batch(size, dtype))


@pytest.mark.benchmark(max_time=0.3, min_rounds=3)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def bench_gradients(
    device: str, dtype: str, size: int, peer: str, benchmark: BenchmarkFixture
) -> None:
    _skip_what_cannot_run(device, peer)
    batch = Batch(size, getattr(torch, dtype), device)
    step = PEERS[peer](batch)
    known = judge(size, batch.dtype)
    known.check(peer, step())
    step()  # a compiled peer is compiled by now

    def timed() -> Gradients:
        gradients = step()
        if device == "cuda":
            torch.cuda.synchronize()
        return gradients

    benchmark.group = f"{device}, {dtype}, {size:,} samples"
    benchmark.extra_info["peer"] = peer
    known.check(peer, benchmark(timed))


def _skip_what_cannot_run(device: str, peer: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    if device == "cuda" and "NumPy" in peer:
        pytest.skip("NumPy computes on the CPU")
    if "compile" in peer and not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("torch.compile needs a C++ compiler")
