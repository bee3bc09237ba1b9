"""The `gradtwin` command. torch is imported only once the arguments are known to be good."""

import argparse
import errno
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from torch_ref.commands import audit, bench, experiment, new, replay, selftest, sweep, verify
from torch_ref.commands.shared import BAD_INPUT, CLOSED, EXIT_CODES, FAULT, STOPPED, BadInputError

# in the order in which --help lists them
COMMANDS = (verify, replay, new, audit, sweep, selftest, bench, experiment)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except BadInputError as error:
        print(f"gradtwin: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("gradtwin: stopped", file=sys.stderr)
        return STOPPED
    except SystemExit:  # rich's answer, with code 1, to a reader of the output that has gone
        return CLOSED
    except Exception as error:  # Python's own exit code for it, 1, would say that the twin differs
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            print(f"gradtwin: the output could not be written: {error.strerror}.", file=sys.stderr)
            return BAD_INPUT
        traceback.print_exc()
        print("gradtwin: this is a fault of gradtwin's own: please report it.", file=sys.stderr)
        return FAULT
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradtwin",
        description="Is my backward pass wrong, or is it only rounding?",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"gradtwin {version('gradtwin')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
