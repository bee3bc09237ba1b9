"""What a sweep keeps: lines that read back to the bit, whatever was torn, filled up or mixed up."""

import errno
import json
import math
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_ref.sweep.ledger
import torch_ref.sweep.lines
from torch_ref.compare.cases import SHARD
from torch_ref.compare.histogram import BINS
from torch_ref.compare.pooled import Pool
from torch_ref.compare.said import Said
from torch_ref.compare.verdict import Tally
from torch_ref.sweep.identity import Identity
from torch_ref.sweep.ledger import Ledger, LedgerError
from torch_ref.sweep.lines import Appender, LinesError, is_being_written, whole_lines
from torch_ref.sweep.ranks import Ranks, RanksError
from torch_ref.sweep.shards import MOST_TOGETHER, Found, Plan, size_for

IDENTITY = Identity("mine.py:twin", "abc", 0, "float64", "cpu", 10, "plain", "0.1", "2.13", "2.4")
CASES = 35  # shards of 10, 10, 10 and 5
numbers = st.floats() | st.sampled_from([5e-324, -0.0, math.nan, math.inf, -math.inf])
counts = st.integers(0, 2**63)
words = st.text(max_size=20)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ref.sweep.lines, "PATIENCE", 0.0)


def ledger(folder: Path, rank: int = 0, world: int = 1, **options: Any) -> Ledger:
    given = {"cases": CASES, "resume": True, "identity": IDENTITY} | options
    return Ledger(folder, ranks=Ranks(rank, world), **given)


def found(shard: int, cases: int = CASES) -> Found:
    count = Plan(cases, IDENTITY.shard).count(shard)
    return Found(shard, count, 0, {"x": Tally("x", elements=count, digits_manual=0.1 * shard)})


def write(folder: Path, *shards: int, **options: Any) -> None:
    kept = ledger(folder, **options)
    for shard in shards:
        kept.append(found(shard))
    kept.close()


def bits(value: Any) -> Any:
    """The value with every float as its bytes, but one NaN for all."""
    if isinstance(value, float):
        return struct.pack("d", math.nan if math.isnan(value) else value)
    if isinstance(value, dict):
        return [(key, bits(item)) for key, item in value.items()]
    return [type(value), *map(bits, value)] if isinstance(value, (list, tuple)) else value


# lines -------------------------------------------------------------------------------------------

worst = st.fixed_dictionaries(
    {
        "case": st.builds("{}:{}".format, counts, counts),
        "element": st.lists(st.integers(0, 9), max_size=3).map(tuple),
        "manual": numbers,
        "reference": numbers,
        "tolerance": numbers,
    }
)
tallies = st.builds(
    Tally, name=words, elements=counts, decided=counts, wrong=counts, wrong_at_kinks=counts,
    worst_ratio=numbers, worst=worst | st.just({}), digits_manual=numbers,
    digits_reference=numbers, pool=st.builds(Pool, numbers, numbers, numbers, counts, numbers),
    histogram=st.lists(counts, min_size=BINS, max_size=BINS).map(tuple),
)  # fmt: skip
texts = st.lists(words, max_size=3).map(dict.fromkeys)
said = st.builds(Said, *[texts] * len(fields(Said)))
some = st.lists(tallies, max_size=4).map(lambda many: {one.name: one for one in many})


@settings(deadline=None)
@given(st.builds(Found, counts, counts, counts, some, said))
def test_what_was_found_reads_back_to_the_bit(one: Found) -> None:
    line = json.dumps(one.to_json(), allow_nan=False)
    again = Found.from_json(json.loads(line))
    assert bits(asdict(again)) == bits(asdict(one))


def test_a_tally_has_no_field_that_a_line_does_not_keep() -> None:
    """The strategy above would not know of a new one."""
    names = {"name", "elements", "decided", "wrong", "wrong_at_kinks", "worst_ratio", "worst"}
    names |= {"digits_manual", "digits_reference", "pool", "histogram"}
    assert {field.name for field in fields(Tally)} == names
    assert len(fields(Pool)) == 5


