"""`gradtwin verify`: judge a hand-written backward pass."""

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch_ref import arguments
from torch_ref.commands.shared import (
    EXIT_CODES,
    NOT_JUDGED,
    BadInputError,
    as_dtype,
    bad_input,
    check_writable,
    device_option,
    exit_code,
    found_twins,
    seed_option,
    twin_argument,
    usable_device,
    write,
    written,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from torch_ref.compare import Report
    from torch_ref.loading import FoundTwin


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "verify",
        help="judge a hand-written backward pass against autograd on random cases",
        epilog=EXIT_CODES,
    )
    twin_argument(parser, several=True)
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
    seed_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports there too")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="write them there as a page with pictures (needs gradtwin[report])",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    _check_files(options.json, options.report)
    from torch_ref.report import report_console

    twins = found_twins(options.twin)
    _check_one_page(options, twins)
    device = usable_device(options.device)
    console = report_console()
    if len(twins) == 1:
        reports = _judged(twins[0], options, device, console)
        verdicts = [report.verdict for report in reports]
    else:
        reports, verdicts = _judged_by_turns(twins, options, device, console)
    write(options.json, "verify", {"reports": [report.to_dict() for report in reports]})
    if options.report is not None:
        _write_page(options.report, reports, twins[0].address)
    return exit_code(verdicts)


def _judged_by_turns(
    twins: "list[FoundTwin]", options: argparse.Namespace, device: str, console: "Console"
) -> "tuple[list[Report], list[str]]":
    """The reports on all that can be judged, and the verdict on each twin, NOT_JUDGED where it
    cannot be; these are printed in one line at the end."""
    from torch_ref.report.words import worst_verdict

    reports: list[Report] = []
    verdicts: list[str] = []
    for found in twins:
        try:
            own = _judged(found, options, device, console)
        except BadInputError as error:  # the others' verdicts must not be lost with it
            console.print(f"{found.name}: {error}", markup=False, highlight=False)
            verdicts.append(NOT_JUDGED)
        else:
            verdicts.append(worst_verdict(own))
            reports += own
    told = [f"{found.name} {verdict}" for found, verdict in zip(twins, verdicts, strict=True)]
    console.print(f"{len(twins)} twins: {', '.join(told)}.", markup=False, highlight=False)
    return reports, verdicts


def _judged(
    found: "FoundTwin", options: argparse.Namespace, device: str, console: "Console"
) -> "list[Report]":
    """A report a dtype, each printed as soon as it is there."""
    from rich.progress import Progress

    from torch_ref.compare.judge import Judge
    from torch_ref.compare.verify import as_device
    from torch_ref.report import print_report
    from torch_ref.report.words import sentence

    reports = []
    judge: Judge | None = None
    for name in options.dtype:
        with (
            bad_input(),
            Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            judge = Judge(found.twin, as_dtype(name), as_device(device), options.seed, like=judge)
            advance = partial(_advance, bar, bar.add_task(name, total=options.cases))
            report = judge.run(options.cases, progress=advance)
        print_report(report, console, shlex.quote(found.address) if found.address else "")
        reports.append(report)
    if len({report.verdict for report in reports}) > 1:
        console.print(sentence(reports), markup=False, highlight=False)
    return reports


def _check_one_page(options: argparse.Namespace, twins: "list[FoundTwin]") -> None:
    if options.report is not None and len(twins) > 1:
        raise BadInputError(
            f"--report writes a page on one twin, and {options.twin} has {len(twins)}: say which "
            f"one, for example {twins[0].address}."
        )


def _check_files(json: Path | None, page: Path | None) -> None:
    """Before any work: what is to be written can be."""
    check_writable(json, page)
    if page is None:
        return
    from torch_ref.report.html import MISSING, is_missing

    if is_missing():
        raise BadInputError(MISSING)


def _write_page(path: Path, reports: "list[Report]", address: str) -> None:
    from torch_ref.report.html import write_html

    with written(path):
        write_html(path, reports, address)


def _advance(bar: "Progress", task: "TaskID", done: int) -> None:
    bar.update(task, completed=done)
