"""The `gradtwin` command. torch is imported only once the arguments are known to be good."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress, TaskID

AGREE, DIFFER, BAD_INPUT, UNDECIDED = 0, 1, 2, 3
DTYPES = ("float64", "float32", "bfloat16", "float16")
EXIT_CODES = "exit codes: 0 agree, 1 differ, 2 bad usage or input, 3 undecided"


class BadInputError(Exception):
    """What the user gave cannot be used; the message is one clear sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except BadInputError as error:
        print(f"gradtwin: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("gradtwin: stopped", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradtwin",
        description="Is my backward pass wrong, or is it only rounding?",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"gradtwin {version('gradtwin')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "verify",
        help="judge the hand-written backward pass against autograd on random cases",
        epilog=EXIT_CODES,
    )
    check.add_argument("--cases", type=_cases, default=100_000, help="how many (default 100000)")
    check.add_argument(
        "--dtype",
        type=_dtypes,
        default=["float64", "float32"],
        help=f"one or several of {', '.join(DTYPES)}, with commas (default float64,float32)",
    )
    _device_option(check)
    check.add_argument("--seed", type=_seed, default=0, help="of the random cases (default 0)")
    check.add_argument("--json", type=Path, metavar="FILE", help="write the reports there too")
    check.set_defaults(run=_verify)

    again = commands.add_parser(
        "replay",
        help="every value and gradient of one case, both sides side by side",
        epilog=EXIT_CODES,
    )
    again.add_argument("case", type=_case, metavar="SEED:INDEX", help="as `verify` prints it")
    again.add_argument("--dtype", choices=DTYPES, default="float64")
    _device_option(again)
    again.set_defaults(run=_replay)

    text = commands.add_parser(
        "audit",
        help="which printed lines of the assignment are wrong, and what belongs there",
        epilog="exit codes: 0 every line was checked, wrong ones or not; 2 bad usage or input",
    )
    text.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    text.set_defaults(run=_audit)
    return parser


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where the hand runs"
    )


def _cases(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of cases, 1 or more, is needed")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 0 to 2^64 - 1 is needed")
    return int(text)


def _dtypes(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in DTYPES:
            raise argparse.ArgumentTypeError(
                f"{name!r} is not a dtype; give one or several of {', '.join(DTYPES)}, with commas"
            )
    return names


def _case(text: str) -> tuple[int, int]:
    seed, colon, index = text.partition(":")
    if not colon or not seed.isdecimal() or not index.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: SEED:INDEX is needed, for example 0:17")
    return _seed(seed), int(index)


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            "cuda was asked for, but torch finds no CUDA device here; use --device cpu."
        )
    return "cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu")


def _dtype(name: str) -> "torch.dtype":
    from torch_ref.compare import DTYPES as BY_NAME

    return BY_NAME[name]


def _verify(options: argparse.Namespace) -> int:
    if options.json is not None:
        _check_writable(options.json)
    from rich.progress import Progress

    from torch_ref.assignment import assignment_twin
    from torch_ref.compare import verify
    from torch_ref.report import print_report, report_console

    device = _device(options.device)
    console = report_console()
    twin = assignment_twin()
    reports = []
    for name in options.dtype:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(name, total=options.cases)
            report = verify(
                twin,
                cases=options.cases,
                dtype=_dtype(name),
                device=device,
                seed=options.seed,
                progress=partial(_advance, bar, task),
            )
        print_report(report, console)
        reports.append(report)
    if options.json is not None:
        _write(options.json, {"reports": [report.to_dict() for report in reports]})
    return _exit_code([report.verdict for report in reports])


def _advance(bar: "Progress", task: "TaskID", done: int) -> None:
    bar.update(task, completed=done)


def _replay(options: argparse.Namespace) -> int:
    from torch_ref.assignment import assignment_twin, manual_values
    from torch_ref.compare import replay, stratum_of
    from torch_ref.report import print_replay, report_console

    seed, index = options.case
    twin = assignment_twin()
    lines = replay(
        twin,
        seed,
        index,
        dtype=_dtype(options.dtype),
        device=_device(options.device),
        manual_values=manual_values,
    )
    title = f"{twin.name}, case {seed}:{index} ({stratum_of(twin, index)}), {options.dtype}"
    print_replay(title, lines, report_console())
    return _exit_code([line.verdict for line in lines if line.verdict])


def _audit(options: argparse.Namespace) -> int:
    if options.json is not None:
        _check_writable(options.json)
    from rich.console import Console

    from manual_bp.audit import audit
    from torch_ref.report import print_findings

    findings = audit()
    print_findings(findings, Console())
    if options.json is not None:
        _write(options.json, {"findings": [finding.to_dict() for finding in findings]})
    return AGREE


def _write(path: Path, result: dict[str, object]) -> None:
    from torch_ref.report import write_json

    try:
        write_json(path, result)
    except OSError as error:
        raise BadInputError(f"{path} could not be written: {error.strerror}.") from None


def _check_writable(path: Path) -> None:
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadInputError(
            f"{path} cannot be written: give a file in a folder that exists and is yours."
        )


def _exit_code(verdicts: list[str]) -> int:
    if "differ" in verdicts:
        return DIFFER
    return UNDECIDED if "undecided" in verdicts else AGREE