def test_a_line_torn_at_any_byte_is_dropped_and_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # milliseconds each
    whole = tmp_path / "whole"
    write(whole, 0, 1)
    data = (whole / "rank-0.jsonl").read_bytes()
    ends = [start + len(line) for start, line in whole_lines(whole / "rank-0.jsonl")]
    assert len(ends) == 3
    for length in range(len(data) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "rank-0.jsonl").write_bytes(data[:length])
        kept = ledger(folder)
        missing = list(kept.missing())
        assert missing == list(range(max(sum(length >= end for end in ends) - 1, 0), 4)), length
        for shard in missing:
            kept.append(found(shard))
        kept.close()
        again = ledger(folder)
        assert [again.read(shard) for shard in range(4)] == [found(shard) for shard in range(4)]
        again.close()
        assert (folder / "rank-0.jsonl").read_bytes()[: len(data)] == data


def test_a_torn_line_of_a_rank_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1, 3, rank=1, world=2)
    other = tmp_path / "rank-1.jsonl"
    other.write_bytes(other.read_bytes()[:-3])
    kept = ledger(tmp_path)
    assert list(kept.missing()) == [0, 2, 3]
    kept.close()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    write(tmp_path, 0, 1)
    file = tmp_path / "rank-0.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    for damage in (b"\0" * 20 + b"\n", b"[1]\n", b"\xff\n"):
        file.write_bytes(lines[0] + damage + lines[2])
        with pytest.raises(LinesError, match=f"damaged at byte {len(lines[0])}: delete that line"):
            ledger(tmp_path)
    for damage in (b'{"shard":"0","cases":10}\n', b'{"cases":10}\n', b'{"shard":0,"cases":1.5}\n'):
        file.write_bytes(lines[0] + damage + lines[2])
        with pytest.raises(LinesError, match=f"damaged at byte {len(lines[0])}: delete that line"):
            ledger(tmp_path)
    shorter = json.loads(lines[1])
    for tally in shorter["tallies"].values():
        tally.pop()
    for damage in (b'{"shard":0,"cases":10}\n', json.dumps(shorter).encode() + b"\n"):
        file.write_bytes(lines[0] + damage + lines[2])
        kept = ledger(tmp_path)
        with pytest.raises(LinesError, match=f"damaged at byte {len(lines[0])}: delete that line"):
            kept.read(0)
        kept.close()


# the disk ----------------------------------------------------------------------------------------


def full_after(bytes_left: int, code: int) -> Callable[[int, bytes], int]:
    """os.write on a disk with so much room."""
    write_, room = os.write, [bytes_left]

    def write(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(code, os.strerror(code))
        written = write_(file, data[: room[0]])
        room[0] -= written
        return written

    return write


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "your share of the disk is used up"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_loses_nothing_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, code: int, says: str
) -> None:
    kept = ledger(tmp_path)
    kept.append(found(0))
    before = (tmp_path / "rank-0.jsonl").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_after(room, code))
        with pytest.raises(LinesError, match=f"{says}. What is finished is kept"):
            kept.append(found(1))
    assert (tmp_path / "rank-0.jsonl").read_bytes() == before
    kept.append(found(1))
    assert list(kept.missing()) == [2, 3]
    kept.close()


def test_each_line_is_on_the_disk_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    file = tmp_path / "lines"
    monkeypatch.setattr(os, "fsync", lambda _: sizes.append(file.stat().st_size))
    lines = Appender(file)
    for number in range(3):
        lines.append({"n": number})
    lines.close()
    assert sizes[-3:] == [8, 16, 24]


