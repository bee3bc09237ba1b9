"""`gradtwin sweep`: very many cases, on one machine or many, in a ledger that outlives a crash."""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from torch_ref import arguments
from torch_ref.commands.shared import (
    AGREE,
    EXIT_CODES,
    STOPPED,
    BadInputError,
    as_dtype,
    bad_input,
    check_writable,
    device_option,
    exit_code,
    found_twin,
    seed_option,
    twin_argument,
    usable_device,
    write,
)

if TYPE_CHECKING:
    import torch

    from torch_ref.compare import Report
    from torch_ref.compare.judge import Judge
    from torch_ref.loading import FoundTwin
    from torch_ref.sweep.ledger import Ledger
    from torch_ref.sweep.ranks import Ranks


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "sweep",
        help="judge on very many cases, alone or under torchrun, and go on after a crash",
        epilog=f"{EXIT_CODES}; on several ranks: torchrun --nproc-per-node N -m torch_ref sweep "
        "...; rank 0 reports, the others exit with 0, and torchrun itself exits with 1 for any "
        "code but 0",
    )
    twin_argument(parser)
    parser.add_argument(
        "--cases", type=arguments.cases, required=True, help="how many, for example 1e9"
    )
    parser.add_argument(
        "--ledger",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for what is finished; on several machines one that they share",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the ledger that is there")
    parser.add_argument(
        "--dtype", choices=arguments.DTYPES, default="float64", help="default float64"
    )
    device_option(parser)
    seed_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from torch_ref.sweep.ranks import Ranks

    with bad_input():
        ranks = Ranks.of()
    if not ranks.rank:
        check_writable(options.json)
    found = found_twin(options.twin)
    options.device = usable_device(options.device)
    with _stoppable():
        try:
            report = _swept(options, found, ranks)
        except KeyboardInterrupt:
            if not ranks.rank:
                print(f"gradtwin: stopped. {_go_on(options, ranks)}", file=sys.stderr)
            return STOPPED
    if report is None:
        return AGREE
    _show(report, found.address, options)
    return exit_code([report.verdict])


def _swept(options: argparse.Namespace, found: "FoundTwin", ranks: "Ranks") -> "Report | None":
    """The report of all ranks' work, on rank 0."""
    import torch

    from torch_ref.compare.judge import Judge
    from torch_ref.sweep.merge import merged

    asked = as_dtype(options.dtype), torch.device(options.device), options.seed
    with bad_input():
        device = _device_of(ranks, asked[1])
        judge = Judge(found.twin, asked[0], device, asked[2])
        ledger = _opened(options, found, ranks, judge)
        try:
            _work(judge, ledger, options, ranks)
            return None if ranks.rank else merged(Judge(found.twin, *asked), ledger)
        finally:
            ledger.close()


def _opened(
    options: argparse.Namespace, found: "FoundTwin", ranks: "Ranks", judge: "Judge"
) -> "Ledger":
    from torch_ref.native.compiler import has_compiler
    from torch_ref.sweep.identity import Identity
    from torch_ref.sweep.ledger import Ledger
    from torch_ref.sweep.shards import size_for, smallest_size

    if options.resume and not ranks.rank and not any(options.ledger.glob("*")):
        print(f"gradtwin: {options.ledger} holds no ledger yet: a new one begins.", file=sys.stderr)
    batched = judge.cases.batched
    can_compile = judge.can_be_compiled and has_compiler()
    compiled = can_compile and judge.is_worth_compiling(options.cases)
    identity = Identity.of(
        found.address, options.seed, options.dtype, options.device,
        size_for(options.cases, batched), compiled=compiled,
    )  # fmt: skip
    return Ledger(
        options.ledger,
        identity,
        options.cases,
        ranks,
        resume=options.resume,
        smallest_shard=smallest_size(batched),
        can_compile=can_compile,
    )


def _work(judge: "Judge", ledger: "Ledger", options: argparse.Namespace, ranks: "Ranks") -> None:
    from torch_ref.compare.judge import one_thread
    from torch_ref.native.memory import keep_freed_memory
    from torch_ref.report import report_console
    from torch_ref.sweep.lines import LinesError
    from torch_ref.sweep.progress import progress
    from torch_ref.sweep.run import RanksMissingError, wait, work

    keep_freed_memory()
    if ledger.identity.judge == "compiled":
        judge.compile()
    try:
        with one_thread(judge.small), progress(ledger, report_console()) as tell:
            work(judge, ledger, tell)
            if not ranks.rank:
                wait(ledger, tell)
    except (LinesError, RanksMissingError) as error:
        raise BadInputError(f"{error} {_go_on(options, ranks)}") from None


def _device_of(ranks: "Ranks", device: "torch.device") -> "torch.device":
    """The ranks on one machine share its CUDA devices."""
    import torch

    if device.type != "cuda" or device.index is not None or not ranks.beside:
        return device
    return torch.device("cuda", ranks.local % torch.cuda.device_count())


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, by which torchrun and batch systems end a process, stops as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _go_on(options: argparse.Namespace, ranks: "Ranks") -> str:
    """The command that resumes."""
    words = ["sweep", *([options.twin] if options.twin else []), "--cases", str(options.cases)]
    words += ["--ledger", str(options.ledger), "--dtype", options.dtype]
    words += ["--seed", str(options.seed), "--device", options.device]
    words += ["--json", str(options.json)] if options.json else []
    return f"Go on with: {ranks.command([*words, '--resume'])}"


def _show(report: "Report", address: str, options: argparse.Namespace) -> None:
    from torch_ref.report import print_report, report_console

    print_report(report, report_console(), shlex.quote(address) if address else "")
    write(options.json, "verify", {"reports": [report.to_dict()]})
