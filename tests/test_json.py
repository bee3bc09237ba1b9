"""Writing results: a file is whole or not there, and nothing else is ever replaced."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from torch_ref.report import write_json

RESULT = {"verdict": "agree", "numbers": [1.5, float("nan"), float("inf"), -float("inf")]}
STORED = {"verdict": "agree", "numbers": [1.5, "nan", "inf", "-inf"]}


def stored(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_written_and_replaced(tmp_path: Path, old: str | None) -> None:
    file = tmp_path / "report.json"
    if old:
        file.write_text(old)
    write_json(file, RESULT)
    assert stored(file) == STORED
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_one(tmp_path: Path, exists: bool) -> None:
    """Through two links, relative ones, into another folder."""
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "report.json"
    if exists:
        file.write_text("old")
    second, first = tmp_path / "second", tmp_path / "first"
    second.symlink_to("folder/report.json")
    first.symlink_to("second")
    write_json(first, RESULT)
    assert stored(file) == STORED
    assert first.is_symlink()
    assert second.is_symlink()
    assert not file.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["first", "folder", "second"]
    assert os.listdir(tmp_path / "folder") == ["report.json"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_stays_one_and_gets_the_text(tmp_path: Path, linked: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = pipe
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(path, RESULT)
    reader.join(timeout=10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [json.loads(text) for text in read] == [STORED]
    assert sorted(os.listdir(tmp_path)) == sorted({"pipe", path.name})


def test_a_terminal_gets_the_text() -> None:
    """A device that no mistake can replace: nothing can be created beside it."""
    ours, its = os.openpty()
    try:
        write_json(os.ttyname(its), RESULT)
        assert json.loads(os.read(ours, 4096)) == STORED
    finally:
        os.close(ours)
        os.close(its)


PROGRAM = (
    "from torch_ref.report import write_json\n"
    "print('before')\n"
    "write_json({path!r}, {{'verdict': 'agree'}})\n"
    "print('after')\n"
)
PRINTED = 'before\n{\n "verdict": "agree"\n}\nafter\n'


OUTPUT = "/dev/fd/1"  # where /dev/stdout leads; here no mistake can replace it


@pytest.mark.skipif(not os.path.exists(OUTPUT), reason=f"no {OUTPUT} on this system")
def test_standard_output_keeps_what_was_printed(tmp_path: Path) -> None:
    """Whether it leads to a pipe or to a file, and by whatever name."""
    program = [sys.executable, "-c", PROGRAM.format(path=OUTPUT)]
    assert subprocess.run(program, capture_output=True, text=True).stdout == PRINTED
    file = tmp_path / "out"
    for path in (OUTPUT, str(file)):
        with file.open("w") as out:
            program = [sys.executable, "-c", PROGRAM.format(path=path)]
            subprocess.run(program, stdout=out, check=True)
        assert file.read_text() == PRINTED, path


def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic link"):
        write_json(tmp_path / "a", RESULT)
    assert (tmp_path / "a").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_link_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("missing/report.json")
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "link", RESULT)
    assert os.listdir(tmp_path) == ["link"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path, RESULT)
