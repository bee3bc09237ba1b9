"""`gradtwin verify`: judge a hand-written backward pass."""

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch_ref import arguments
from torch_ref.commands.shared import (
    EXIT_CODES,
    as_dtype,
    bad_input,
    check_writable,
    device_option,
    exit_code,
    found_twin,
    twin_argument,
    usable_device,
    write,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "verify",
        help="judge a hand-written backward pass against autograd on random cases",
        epilog=EXIT_CODES,
    )
    twin_argument(parser)
    parser.add_argument(
        "--cases",
        type=arguments.cases,
        help="how many (default 100000; 100 where inputs makes one case at a time)",
    )
    parser.add_argument(
        "--dtype",
        type=arguments.dtypes,
        default=["float64", "float32"],
        help=f"one or several of {', '.join(arguments.DTYPES)}, with commas "
        "(default float64,float32)",
    )
    device_option(parser)
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="of the random cases (default 0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports there too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.json is not None:
        check_writable(options.json)
    from rich.progress import Progress

    from torch_ref.compare import verify
    from torch_ref.report import print_report, report_console

    found = found_twin(options.twin)
    device = usable_device(options.device)
    console = report_console()
    reports = []
    for name in options.dtype:
        with (
            bad_input(),
            Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            report = verify(
                found.twin,
                cases=options.cases,
                dtype=as_dtype(name),
                device=device,
                seed=options.seed,
                progress=partial(_advance, bar, bar.add_task(name, total=options.cases)),
            )
        print_report(report, console, shlex.quote(found.address) if found.address else "")
        reports.append(report)
    if options.json is not None:
        write(options.json, {"reports": [report.to_dict() for report in reports]})
    return exit_code([report.verdict for report in reports])


def _advance(bar: "Progress", task: "TaskID", done: int) -> None:
    bar.update(task, completed=done)
