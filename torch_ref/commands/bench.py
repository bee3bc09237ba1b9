"""`gradtwin bench`: the gradients against every peer, and against the machine's limit."""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_ref import arguments
from torch_ref.commands.shared import (
    AGREE,
    DIFFER,
    BadInputError,
    bad_input,
    check_writable,
    device_option,
    usable_device,
    write,
    written,
)

if TYPE_CHECKING:
    from torch_ref.benchmark.run import Plan

SIZES = "1,1e2,1e3,1e4,1e5,1e6,1e7"
QUICK_SIZES = "1,1e3,1e5"
LARGEST = 10**8
DTYPES = ("float32", "float64")
NO_MATPLOTLIB = "the plot needs matplotlib, which is not installed: pip install 'gradtwin[plots]'."
EXIT_CODES = (
    "exit codes: 0 done, 1 a peer computes something else (it is not timed), or, with --compare, "
    "a ratio has become worse, 2 bad usage or input, 130 stopped"
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "bench",
        help="time the gradients against every peer and the machine's limit",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "--quick", action="store_true",
        help=f"a first look: float32, {QUICK_SIZES} samples, fewer peers, no forward, no memory",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=_sizes, metavar="N,N,...", help=f"samples in a batch (default {SIZES})"
    )
    parser.add_argument(
        "--dtype", type=_dtypes, help="float32, float64 or, with a comma, both (default both)"
    )
    parser.add_argument(
        "--threads", type=arguments.threads, metavar="N", help="default: as many as torch takes"
    )
    device_option(parser)
    parser.add_argument(
        "--per-sample", action="store_true",
        help="also fused_backward against vmap(grad), all 21 gradients of each sample",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", action="append", default=[],
        help="draw the times there, as SVG or PNG by the ending (needs gradtwin[plots]); can be "
        "given twice",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--compare", type=Path, nargs=2, metavar=("OLD.json", "NEW.json"),
        help="measure nothing: have the ratios of our own code become worse?",
    )  # fmt: skip
    parser.set_defaults(run=run)


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({arguments.cases(one) for one in text.split(",")})
    except argparse.ArgumentTypeError:
        sizes = []
    if not sizes or sizes[-1] > LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text!r}: whole numbers from 1 to 1e8, with commas, are needed"
        )
    return sizes


def _dtypes(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in DTYPES:
            raise argparse.ArgumentTypeError(
                f"{name!r}: float32, float64 or float32,float64 is needed"
            )
    return names


def run(options: argparse.Namespace) -> int:
    if options.compare is not None:
        return _compared(*options.compare)
    _check_files(options)
    device = usable_device(options.device)

    import torch

    from torch_ref.benchmark.table import print_result
    from torch_ref.report import report_console

    if options.threads not in (None, torch.get_num_threads()):  # to set them is not without effect
        torch.set_num_threads(options.threads)
    console = report_console()
    result = _measured(_plan(options, device))
    print_result(result, console)
    write(options.json, "bench", result)
    if options.plot:
        _plot(result, options.plot)
    return DIFFER if any(entry["refused"] for entry in result["entries"]) else AGREE


def _plan(options: argparse.Namespace, device: str) -> "Plan":
    from torch_ref.benchmark.run import Plan

    works = ["gradients", *([] if options.quick else ["forward"])]
    works += ["per-sample"] if options.per_sample else []
    sizes, dtypes = _sizes(QUICK_SIZES if options.quick else SIZES), list(DTYPES)
    return Plan(
        works=works,
        sizes=options.sizes or sizes,
        dtypes=options.dtype or (dtypes[:1] if options.quick else dtypes),
        device=device,
        seconds=0.3 if options.quick else 3.0,
        least_turns=5 if options.quick else 9,
        brief=options.quick,
    )


def _measured(plan: "Plan") -> dict[str, Any]:
    import torch

    from torch_ref.benchmark import store
    from torch_ref.benchmark.judge import WrongPeerError
    from torch_ref.benchmark.run import measured, peaks
    from torch_ref.report import report_console

    threads = torch.get_num_threads()
    before, where = store.load(), store.machine(threads, plan.device)
    console = report_console()
    with console.status("") as status:

        def tell(what: str) -> None:
            status.update(what)
            if not console.is_terminal:
                print(what, file=sys.stderr, flush=True)

        try:
            entries, skipped = measured(plan, tell)
            memory, reasons = ([], {}) if plan.brief else peaks(plan, tell)
        except WrongPeerError as error:
            raise BadInputError(
                f"all ratios are to eager autograd, and it is wrong: {error}"
            ) from None
    parts = {"entries": entries, "memory": memory, "skipped": skipped | reasons}
    return store.result(where, (before, store.load()), parts)


def _compared(old_path: Path, new_path: Path) -> int:
    """Say which ratios have become worse, one a line."""
    from torch_ref.benchmark.compare import changes, missing
    from torch_ref.benchmark.store import read

    with bad_input():
        old, new = read(old_path), read(new_path)
        found = changes(old, new)
        gone = missing(old, new)
    worse = [change for change in found if change.worse]
    if old["machine"]["cpu"] != new["machine"]["cpu"]:
        print(f"note: other processors: {old['machine']['cpu']}, {new['machine']['cpu']}")
    for change in worse:
        print(f"worse: {change}")
    for name in gone:
        print(f"note: {name}: only the old run has it")
    print(f"{len(worse)} of {len(found)} ratios have become worse")
    return DIFFER if worse else AGREE


def _check_files(options: argparse.Namespace) -> None:
    """Before any work: what is to be written can be."""
    for path in options.plot:
        if path.suffix.lower() not in (".svg", ".png"):
            raise BadInputError(f"{path}: give a plot's file an ending, .svg or .png.")
    check_writable(*options.plot, options.json)
    if options.plot and find_spec("matplotlib") is None:
        raise BadInputError(NO_MATPLOTLIB)


def _plot(result: dict[str, Any], paths: list[Path]) -> None:
    from torch_ref.benchmark.plot import plot

    with written():
        plot(result, paths)
