"""`gradtwin selftest`: is every mutant of manual_bp caught?"""

import argparse
import os
from pathlib import Path

from torch_ref import arguments
from torch_ref.commands.shared import AGREE, DIFFER, BadInputError, check_writable, write


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "selftest",
        help="break manual_bp in every small way: is each mutant caught?",
        epilog="exit codes: 0 every mutant that changes anything was caught; 1 one survived, "
        "or right code was called wrong; 2 bad usage or input",
    )
    cases = "random cases for each mutant (default 3000)"
    parser.add_argument("--cases", type=arguments.cases, default=3000, help=cases)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every mutant there too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    check_writable(options.json)
    from rich.progress import Progress

    from torch_ref.report import print_selftest, report_console
    from torch_ref.selftest import run_selftest

    console = report_console()
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("mutants", total=None)
            result = run_selftest(
                cases=options.cases,
                workers=os.cpu_count() or 1,
                progress=lambda done, of: bar.update(task, completed=done, total=of),
            )
    except ModuleNotFoundError as error:  # it needs an extra
        raise BadInputError(str(error)) from None
    print_selftest(result, console)
    write(options.json, "selftest", result.to_dict())
    return AGREE if result.ok else DIFFER
