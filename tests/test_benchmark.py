"""`gradtwin bench`: what it refuses, writes, and calls worse. No times are judged."""

import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_ref.commands.bench
from torch_ref.benchmark import jax_peers, limit, memory, store
from torch_ref.benchmark.batch import Batch
from torch_ref.benchmark.judge import Judge, WrongPeerError
from torch_ref.benchmark.peers import BASE, WORKS, Peer, named
from torch_ref.benchmark.run import Plan, entry, peaks, why_not
from torch_ref.benchmark.timing import Spread, race, ratios
from torch_ref.cli import main

FEW = ("fused_gradients, torch", "fused_gradients, floats", "manual, torch", "autograd, eager")
SMALL = ["bench", "--quick", "--sizes", "1,10", "--dtype", "float64"]


@pytest.fixture
def few_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without those that compile for seconds."""
    monkeypatch.setitem(WORKS, "gradients", tuple(named("gradients", name) for name in FEW))


@pytest.fixture
def stored(tmp_path: Path, few_peers: None) -> Path:
    """A result as the command writes it."""
    path = tmp_path / "run.json"
    assert main([*SMALL, "--json", str(path)]) == 0
    return path


# timing ------------------------------------------------------------------------------------------


def test_every_round_has_a_turn_of_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    steps = {name: (lambda name=name: order.append(name)) for name in "abc"}
    monkeypatch.setattr("torch_ref.benchmark.timing.SHORTEST_TURN", 0.0)  # a call is a turn
    times = race(steps, seconds=0, least_turns=20)
    assert {name: len(found) for name, found in times.items()} == {"a": 20, "b": 20, "c": 20}
    turns = ["".join(order[i : i + 3]) for i in range(len(order) - 60, len(order), 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 20.0, 4.0], [1.0, 10.0, 2.0]) == Spread(2.0, 2.0, 2.0)
    assert Spread.of(list(range(11))) == Spread(5, 1, 9)


def test_a_turn_that_takes_long_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.06)

    monkeypatch.setattr("torch_ref.benchmark.timing._repeats", lambda step: 10)
    race({"slow": slow}, seconds=0, least_turns=1)
    assert len(calls) == 2  # one untimed, and one of ten


# peers -------------------------------------------------------------------------------------------


def spoilt(after: int, calls: list[int]) -> Peer:
    """A peer by hand whose dL/dw46 has the wrong sign from some call on."""
    right = named("gradients", "manual, torch")

    def build(batch: Batch) -> Callable[[], dict[str, Any]]:
        step = right.build(batch)

        def wrong() -> dict[str, Any]:
            calls.append(1)
            found = step()
            return {**found, "w46": -found["w46"]} if len(calls) > after else found

        return wrong

    return replace(right, name="spoilt", build=build)


def timed(peer: Peer) -> dict[str, Any]:
    batch = Batch(10)
    peers = [named("gradients", BASE["gradients"]), peer]
    return entry("gradients", batch, peers, Judge.of(batch), seconds=0, least_turns=2)


def test_a_wrong_peer_is_refused_by_name_before_it_is_timed() -> None:
    calls: list[int] = []
    found = timed(spoilt(0, calls))
    assert list(found["peers"]) == ["autograd, eager"]
    assert found["refused"]["spoilt"].startswith("spoilt: d(mean loss)/dw46 is ")
    assert len(calls) == 2


def test_a_peer_that_is_wrong_afterwards_is_refused_too() -> None:
    calls: list[int] = []
    found = timed(spoilt(5, calls))
    assert "spoilt" not in found["peers"]
    assert "dw46" in found["refused"]["spoilt"]
    assert len(calls) > 5


def test_nothing_is_timed_against_a_wrong_base() -> None:
    batch, wrong = Batch(10), replace(spoilt(0, []), name=BASE["gradients"])
    with pytest.raises(WrongPeerError, match="autograd, eager: "):
        entry("gradients", batch, [wrong], Judge.of(batch), seconds=0, least_turns=1)


def test_a_refused_peer_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = (named("gradients", "autograd, eager"), spoilt(0, []))
    monkeypatch.setitem(WORKS, "gradients", peers)
    assert main(["bench", "--quick", "--sizes", "10", "--dtype", "float64"]) == 1
    assert "refused: spoilt: d(mean loss)/dw46 is" in capsys.readouterr().out


def test_without_jax_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_peers, "find_spec", lambda name: None)
    reason = why_not(named("gradients", "jax.jit(grad)"), Batch(1))
    assert reason == "jax is not installed: pip install jax"


def test_jax_is_not_timed_with_other_threads_than_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = named("gradients", "jax.jit(grad)")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(torch.get_num_threads())))
    assert why_not(peer, Batch(1)) == ""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    assert why_not(peer, Batch(1)).startswith("JAX uses all 64 cores")


def test_without_a_compiler_one_sentence_and_the_floors_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    batch = Batch(10)
    for name in ("C loop", "C loop, with loss", "fused_gradients, torch"):
        reason = why_not(named("gradients", name), batch)
        assert reason.startswith("no C compiler is found (no-such-compiler): install gcc")
    (exponentials,) = limit.floors(batch, 3)[limit.ARITHMETIC]().values()
    x = torch.cat(list(batch.inputs.values()))
    assert torch.equal(exponentials, x.exp())


# the limit ---------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(limit.no_compiler(Batch(1))), reason="no C compiler")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1, 7, 1000, 5000])
def test_the_floors_do_what_they_are_named_for(size: int, dtype: torch.dtype) -> None:
    steps = limit.floors(Batch(size, dtype), 3)
    _, (x, source, target) = steps[limit.MEMORY]()[""]
    assert source.numel() == max(1, 3 * size // 2)
    assert torch.equal(source, target)
    found, _ = steps[limit.ARITHMETIC]()[""]
    assert found == pytest.approx(x.double().exp().sum().item(), rel=1e-4)


def test_the_c_loop_leaves_subnormal_numbers_alone() -> None:
    """Loading code that was linked with -ffast-math must not change how others compute."""
    limit.no_compiler(Batch(1))
    assert np.float32(1e-40) * np.float32(0.5) > 0
    assert float(torch.tensor(1e-310, dtype=torch.float64) * 0.5) > 0


# memory ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not memory.can_be_measured(), reason=memory.UNKNOWN)
def test_peak_memory_counts_what_a_step_needs() -> None:
    """By hand, every value of each sample is an array: more than ten times the inputs in float64"""
    found = memory.peak("gradients", "manual, torch", 300_000, "float64", 1)
    assert found["inputs"] == 3 * 300_000 * 8
    assert 3 * found["inputs"] < found["beyond_inputs"] < 30 * found["inputs"]


def test_a_process_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="nobody: its process ended with 1: KeyError: 'nobody'"):
        memory.peak("gradients", "nobody", 1, "float64", 1)


def test_a_peer_whose_memory_is_not_known_loses_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*given: Any) -> Any:
        raise RuntimeError(f"{given[1]}: its process ended with -9: it said nothing")

    monkeypatch.setattr(memory, "peak", killed)
    monkeypatch.setattr(memory, "can_be_measured", lambda: True)
    plan = Plan(["gradients"], [1], ["float32"], "cpu", 0.1, 1, brief=True)
    rows, reasons = peaks(plan, lambda what: None)
    assert not rows
    assert "its process ended with -9" in reasons["peak memory, float32, manual, torch"]


# the result --------------------------------------------------------------------------------------


def test_the_result_is_the_same_once_stored(stored: Path) -> None:
    result = store.read(stored)
    assert [(e["work"], e["dtype"], e["size"]) for e in result["entries"]] == [
        ("gradients", "float64", 1), ("gradients", "float64", 10),
    ]  # fmt: skip
    first, second = result["entries"]
    assert "fused_gradients, floats" in first["peers"]
    assert "fused_gradients, floats" not in second["peers"]
    assert second["peers"]["autograd, eager"]["speed_to_eager"]["median"] == 1
    assert second["peers"]["manual, torch"]["returns"] == "loss, gradients"
    for name in ("cpu", "cores", "threads", "torch", "numpy", "python", "compiler", "device"):
        assert result["machine"][name]
    assert set(result["load_average"]) == {"before", "after"}


def test_the_result_names_no_host_and_no_path(stored: Path) -> None:
    import platform

    text = stored.read_text()
    assert platform.node() not in text or len(platform.node()) < 3
    assert "/" not in json.dumps(store.read(stored)["machine"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory."),
        ("{", "is no result of gradtwin bench"),
        ('{"format": "another"}', "is no result of gradtwin bench"),
        ("[]", "is no result of gradtwin bench"),
    ],
)
def test_what_is_no_result_is_one_sentence(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.json"
    if content is not None:
        path.write_text(content)
    assert main(["bench", "--compare", str(path), str(path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_stored_run_is_not_worse_than_itself(stored: Path) -> None:
    assert main(["bench", "--compare", str(stored), str(stored)]) == 0


# the plot ----------------------------------------------------------------------------------------


def test_plots_are_written_whole(few_peers: None, tmp_path: Path) -> None:
    svg, png = tmp_path / "times.svg", tmp_path / "times.PNG"
    assert main([*SMALL, "--plot", str(svg), "--plot", str(png)]) == 0
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert png.read_bytes()[-8:-4] == b"IEND"
    assert ElementTree.fromstring(svg.read_text()).tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["times.PNG", "times.svg"]


def test_every_peer_has_a_line_of_its_own_in_the_plot() -> None:
    from torch_ref.benchmark.plot import STYLES

    names = [peer.name for peer in WORKS["gradients"]]
    assert set(STYLES) == {*names, limit.MEMORY, limit.ARITHMETIC}
    looks = [tuple(map(str, style.values())) for style in STYLES.values()]
    assert len(set(looks)) == len(looks)


def test_without_matplotlib_one_sentence_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch_ref.commands.bench, "find_spec", lambda name: None)
    assert main([*SMALL, "--plot", str(tmp_path / "times.svg")]) == 2
    captured = capsys.readouterr()
    assert captured.err == f"gradtwin: {torch_ref.commands.bench.NO_MATPLOTLIB}\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--plot", "times.pdf"], "give a plot's file an ending, .svg or .png."),
        (["--plot", "nowhere/times.svg"], "cannot be written"),
        (["--json", "nowhere/run.json"], "cannot be written"),
        (["--sizes", "0"], "'0': whole numbers from 1 to 1e8, with commas, are needed"),
        (["--sizes", "1e9"], "whole numbers from 1 to 1e8, with commas, are needed"),
        (["--sizes", "1,,10"], "whole numbers from 1 to 1e8, with commas, are needed"),
        (["--dtype", "float16"], "'float16': float32, float64 or float32,float64 is needed"),
        (["--threads", "0"], "a whole number of threads, 1 to 4096, is needed"),
        (["--device", "cuda:99"], "cuda"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["bench", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert sentence in capsys.readouterr().err
