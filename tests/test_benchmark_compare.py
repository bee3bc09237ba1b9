"""Two runs of `gradtwin bench` against each other: what has become worse, and what has not."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from torch_ref.benchmark import compare, store
from torch_ref.cli import main


def spread(median: float, width: float) -> dict[str, float]:
    return {"median": median, "low": median * (1 - width), "high": median * (1 + width)}


def run(speed: float, time: float, width: float = 0.02, **machine: Any) -> dict[str, Any]:
    """A stored result with one peer of ours and one of others'."""
    peer = {"speed_to_eager": spread(speed, width), "time_to_limit": spread(time, width)}
    peers = {"ours": {**peer, "own": True}, "theirs": {**peer, "own": False}}
    place = {"work": "gradients", "dtype": "float32", "size": 1000}
    return {
        "format": store.FORMAT,
        "machine": {"threads": 2, "device": "cpu", "cpu": "one", **machine},
        "entries": [{**place, "peers": peers}],
    }


def compared(old: dict[str, Any], new: dict[str, Any], folder: Path) -> int:
    paths = [folder / "old.json", folder / "new.json"]
    for path, result in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(result))
    return main(["bench", "--compare", *map(str, paths)])


@pytest.mark.parametrize(
    ("speed", "time", "worse"),
    [
        (30, 2.0, []),
        (15, 2.0, ["speed relative to eager autograd"]),
        (30, 4.0, ["time relative to the limit"]),
        (15, 4.0, ["speed relative to eager autograd", "time relative to the limit"]),
        (60, 1.0, []),
    ],
)
def test_a_ratio_that_has_become_worse_is_named(
    speed: float, time: float, worse: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(run(30, 2), run(speed, time), tmp_path) == bool(worse)
    lines = capsys.readouterr().out.splitlines()
    said = [line.partition(" was ")[0] for line in lines if line.startswith("worse: ")]
    assert said == [f"worse: ours, gradients, float32, 1,000 samples: {what}" for what in worse]
    assert lines[-1] == f"{len(worse)} of 2 ratios have become worse"


def test_what_lies_within_the_spread_of_both_is_not_worse(tmp_path: Path) -> None:
    assert compared(run(30, 2, 0.3), run(20, 3, 0.3), tmp_path) == 0
    assert compared(run(30, 2, 0.01), run(20, 3, 0.01), tmp_path) == 1


def test_some_percent_between_two_processes_are_not_worse(tmp_path: Path) -> None:
    assert compared(run(30, 2, 0.001), run(30 / 1.09, 2 * 1.09, 0.001), tmp_path) == 0
    assert compared(run(30, 2, 0.001), run(30 / 1.11, 2, 0.001), tmp_path) == 1


def test_a_peer_of_ours_that_is_gone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = run(30, 2)
    new["entries"][0]["peers"]["another"] = new["entries"][0]["peers"]["ours"]
    old = deepcopy(new)
    del new["entries"][0]["peers"]["another"]
    assert compared(old, new, tmp_path) == 0
    assert "note: another, gradients, float32, 1,000 samples" in capsys.readouterr().out


def test_runs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="the old one has threads 2, the new one 1"):
        compare.changes(run(30, 2), run(30, 2, threads=1))
    other = run(30, 2)
    other["entries"][0]["size"] = 10
    with pytest.raises(ValueError, match="no work, dtype, batch size and peer in common"):
        compare.changes(run(30, 2), other)
    del other["entries"][0]["size"]
    with pytest.raises(ValueError, match="A result is damaged"):
        compare.changes(run(30, 2), other)
