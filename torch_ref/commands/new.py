"""`gradtwin new`: a starting file for a twin of one's own."""

import argparse
from pathlib import Path

from torch_ref.commands.shared import AGREE, BadInputError, bad_input


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "new",
        help="write a starting file for a backward pass of your own",
    )
    parser.add_argument("name", metavar="NAME", help="NAME.py is written into the current folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from torch_ref.new import write_starting_file

    with bad_input():
        try:
            path = write_starting_file(options.name, Path())
        except FileExistsError as error:
            raise BadInputError(str(error)) from None
        except OSError as error:
            reason = error.strerror
            raise BadInputError(f"{options.name}.py cannot be written: {reason}.") from None
    print(f"{path} is written; judge it with: gradtwin verify {path}")
    return AGREE
