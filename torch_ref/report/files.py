"""A text as one file, written whole or not at all; or sent to what is no file."""

import os
import stat
import sys
from pathlib import Path


def write_whole(path: str | Path, text: str) -> None:
    """Write a text in UTF-8.

    A regular file appears under its name only once it is complete; one that was there stays until
    then, and a symbolic link stays one. What is no regular file (a pipe, a terminal, /dev/null) and
    the program's own output (/dev/stdout) stay as they are and get the text.
    Raises OSError where it cannot be written.
    """
    target = Path(os.path.realpath(path))
    there = _status(Path(path))
    if there is not None and _is_standard_output(there):
        sys.stdout.write(text)
        sys.stdout.flush()
    elif there is not None and not stat.S_ISREG(there.st_mode):
        with open(path, "w", encoding="utf-8") as pipe:
            pipe.write(text)
    else:
        replace_file(target, text.encode())


def replace_file(path: Path, content: bytes) -> None:
    """The content in a file beside the path's, which then takes its name. Raises OSError."""
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    """What the path leads to, through links; None where there is nothing yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_standard_output(there: os.stat_result) -> bool:
    """Whether this is where the program prints to: replacing that file would lose what it said."""
    try:
        return os.path.samestat(there, os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # no descriptor, closed, or no output at all
        return False