def test_no_folder_can_be_made_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot hold a ledger"):
        ledger(tmp_path / "file")
    with pytest.raises(LedgerError, match=r"Not a directory.*: give a folder that is yours"):
        ledger(tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write it")
def test_a_folder_of_another(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LinesError, match="Permission denied"):
        ledger(tmp_path)


# several processes -------------------------------------------------------------------------------


def test_two_processes_never_share_a_file(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    with pytest.raises(LinesError, match="is being written by another process: let it end"):
        ledger(tmp_path)
    assert is_being_written(tmp_path / "rank-0.jsonl")
    first.close()
    assert not is_being_written(tmp_path / "rank-0.jsonl")
    ledger(tmp_path).close()


def test_a_look_at_a_lock_does_not_take_it(tmp_path: Path) -> None:
    write(tmp_path)
    assert not is_being_written(tmp_path / "rank-0.jsonl")
    assert not is_being_written(tmp_path / "rank-1.jsonl")
    ledger(tmp_path).close()


def test_ranks_see_what_others_finish(tmp_path: Path) -> None:
    one, two = ledger(tmp_path, 0, 2), ledger(tmp_path, 1, 2)
    one.append(found(0))
    two.append(found(1))
    assert (one.done, two.done) == (10, 10)
    one.refresh()
    two.refresh()
    two.refresh()
    assert (one.done, two.done) == (20, 10)  # only rank 0 need know of all
    assert list(two.missing()) == [3]
    assert list(one.missing()) == [2, 3]
    assert one.read(1) == found(1)
    assert one.alive(1)
    two.close()
    assert not one.alive(1)
    one.close()


def test_a_shard_that_was_done_twice_counts_once(tmp_path: Path) -> None:
    for rank in (0, 1):
        write(tmp_path, 0, 1, rank=rank, world=2)
    kept = ledger(tmp_path)
    assert (kept.done, list(kept.missing())) == (20, [2, 3])
    kept.close()


def test_more_cases_may_be_wanted_later(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2, 3)
    more = ledger(tmp_path, cases=60)
    assert list(more.missing()) == [3, 4, 5]  # shard 3 had 5 cases only
    more.append(found(3, 60))
    assert more.done == 40
    more.close()
    less = ledger(tmp_path, cases=35)
    assert list(less.missing()) == []
    assert less.read(3) == found(3)
    less.close()


# whose ledger ------------------------------------------------------------------------------------


def test_another_sweep_begun_in_the_same_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 1 of another one starts after rank 0 has looked at the folder and before it writes."""
    others: list[Ledger] = []

    class Late(Appender):
        def __init__(self, path: Path) -> None:
            if not others and path.name == "rank-0.jsonl":
                others.append(self)
                identity = replace(IDENTITY, seed=1)
                others.append(ledger(tmp_path, 1, 2, resume=False, identity=identity))
            super().__init__(path)

    monkeypatch.setattr(torch_ref.sweep.ledger, "Appender", Late)
    with pytest.raises(LedgerError, match="another sweep: the seed is 1 there and 0 here"):
        ledger(tmp_path, 0, 2, resume=False)
    others[1].close()


@pytest.mark.parametrize(
    ("field", "value", "label"),
    [
        ("twin", "other.py:twin", "the twin"),
        ("source", "def", "the twin's source"),
        ("seed", 1, "the seed"),
        ("dtype", "float32", "the dtype"),
        ("device", "cuda", "the device"),
        ("gradtwin", "0.2", "gradtwin's version"),
        ("torch", "2.14", "torch's version"),
        ("numpy", "3.0", "NumPy's version"),
    ],
)
def test_another_sweeps_ledger_is_refused(
    tmp_path: Path, field: str, value: Any, label: str
) -> None:
    write(tmp_path, 0)
    says = f"another sweep: {label}.* is {getattr(IDENTITY, field)} there and {value} here"
    with pytest.raises(LedgerError, match=says):
        ledger(tmp_path, identity=replace(IDENTITY, **{field: value}))
    with pytest.raises(LedgerError, match=says):  # a rank that comes to the others
        ledger(tmp_path, 1, 2, identity=replace(IDENTITY, **{field: value}), resume=False)


def test_shards_of_another_size(tmp_path: Path) -> None:
    """They are taken over on --resume, where they fit what is drawn together."""
    write(tmp_path, 0)
    other = replace(IDENTITY, shard=40)
    kept = ledger(tmp_path, identity=other, smallest_shard=5)
    assert (kept.plan.size, list(kept.missing())) == (10, [1, 2, 3])
    kept.close()
    with pytest.raises(LedgerError, match="the cases a shard is 10 there and 40 here"):
        ledger(tmp_path, identity=other, smallest_shard=4)


def test_every_difference_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(LedgerError, match=r"the seed is 0 .*; the dtype is float64 "):
        ledger(tmp_path, identity=replace(IDENTITY, seed=1, dtype="float16"))


def test_a_ledger_is_never_gone_on_with_by_mistake(tmp_path: Path) -> None:
    write(tmp_path, resume=False)
    with pytest.raises(LedgerError, match="holds a ledger already: add --resume"):
        ledger(tmp_path, resume=False)
    ledger(tmp_path, 1, 2, resume=False).close()  # that of another rank of the same run
    with pytest.raises(LedgerError, match="add --resume"):  # of more ranks than there are
        ledger(tmp_path, 2, 1, resume=False)


def test_torchrun_may_start_its_ranks_again(tmp_path: Path) -> None:
    write(tmp_path, 0)
    kept = Ledger(tmp_path, IDENTITY, CASES, Ranks(restarted=True), resume=False)
    assert kept.done == 10
    kept.close()


@pytest.mark.parametrize("text", ["hello\n", "{}\n", '{"ledger": "x"}\n'])
def test_a_file_that_is_no_ledgers(tmp_path: Path, text: str) -> None:
    (tmp_path / "rank-0.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"is no file of a ledger|is damaged at byte 0"):
        ledger(tmp_path)
    assert (tmp_path / "rank-0.jsonl").read_text() == text


def test_what_makes_an_identity(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("one")

    def of(place: str = f"{mine}:twin", device: str = "cpu") -> Identity:
        return Identity.of(place, 0, "float64", device, 10, compiled=False)

    first = of()
    assert first.twin == "mine.py:twin"
    assert of() == first
    mine.write_text("two")
    assert of().source != first.source
    assert of(device="cuda:1").device == "cuda"
    assert of("").twin == "assignment"
    assert of("torch_ref.sweep.lines:twin").source != of("torch_ref.sweep.ledger:twin").source


# what is cut, and for whom -----------------------------------------------------------------------


@settings(deadline=None)
@given(cases=st.integers(1, 10**4), size=st.integers(1, 10**4))
def test_shards_hold_every_case_once(cases: int, size: int) -> None:
    plan = Plan(cases, size)
    assert sum(plan.count(shard) for shard in range(plan.shards)) == cases
    assert plan.count(plan.shards - 1) > 0
    assert plan.count(plan.shards) == 0


def test_large_sweeps_have_larger_shards() -> None:
    assert size_for(10**6, batched=True) == SHARD
    assert size_for(10**9, batched=True) == 3 * SHARD
    assert size_for(10**12, batched=True) == MOST_TOGETHER * SHARD
    assert size_for(100, batched=False) == size_for(10**5, batched=False) == 128


def test_ranks_are_torchruns() -> None:
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    torchrun |= {"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "0"}
    ranks = Ranks.of(torchrun)
    assert ranks == Ranks(5, 8, 1, 4, 2)
    assert [shard for shard in range(20) if ranks.has(shard)] == [5, 13]
    assert ranks.command(["sweep", "a b"]) == (
        "torchrun --nnodes 2 --nproc-per-node 4 -m torch_ref sweep 'a b'"
    )
    assert Ranks.of(torchrun | {"TORCHELASTIC_RESTART_COUNT": "1"}).restarted
    assert Ranks.of({}) == Ranks()
    assert Ranks.of({"RANK": "1", "WORLD_SIZE": "2"}).command(["sweep"]) == "gradtwin sweep"


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"RANK": "0"}, "both be whole numbers; got RANK=0 WORLD_SIZE="),
        ({"WORLD_SIZE": "2"}, "both be whole numbers"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "both be whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "from 0 to WORLD_SIZE - 1; got RANK=2 WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "from 0 to WORLD_SIZE - 1"),
    ],
)
def test_ranks_that_cannot_be(environment: dict[str, str], says: str) -> None:
    with pytest.raises(RanksError, match=says):
        Ranks.of(environment)
