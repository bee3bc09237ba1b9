"""The guide, run as written: files saved, edits made, commands typed, output as it is shown."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from as_shown import assert_shown, typed

GUIDE = (Path(__file__).parent.parent / "GUIDE.md").read_text()


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
