"""What the commands share: exit codes, options that several have, and bad input in one sentence."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch_ref import arguments
from torch_ref.devices import missing_device

if TYPE_CHECKING:
    import torch

    from torch_ref.loading import FoundTwin

AGREE, DIFFER, BAD_INPUT, UNDECIDED, FAULT, STOPPED, CLOSED = 0, 1, 2, 3, 70, 130, 141
NOT_JUDGED = "not judged"  # of a twin that cannot be, beside others
EXIT_CODES = "exit codes: 0 agree, 1 differ, 2 bad usage or input, 3 undecided, 130 stopped"


class BadInputError(Exception):
    """What the user gave cannot be used; the message is one clear sentence."""


def twin_argument(parser: argparse.ArgumentParser, several: bool = False) -> None:
    without = "for all twins there" if several else "where there is only one twin"
    parser.add_argument(
        "twin",
        nargs="?",
        metavar="TWIN",
        help=f"path/to/file.py:name or package.module:name, the name left out {without} "
        "(default: the assignment's)",
    )


def device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=arguments.device_or_auto,
        default="cpu",
        help="where the hand runs: cpu (default), cuda, cuda:N, or auto: cuda where there is one",
    )


def seed_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="of the random cases (default 0)"
    )


@contextmanager
def bad_input() -> Iterator[None]:
    """The judge's ValueErrors are about what the user gave: one sentence, no traceback."""
    try:
        yield
    except ValueError as error:
        raise BadInputError(str(error)) from None
    except SystemExit as error:  # exit(0) in a twin's function must not pass for "agree"
        raise BadInputError(
            f"the twin's own code ended the program (SystemExit: {error.code}): its functions must "
            "return their tensors."
        ) from None


def found_twin(address: str | None) -> "FoundTwin":
    """The one twin that is meant."""
    from torch_ref.loading import find_twin

    if address is None:
        return _assignment()
    with bad_input():
        return find_twin(address)


def found_twins(address: str | None) -> "list[FoundTwin]":
    """All twins that are meant: those of a file or module, where no name is given."""
    from torch_ref.loading import find_twins

    if address is None:
        return [_assignment()]
    with bad_input():
        return find_twins(address)


def _assignment() -> "FoundTwin":
    from torch_ref.assignment import assignment_twin
    from torch_ref.loading import FoundTwin

    return FoundTwin(assignment_twin(), "")


def usable_device(name: str) -> str:
    if name == "auto":
        return "cpu" if missing_device("cuda") else "cuda"
    reason = missing_device(name)
    if reason:
        raise BadInputError(f"{reason}; use --device cpu.")
    return name


def as_dtype(name: str) -> "torch.dtype":
    from torch_ref.compare import DTYPES

    return DTYPES[name]


@contextmanager
def written(path: Path | None = None) -> Iterator[None]:
    """One sentence where a file, of several the one that the error names, cannot be written."""
    try:
        yield
    except OSError as error:
        name = path or error.filename
        raise BadInputError(f"{name} could not be written: {error.strerror}.") from None


def write(path: Path | None, kind: str, result: dict[str, object]) -> None:
    """The result as JSON, where a file is wanted, in one of the forms of report/schema.json."""
    if path is None:
        return
    from torch_ref.report import json_format, write_json

    with written(path):
        write_json(path, {"format": json_format(kind), **result})


def check_writable(*paths: Path | None) -> None:
    """Before any work: a file needs its folder, what is no regular file (a pipe) only itself, and
    each a name of its own."""
    for path in paths:
        if path is None:
            continue
        if path.suffix == ".py":
            raise BadInputError(
                f"{path} would be overwritten: give a name that is no Python file's."
            )
        place = path if is_special(path) else Path(os.path.realpath(path)).parent
        good = is_special(path) or place.is_dir()
        if path.is_dir() or not good or not os.access(place, os.W_OK):
            raise BadInputError(
                f"{path} cannot be written: give a file in a folder that exists and is yours."
            )
    regular = [path.resolve() for path in paths if path is not None and not is_special(path)]
    if len(set(regular)) < len(regular):
        raise BadInputError("two of the files to be written are the same: give each a name.")


def is_special(path: Path) -> bool:
    """A pipe, a terminal, /dev/null: there, but no regular file."""
    return path.exists() and not path.is_file()


def exit_code(verdicts: list[str]) -> int:
    if "differ" in verdicts:
        return DIFFER
    if NOT_JUDGED in verdicts:
        return BAD_INPUT
    return UNDECIDED if "undecided" in verdicts else AGREE
