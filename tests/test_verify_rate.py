"""The benchmark of rates times what it says it times; the rates themselves are not tested."""

import pytest
import torch

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
