"""A file of JSON lines that a crash leaves readable: whole lines, each on the disk once appended.

One process at a time appends: it holds the kernel's lock on the file, which ends with the process
however that ends, so no lock is ever stale. A line without its end is torn: its writer died, or the
disk was full. Readers pass over it, and the next writer cuts it off.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A reader's look whether a file is locked takes a moment, in which its writer must not give up.
PATIENCE = 1.0  # seconds
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your share of the disk is used up"}


class LinesError(ValueError):
    """The file cannot be read, locked or written; the message is one clear sentence."""


class Appender:
    """The one process that may append to a file; without its torn last line, if it had one.

    Raises LinesError where the file cannot be opened or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            new = not path.exists()
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise LinesError(_cannot(path, error)) from None
        try:
            _lock(self._file, path)
            self.end = sum(len(line) for _, line in whole_lines(path))
            os.ftruncate(self._file, self.end)
            if new:
                _sync_folder(path.parent)
        except BaseException as error:
            os.close(self._file)
            if isinstance(error, OSError):
                raise LinesError(_cannot(path, error)) from None
            raise

    def append(self, value: dict[str, Any]) -> int:
        """Append a value as one line, on the disk when this returns; gives where it starts.

        Raises LinesError where it cannot be written; the lines before it stay.
        """
        start = self.end
        text = json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            _write(self._file, text.encode())
            os.fsync(self._file)
        except OSError as error:
            self._cut()
            raise LinesError(_cannot(self.path, error)) from None
        self.end = start + len(text.encode())
        return start

    def close(self) -> None:
        """Give the file and its lock back."""
        os.close(self._file)

    def _cut(self) -> None:
        try:
            os.ftruncate(self._file, self.end)
        except OSError:  # the torn line stays, and every reader passes over it
            return


def _write(file: int, data: bytes) -> None:
    while data:  # a signal or a full disk can end a write early
        data = data[os.write(file, data) :]


def _cannot(path: Path, error: OSError) -> str:
    why = _FULL.get(error.errno or 0) or (error.strerror or str(error))
    return f"{path} cannot be written: {why}. What is finished is kept."


def _lock(file: int, path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise LinesError(
                    f"{path} is being written by another process: let it end, or stop it first."
                ) from None
            time.sleep(PATIENCE / 20)
        except OSError as error:
            raise LinesError(
                f"{path} cannot be locked ({error.strerror}): choose a folder on a file system "
                "that has locks."
            ) from None
        else:
            return


def is_being_written(path: Path) -> bool:
    """Whether a living process, on any machine that shares the file system, appends to the file."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here: its writer could not have started either
        return False
    finally:
        os.close(file)
    return False


def whole_lines(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Where each whole line starts, from `start` on, and the line with its end.

    Raises LinesError where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield start, line
                start += len(line)
    except OSError as error:
        raise LinesError(f"{path} cannot be read: {error.strerror}.") from None


def parsed(path: Path, start: int, line: bytes) -> dict[str, Any]:
    """The value of a line. Raises LinesError where it is none: the file was damaged or edited."""
    try:
        value = json.loads(line)
    except ValueError:  # no JSON, or no UTF-8
        value = None
    if not isinstance(value, dict):
        raise damaged(path, start)
    return value


def damaged(path: Path, start: int) -> LinesError:
    """What is raised of a line that is not what it must be."""
    return LinesError(
        f"{path} is damaged at byte {start}: delete that line, and its work is done again."
    )


def line_at(path: Path, start: int) -> dict[str, Any]:
    """The value of the line that starts there. Raises LinesError as above."""
    for place, line in whole_lines(path, start):
        return parsed(path, place, line)
    raise LinesError(f"{path} has become shorter while it was read: start again with --resume.")


def _sync_folder(folder: Path) -> None:
    """A new file's name is on the disk only once its folder is."""
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
