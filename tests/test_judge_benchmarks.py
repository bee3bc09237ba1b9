"""The benchmarks of the judge time what they say they time; the times themselves are not tested."""

import pytest
import torch

import bench.overhead
import bench.verify_rate
from bench.verify_rate import MANY, gradcheck_rate, table, verify_rate
from torch_ref.compare.cases import SHARD
from torch_ref.compare.compiled import COMPILED_FROM, Compiled


def test_gradcheck_passes_most_right_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.verify_rate, "CHECKED", 13)  # one of each stratum and stress
    rate, passed = gradcheck_rate(fast=True)
    assert rate > 0
    assert 0.5 < passed <= 1


@pytest.mark.parametrize("expected", [0, COMPILED_FROM])
def test_verify_judges_as_it_is_said(expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[bool] = []
    monkeypatch.setattr(Compiled, "__call__", lambda *_: used.append(True))
    assert verify_rate(torch.float32, expected, SHARD) > 0
    assert len(used) == (3 if expected else 0)  # two shards to begin with, and the one timed


def test_the_table() -> None:
    text = table([("gradcheck", 50.0, "slow"), ("verify", 1e6, "")], 444.4)
    assert "| gradcheck | 50 | 1 | slow |" in text
    assert "| verify | 1,000,000 | 20,000 |  |" in text
    assert "444 MiB" in text
    assert MANY >= COMPILED_FROM


def test_what_the_bounds_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.overhead, "CASES", 2)
    monkeypatch.setattr(bench.overhead, "ROUNDS", 1)
    twin = next(twin for twin in bench.overhead.twins() if twin.name == "linear")
    cost = bench.overhead.cost(twin)
    assert min(cost.floor, cost.bounds, cost.verdict) > 0
    text = bench.overhead.table({"linear": cost, "again": cost})
    assert f"| median | | {cost.bounds / cost.floor:.1f} x |" in text
