"""Sweeps as their users run them: killed, stopped, shared between ranks, and gone on with."""

import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import torch_ref.compare.judge
import torch_ref.report
import torch_ref.sweep.lines
import torch_ref.sweep.run
import torch_ref.sweep.shards
from torch_ref import arguments, assignment_twin, verify
from torch_ref.cli import main
from torch_ref.compare.cases import SHARD, Cases
from torch_ref.loading import find_twin
from torch_ref.native.compiler import has_compiler
from torch_ref.sweep.shards import Plan

SHARDS = 12
CASES = SHARDS * SHARD - 1000
# A mistake in one case of 50,000. Who wants to kill it is told the process's number, and given
# time to.
MINE = """
import os
import time
from pathlib import Path

import torch

from torch_ref import Twin

if "RANK" in os.environ:
    Path(f"process-{os.environ['RANK']}").write_text(str(os.getpid()))


def inputs(draw):
    time.sleep(float(os.environ.get("PAUSE", 0)))
    return {"x": draw.normal(), "w": draw.normal()}


def reference(values):
    y = values["w"] * values["x"]
    return {"y": y, "loss": y * y / 2}


def manual(values):
    y = values["w"] * values["x"]
    dw = y * values["x"]
    return {"y": y, "w": torch.where(values["x"] > 4.1, 2 * dw, dw), "x": y * values["w"]}


twin = Twin("mine", inputs, reference, manual, stress=())
"""
SWEEP = ["sweep", "mine.py", "--cases", str(CASES), "--json", "found.json", "--ledger"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that everything happens in, with a twin in it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Children take SIGINT, even where these tests were started in a shell's background, with &:
    such processes ignore it, and so would their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def started(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rank(number: int, world: int, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch_ref", *SWEEP, "ledger", *options]
    pause = "0" if options else "0.05"
    return started(command, RANK=str(number), WORLD_SIZE=str(world), PAUSE=pause)


def finished(ledger: str) -> list[int]:
    """How many shards each file of the ledger has."""
    files = sorted(Path(ledger).glob("rank-*.jsonl"))
    return [max(file.read_bytes().count(b"\n") - 1, 0) for file in files]


def wait_for(ledger: str, ranks: int, shards: int) -> None:
    until = time.monotonic() + 60
    while len(found := finished(ledger)) < ranks or min(found) < shards:
        assert time.monotonic() < until, "the sweep does not get on"
        time.sleep(0.002)


def uninterrupted() -> Any:
    """The report of one process that nobody disturbs, as JSON."""
    assert main([*SWEEP, "undisturbed"]) == 1
    found = json.loads(Path("found.json").read_text())
    Path("found.json").unlink()
    return found


# one process -------------------------------------------------------------------------------------


def test_a_sweep_reports_as_verify_does(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cases", "50000", "--json"]
    assert main(["sweep", "--ledger", "ledger", *options, "sweep.json"]) == 0
    swept = capsys.readouterr().out
    assert main(["verify", "--dtype", "float64", *options, "verify.json"]) == 0
    assert swept == capsys.readouterr().out
    assert Path("sweep.json").read_text() == Path("verify.json").read_text()


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_what_differs_is_explained_as_by_verify(
    dtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["mine.py", "--cases", str(CASES), "--dtype", dtype, "--json"]
    assert main(["sweep", "--ledger", "ledger", *options, "sweep.json"]) == 1
    swept = capsys.readouterr().out
    assert main(["verify", *options, "verify.json"]) == 1
    assert swept == capsys.readouterr().out
    assert Path("sweep.json").read_text() == Path("verify.json").read_text()
    assert "differ: The mistake enters at dL/dw: nothing before it" in swept


def test_the_failing_case_replays(capsys: pytest.CaptureFixture[str]) -> None:
    uninterrupted()
    output = capsys.readouterr().out
    (command,) = re.findall(r"look at it: gradtwin (.*)", output)
    assert int(command.split()[1].split(":")[1]) > SHARD  # of no first shard
    assert main(shlex.split(command)) == 1
    row = next(line for line in capsys.readouterr().out.splitlines() if "dL/dw" in line)
    assert row.split()[-1] == "differ"


def test_a_twin_of_one_case_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Three shards; a mistake for odd sizes alone."""
    Path("one.py").write_text(
        "from dataclasses import replace\n"
        "from torch_ref.gallery.linear import linear_twin\n"
        "def manual(values):\n"
        "    found = linear_twin.manual(values)\n"
        "    name = list(found)[-1]\n"
        "    return {**found, name: found[name] * (1 + found[name].shape[0] % 2)}\n"
        "twin = replace(linear_twin, manual=manual)\n"
    )
    options = ["one.py:twin", "--cases", "260", "--json"]
    assert main(["sweep", "--ledger", "ledger", *options, "sweep.json"]) == 1
    swept = capsys.readouterr().out
    assert main(["verify", "--dtype", "float64", *options, "verify.json"]) == 1
    assert swept == capsys.readouterr().out
    assert without_sums("sweep.json") == without_sums("verify.json")
    assert finished("ledger") == [3]


def test_larger_shards_have_the_same_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    twin = find_twin("mine.py").twin
    cases, many = Cases(twin, torch.float64, torch.device("cpu"), 0), 5 * SHARD + 10
    plan = Plan(many, 2 * SHARD)
    cut = [batch for shard in range(plan.shards) for batch in plan.batches(cases, shard)]
    for one, other in zip(cut, cases.batches(many), strict=True):
        assert (one.first, one.count) == (other.first, other.count)
        assert all(torch.equal(one.inputs[name], other.inputs[name]) for name in other.inputs)
    monkeypatch.setattr(torch_ref.sweep.shards, "MANY_LINES", SHARDS // 3)
    assert uninterrupted()["reports"][0]["rows"][1]["wrong"] > 0
    assert finished("undisturbed") == [-(-SHARDS // 2)]


def without_sums(file: str) -> Any:
    """A report but for the means over all cases: `verify` adds these up case by case, and not
    shard by shard, which rounds otherwise."""
    (report,) = json.loads(Path(file).read_text())["reports"]
    means = ("digits_manual", "digits_reference")
    rows = [{key: row[key] for key in row if key not in means} for row in report["rows"]]
    return report | {"rows": rows}


def test_a_breach_and_a_note_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """What `verify` says besides the numbers comes back from the ledger, in its order."""
    text = MINE.replace('return {"y": y, "w"', 'values["x"] += 0\n    return {"y": y[:1], "w"')
    Path("mine.py").write_text(text.replace("torch.where(", "float(y[0]) * 0 + torch.where("))
    options = ["mine.py", "--cases", "40000", "--json"]
    for more in (["--ledger", "ledger"], ["--ledger", "ledger", "--resume"]):
        assert main(["sweep", *more, *options, "sweep.json"]) == 1
        swept = capsys.readouterr().out
        assert main(["verify", "--dtype", "float64", *options, "verify.json"]) == 1
        assert swept == capsys.readouterr().out
    assert "granted" in swept


def test_a_sweep_can_be_made_longer(capsys: pytest.CaptureFixture[str]) -> None:
    report = verify(find_twin("mine.py").twin, cases=100_000).to_dict()
    for cases in (50_000, 100_000):
        options = ["--cases", str(cases), "--ledger", "ledger", "--resume", "--json", "found.json"]
        assert main(["sweep", "mine.py", *options]) == 1
        begins = "gradtwin: ledger holds no ledger yet: a new one begins.\n"
        assert capsys.readouterr().err == (begins if cases == 50_000 else "")
    found = json.loads(Path("found.json").read_text())["reports"][0]
    assert found == json.loads(json.dumps(report))


@pytest.fixture
def compiled_early(monkeypatch: pytest.MonkeyPatch) -> int:
    """So few cases as are worth a compiled judge here: the assignment's take a while otherwise."""
    monkeypatch.setattr(torch_ref.compare.judge, "COMPILED_FROM", 2 * SHARD)
    return 2 * SHARD


def swept(cases: int, *options: str) -> Any:
    """The assignment's sweep of so many cases, as JSON."""
    command = ["sweep", "--cases", str(cases), "--json", "found.json", "--ledger"]
    assert main([*command, *options]) == 0
    return json.loads(Path("found.json").read_text())


def test_a_sweep_made_longer_goes_on_with_its_judge(compiled_early: int) -> None:
    """The compiled judge and the plain one round otherwise."""
    if not has_compiler():
        pytest.skip("no C compiler is found")
    longer = compiled_early + SHARD
    swept(compiled_early - SHARD, "plain")
    assert header("plain")["judge"] == "plain"
    at_once = verify(assignment_twin(), cases=longer).to_dict()
    once = json.loads(json.dumps(swept(longer, "compiled")["reports"][0]))
    assert header("compiled")["judge"] == "compiled"
    assert once == json.loads(json.dumps(at_once))
    again = swept(longer, "plain", "--resume")["reports"][0]
    assert again["verdict"] == "agree"
    assert again != once  # by the plain judge throughout
    swept(compiled_early, "parts")
    assert swept(longer, "parts", "--resume")["reports"][0] == once


def test_a_compiled_ledger_without_a_compiler(
    compiled_early: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not has_compiler():
        pytest.skip("no C compiler is found")
    swept(compiled_early, "ledger")
    monkeypatch.setenv("CC", "no-such-compiler")
    command = ["sweep", "--cases", str(3 * SHARD), "--ledger", "ledger", "--resume"]
    assert main(command) == 2
    assert "the judge is compiled there and plain here" in capsys.readouterr().err


def header(ledger: str) -> Any:
    with Path(ledger, "rank-0.jsonl").open() as file:
        return json.loads(file.readline())


# killed and stopped ------------------------------------------------------------------------------


def test_two_ranks_killed_and_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of the work, of both; then both again, and what they find is the
    same to the last bit."""
    expected = uninterrupted()
    ranks = [rank(0, 2), rank(1, 2)]
    wait_for("ledger", 2, 3)
    for process in ranks:
        process.kill()
    for process in ranks:
        process.communicate()
    assert sum(finished("ledger")) < SHARDS
    assert not Path("found.json").exists()
    first = rank(0, 2, "--resume")
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*SWEEP, "ledger", "--resume"]) == 0
    assert capsys.readouterr() == ("", "")
    output, errors = first.communicate()
    assert (first.returncode, errors) == (1, ""), output
    assert json.loads(Path("found.json").read_text()) == expected
    assert sum(finished("ledger")) == SHARDS  # nothing was done twice


def test_torchrun_with_one_rank_killed(capsys: pytest.CaptureFixture[str]) -> None:
    """Rank 1 dies: torchrun ends rank 0, which says how to go on; one process ends the work."""
    expected = uninterrupted()
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *torchrun, "-m", "torch_ref", *SWEEP, "ledger"]
    process = started(command, PAUSE="0.3")
    wait_for("ledger", 2, 2)
    os.kill(int(Path("process-1").read_text()), signal.SIGKILL)
    _, errors = process.communicate()
    assert sum(finished("ledger")) < SHARDS
    assert not Path("found.json").exists()
    assert "gradtwin: stopped. Go on with: torchrun --nproc-per-node 2 -m torch_ref sweep" in errors
    capsys.readouterr()
    assert main([*SWEEP, "ledger", "--resume"]) == 1
    assert json.loads(Path("found.json").read_text()) == expected
    assert sum(finished("ledger")) == SHARDS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_gone_on_with_by_the_command_it_says(number: signal.Signals) -> None:
    process = started([sys.executable, "-m", "torch_ref", *SWEEP, "ledger"], PAUSE="0.3")
    wait_for("ledger", 1, 2)
    process.send_signal(number)
    output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert sum(finished("ledger")) < SHARDS
    (command,) = re.findall(r"^gradtwin: stopped. Go on with: gradtwin (.*)\n$", errors)
    assert main(shlex.split(command)) == 1
    assert json.loads(Path("found.json").read_text()) == uninterrupted()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write = os.write
    written: list[int] = []

    def full(file: int, data: bytes) -> int:
        if len(written) == 5:
            written.append(write(file, data[:50]))
            return 50
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(write(file, data))
        return written[-1]

    with monkeypatch.context() as patch:
        patch.setattr(torch_ref.sweep.lines.os, "write", full)
        assert main([*SWEEP, "ledger"]) == 2
    output, errors = capsys.readouterr()
    assert not output
    (command,) = re.findall(
        r"^gradtwin: ledger/rank-0.jsonl cannot be written: the disk is full. What is finished is "
        r"kept. Go on with: gradtwin (.*)\n$",
        errors,
    )
    assert finished("ledger") == [4]
    assert main(shlex.split(command)) == 1
    assert json.loads(Path("found.json").read_text()) == uninterrupted()


# ranks that come and go --------------------------------------------------------------------------


def as_rank(monkeypatch: pytest.MonkeyPatch, number: int, world: int, *options: str) -> int:
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    return main(["sweep", "--cases", "240000", "--ledger", "ledger", *options])


def test_a_rank_that_never_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch_ref.sweep.run, "GRACE", 0.3)
    assert as_rank(monkeypatch, 0, 3) == 2
    output, errors = capsys.readouterr()
    assert not output
    assert errors.startswith(
        "gradtwin: 2 of 4 shards are missing, and nobody is at work on them (rank 1, 2). What is "
        "finished is kept. Go on with: gradtwin sweep --cases 240000 --ledger ledger "
    )
    assert as_rank(monkeypatch, 1, 3) == 0
    assert capsys.readouterr() == ("", "")
    assert as_rank(monkeypatch, 0, 2, "--resume") == 0  # rank 0 of 2 now has what rank 2 of 3 had
    assert "assignment, 240,000 cases, float64, cpu, seed 0" in capsys.readouterr().out
    assert sum(finished("ledger")) == 4


def test_what_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one sentence each; the ledger itself has more in test_ledger.py."""
    sweep = ["sweep", "--cases", "1000", "--ledger", "ledger"]
    assert main(sweep) == 0
    for command, says in [
        (sweep, "ledger holds a ledger already: add --resume"),
        ([*sweep, "--resume", "--seed", "1"], "the seed is 0 there and 1 here"),
        ([*sweep, "--resume", "--dtype", "float32"], "the dtype is float64 there and float32 here"),
        ([*sweep, "mine.py", "--resume"], "the twin is assignment there and mine.py:twin here"),
        ([*sweep[:-1], "mine.py/x"], "mine.py/x cannot hold a ledger"),
        ([*sweep[:-1], "new", "--json", "no/where.json"], "no/where.json cannot be written"),
        ([*sweep[:-1], "new", "nobody.py"], "nobody.py does not exist"),
    ]:
        capsys.readouterr()
        assert main(command) == 2
        output, errors = capsys.readouterr()
        assert not output
        assert re.fullmatch(f"gradtwin: .*{re.escape(says)}.*\n", errors), errors
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(sweep) == 2
    assert "gradtwin: RANK must be from 0 to WORLD_SIZE - 1" in capsys.readouterr().err


# what it shows, what it takes --------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_has_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("torch_ref.sweep.progress.BETWEEN", 0.0)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, legacy_windows=False)
    monkeypatch.setattr(torch_ref.report, "report_console", lambda: console)
    assert main(["sweep", "mine.py", "--cases", "500000", "--ledger", "ledger"]) == 1
    output = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())
    shown = re.findall(r"(\d+)% ([\d,]+) cases/s (\d:\d\d:\d\d)", output)
    assert bool(shown) == terminal, output
    assert output.count("mine, 500,000 cases") == 1


@pytest.mark.parametrize(
    ("text", "cases"),
    [("1e9", 10**9), ("1_000_000_000", 10**9), ("2.5e6", 2_500_000), ("7", 7), ("1E+3", 1000)],
)
def test_many_cases_as_people_write_them(text: str, cases: int) -> None:
    assert arguments.cases(text) == cases


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "1.5", "1e-3", "2.55e1", "1__0", "_1", "1e", "nan", "1e19", "1e99", "٣"]
)
def test_what_is_no_number_of_cases(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="a whole number of cases, 1 to 1e18, is needed"):
        arguments.cases(text)
