"""The `gradtwin` command. torch is imported only once the arguments are known to be good."""

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from torch_ref import arguments
from torch_ref.devices import missing_device

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress, TaskID

    from torch_ref.loading import Found

AGREE, DIFFER, BAD_INPUT, UNDECIDED, FAULT, STOPPED, CLOSED = 0, 1, 2, 3, 70, 130, 141
EXIT_CODES = "exit codes: 0 agree, 1 differ, 2 bad usage or input, 3 undecided, 130 stopped"


class BadInputError(Exception):
    """What the user gave cannot be used; the message is one clear sentence."""


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
    except Exception:  # Python's own exit code for it, 1, would say that the twin differs
        traceback.print_exc()
        print("gradtwin: this is a fault of gradtwin's own: please report it.", file=sys.stderr)
        return FAULT
    return code


# what can be typed -------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradtwin",
        description="Is my backward pass wrong, or is it only rounding?",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"gradtwin {version('gradtwin')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _verify_options(
        commands.add_parser(
            "verify",
            help="judge a hand-written backward pass against autograd on random cases",
            epilog=EXIT_CODES,
        )
    )
    _replay_options(
        commands.add_parser(
            "replay",
            help="every value and gradient of one case, both sides side by side",
            epilog=EXIT_CODES,
        )
    )
    _new_options(
        commands.add_parser("new", help="write a starting file for a backward pass of your own")
    )
    _audit_options(
        commands.add_parser(
            "audit",
            help="which printed lines of the assignment are wrong, and what belongs there",
            epilog="exit codes: 0 every line was checked, wrong ones or not; 2 bad usage or input",
        )
    )
    _selftest_options(
        commands.add_parser(
            "selftest",
            help="break manual_bp in every small way: is each mutant caught?",
            epilog="exit codes: 0 every mutant that changes anything was caught; 1 one survived, "
            "or right code was called wrong; 2 bad usage or input",
        )
    )
    return parser


def _verify_options(parser: argparse.ArgumentParser) -> None:
    _twin_argument(parser)
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
    _device_option(parser)
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="of the random cases (default 0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports there too")
    parser.set_defaults(run=_verify)


def _replay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "case", type=arguments.case, metavar="SEED:INDEX", help="as `verify` prints it"
    )
    _twin_argument(parser)
    parser.add_argument("--dtype", choices=arguments.DTYPES, default="float64")
    _device_option(parser)
    parser.set_defaults(run=_replay)


def _new_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="NAME.py is written into the current folder")
    parser.set_defaults(run=_new)


def _audit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    parser.set_defaults(run=_audit)


def _selftest_options(parser: argparse.ArgumentParser) -> None:
    cases = "random cases for each mutant (default 3000)"
    parser.add_argument("--cases", type=arguments.cases, default=3000, help=cases)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every mutant there too")
    parser.set_defaults(run=_selftest)


def _twin_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "twin",
        nargs="?",
        metavar="TWIN",
        help="path/to/file.py:name or package.module:name, the name left out where there is only "
        "one twin (default: the assignment's)",
    )


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=arguments.device_or_auto,
        default="cpu",
        help="where the hand runs: cpu (default), cuda, cuda:N, or auto: cuda where there is one",
    )


# what is done ------------------------------------------------------------------------------------


def _verify(options: argparse.Namespace) -> int:
    if options.json is not None:
        _check_writable(options.json)
    from rich.progress import Progress

    from torch_ref.compare import verify
    from torch_ref.report import print_report, report_console

    found = _twin(options.twin)
    device = _device(options.device)
    console = report_console()
    reports = []
    for name in options.dtype:
        with (
            _bad_input(),
            Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
        ):
            report = verify(
                found.twin,
                cases=options.cases,
                dtype=_dtype(name),
                device=device,
                seed=options.seed,
                progress=partial(_advance, bar, bar.add_task(name, total=options.cases)),
            )
        print_report(report, console, shlex.quote(found.address) if found.address else "")
        reports.append(report)
    if options.json is not None:
        _write(options.json, {"reports": [report.to_dict() for report in reports]})
    return _exit_code([report.verdict for report in reports])


def _advance(bar: "Progress", task: "TaskID", done: int) -> None:
    bar.update(task, completed=done)


def _replay(options: argparse.Namespace) -> int:
    import torch

    from torch_ref.assignment import manual_values
    from torch_ref.compare import Cases, replay
    from torch_ref.report import print_replay, report_console

    seed, index = options.case
    found = _twin(options.twin)
    dtype, device = _dtype(options.dtype), torch.device(_device(options.device))
    with _bad_input():
        lines = replay(
            found.twin,
            seed,
            index,
            dtype=dtype,
            device=device,
            manual_values=None if options.twin else manual_values,
        )
        stratum = Cases(found.twin, dtype, device, seed).stratum(index)
    title = f"{found.twin.name}, case {seed}:{index} ({stratum}), {options.dtype}"
    print_replay(title, lines, report_console())
    return _exit_code([line.verdict for line in lines if line.verdict])


def _new(options: argparse.Namespace) -> int:
    from torch_ref.new import write_starting_file

    with _bad_input():
        try:
            path = write_starting_file(options.name, Path())
        except FileExistsError as error:
            raise BadInputError(str(error)) from None
        except OSError as error:
            reason = error.strerror
            raise BadInputError(f"{options.name}.py cannot be written: {reason}.") from None
    print(f"{path} is written; judge it with: gradtwin verify {path}")
    return AGREE


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


def _selftest(options: argparse.Namespace) -> int:
    if options.json is not None:
        _check_writable(options.json)
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
    if options.json is not None:
        _write(options.json, result.to_dict())
    return AGREE if result.ok else DIFFER


# what they share ---------------------------------------------------------------------------------


@contextmanager
def _bad_input() -> Iterator[None]:
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


def _twin(address: str | None) -> "Found":
    from torch_ref.loading import Found, find_twin

    if address is None:
        from torch_ref.assignment import assignment_twin

        return Found(assignment_twin(), "")
    with _bad_input():
        return find_twin(address)


def _device(name: str) -> str:
    if name == "auto":
        return "cpu" if missing_device("cuda") else "cuda"
    reason = missing_device(name)
    if reason:
        raise BadInputError(f"{reason}; use --device cpu.")
    return name


def _dtype(name: str) -> "torch.dtype":
    from torch_ref.compare import DTYPES

    return DTYPES[name]


def _write(path: Path, result: dict[str, object]) -> None:
    from torch_ref.report import write_json

    try:
        write_json(path, result)
    except OSError as error:
        raise BadInputError(f"{path} could not be written: {error.strerror}.") from None


def _check_writable(path: Path) -> None:
    """Before any work: a file needs its folder, what is no regular file (a pipe) only itself."""
    special = path.exists() and not path.is_file()
    place = path if special else Path(os.path.realpath(path)).parent
    if path.is_dir() or not (special or place.is_dir()) or not os.access(place, os.W_OK):
        raise BadInputError(
            f"{path} cannot be written: give a file in a folder that exists and is yours."
        )


def _exit_code(verdicts: list[str]) -> int:
    if "differ" in verdicts:
        return DIFFER
    return UNDECIDED if "undecided" in verdicts else AGREE
