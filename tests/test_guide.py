"""The guide, run as written: files saved, edits made, commands typed, output as it is shown."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parent.parent / "GUIDE.md").read_text()
MEASURED = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+|%)|-?\d+\.\d+|\b\d+:\d+\b")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the file that the text above it last names."""

    language: str
    text: str
    file: str


def blocks(section: str) -> Iterator[Block]:
    file = ""
    for part in re.split(r"(^```.*?^```$)", section, flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```"):
            first, _, text = part.removesuffix("```").removeprefix("```").partition("\n")
            yield Block(first, text, file)
        else:
            file = [file, *re.findall(r"`(\w+\.py)`", part)][-1]


SECTIONS = {
    part.partition("\n")[0]: list(blocks(part))
    for part in re.split(r"^## ", GUIDE, flags=re.MULTILINE)[1:]
}


@pytest.mark.parametrize("section", [name for name in SECTIONS if SECTIONS[name]])
def test_the_section_runs_as_written(section: str, tmp_path: Path) -> None:
    shown = ""
    for block in SECTIONS[section]:
        if block.language == "python":
            (tmp_path / block.file).write_text(block.text)
        elif block.language == "diff":
            edit(tmp_path / block.file, block.text)
        elif block.language == "sh":
            shown = typed(block.text, tmp_path)
        elif block.language == "text":
            assert_shown(block.text, shown)
        else:
            raise AssertionError(f"nothing is done with a block of {block.language!r}")


def edit(file: Path, difference: str) -> None:
    """Replace the lines marked - by those marked +, which must stand there once."""
    lines = difference.splitlines()
    old = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    new = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))


def typed(commands: str, folder: Path) -> str:
    """What the shell prints; the commands are those of this environment."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def assert_shown(expected: str, output: str) -> None:
    """Every line is printed, in this order, next to each other unless `...` stands between them.

    Fractions, shares and indices of cases may be other ones, and so may the spaces.
    """
    wanted, printed = plain(expected), plain(output)
    place = 0
    skipped = True
    for line in wanted:
        if line == "...":
            skipped = True
            continue
        rest = printed[place:] if skipped else printed[place : place + 1]
        assert line in rest, f"{line!r} is not printed where the guide shows it:\n{output}"
        place += rest.index(line) + 1
        skipped = False


def plain(text: str) -> list[str]:
    """Lines with # for each measured number, single spaces, no empty ones."""
    lines = (" ".join(MEASURED.sub("#", line).split()) for line in text.splitlines())
    return [line for line in lines if line]


def test_every_kind_of_block_is_there() -> None:
    """A guide without blocks would pass."""
    languages = [block.language for found in SECTIONS.values() for block in found]
    assert {"python", "diff", "sh", "text"} == set(languages)
    assert languages.count("text") >= 4


def test_the_comparison_can_fail() -> None:
    output = "dL/dz  differ 12.3\ndL/dw  agree 4e+10 x\nthe end\n"
    assert_shown("dL/dz differ 9.1\n...\nthe end\n", output)
    assert_shown("...\ndL/dw  agree 1.0 x\n", output)
    for wrong in ("dL/dz differ 9.1\nthe end\n", "the end\n...\ndL/dz differ 1\n", "dL/dw differ"):
        with pytest.raises(AssertionError, match="is not printed"):
            assert_shown(wrong, output)
