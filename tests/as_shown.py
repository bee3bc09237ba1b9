"""Commands typed as the papers show them, and what they print held against what is shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

MEASURED = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+|%)|-?\d+\.\d+|\b\d+:\d+\b")


def typed(commands: str, folder: Path) -> str:
    """What the shell prints; the commands are those of this environment."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
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
        assert line in rest, f"{line!r} is not printed where it is shown:\n{output}"
        place += rest.index(line) + 1
        skipped = False


def plain(text: str) -> list[str]:
    """Lines with # for each measured number, single spaces, no empty ones."""
    lines = (" ".join(MEASURED.sub("#", line).split()) for line in text.splitlines())
    return [line for line in lines if line]
