"""`gradtwin experiment`: the network at work on real data."""

import argparse
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from torch_ref import arguments
from torch_ref.commands.shared import (
    AGREE,
    DIFFER,
    BadInputError,
    check_writable,
    is_special,
    write,
    written,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from torch_ref.experiments import Protocol, Result
    from torch_ref.experiments.export import Copy
    from torch_ref.experiments.ways import Pair

OPTIMIZERS = ("lbfgs", "adam", "sgd")
LARGEST = 10**7  # steps in all restarts
EXIT_CODES = (
    "exit codes: 0 done, 1 the three ways, or a form of the network, differ by more than rounding, "
    "2 bad usage or input, 130 stopped"
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "experiment",
        help="train the network on real data and rank it (needs gradtwin[experiments])",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "name", choices=["volatility"],
        help="volatility: forecast the S&P 500's variance, against GARCH and others",
    )  # fmt: skip
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="lbfgs", help="default lbfgs")
    parser.add_argument(
        "--seed", type=arguments.seed, default=0, help="of the random starts (default 0)"
    )
    parser.add_argument("--restarts", type=_count, metavar="N", help="random starts (default 5)")
    parser.add_argument(
        "--steps", type=_count, metavar="N", help="of each start (default: the optimizer's own)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="keep the run there, as safetensors"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint, to the same bits"
    )
    parser.add_argument(
        "--ways", action="store_true",
        help="also train by hand, by autograd and on 2 ranks, and compare the trajectories",
    )  # fmt: skip
    parser.add_argument(
        "--forms", action="store_true", help="also check torch.export and torch.compile"
    )
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE",
        help="write the network there and check it as well (needs gradtwin[onnx])",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw forecasts and learning, as .svg or .png"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    try:
        number = arguments.cases(text)
    except argparse.ArgumentTypeError:
        number = 0
    if not 1 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 to 1e7 is needed")
    return number


def run(options: argparse.Namespace) -> int:
    _check_files(options)
    _check_packages(options)
    from torch_ref.report import report_console

    console = report_console()
    result = _result(options, console)
    _print(result, console)
    pairs = _pairs(result, console) if options.ways else []
    copies = _copies(result, options.onnx, console) if options.forms or options.onnx else []
    if options.plot is not None:
        _plot(result, options.plot)
    write(options.json, "experiment", _as_json(result, pairs, copies))
    good = all(pair.agree for pair in pairs) and all(copy.agrees for copy in copies)
    return AGREE if good else DIFFER


# what is refused before any work -----------------------------------------------------------------


def _check_files(options: argparse.Namespace) -> None:
    outputs = (options.checkpoint, options.onnx, options.plot, options.json)
    check_writable(*outputs)
    if options.resume and options.checkpoint is None:
        raise BadInputError("--resume goes on from a file: name it with --checkpoint FILE.")
    if options.plot is not None and options.plot.suffix.lower() not in (".svg", ".png"):
        raise BadInputError(f"{options.plot}: give a plot's file an ending, .svg or .png.")
    for path in (options.checkpoint, options.onnx, options.plot):
        if path is not None and is_special(path):
            raise BadInputError(f"{path} is no regular file: give another name.")


def _check_packages(options: argparse.Namespace) -> None:
    needed = {
        "arch": "experiments",
        "safetensors": "experiments" if options.checkpoint or options.ways else "",
        "matplotlib": "experiments" if options.plot else "",
        **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx" if options.onnx else ""),
    }
    for package, extra in needed.items():
        if extra and find_spec(package) is None:
            raise BadInputError(
                f"this experiment needs {package}, which is not installed: "
                f"pip install 'gradtwin[{extra}]'."
            )


# the parts ---------------------------------------------------------------------------------------


def _protocol(options: argparse.Namespace) -> "Protocol":
    """The one that was chosen, but for what the options say."""
    from torch_ref.experiments import PROTOCOL, RECIPES

    recipe = RECIPES[options.optimizer]
    protocol = replace(
        PROTOCOL,
        recipe=replace(recipe, steps=options.steps or recipe.steps),
        restarts=options.restarts or PROTOCOL.restarts,
        seed=options.seed,
    )
    if protocol.restarts * protocol.recipe.steps > LARGEST:
        raise BadInputError(
            f"{protocol.restarts} restarts of {protocol.recipe.steps} steps are more than "
            f"{LARGEST} in all: give fewer."
        )
    return protocol


def _result(options: argparse.Namespace, console: "Console") -> "Result":
    from rich.progress import Progress

    from torch_ref.experiments import sp500, volatility
    from torch_ref.experiments.checkpoint import CheckpointError
    from torch_ref.experiments.training import DivergedError

    protocol = _protocol(options)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(protocol.recipe.optimizer, total=None)
        try:
            series = sp500()
            with written(options.checkpoint) if options.checkpoint else nullcontext():
                return volatility(
                    series,
                    protocol,
                    checkpoint_file=options.checkpoint,
                    resume=options.resume,
                    progress=partial(_advance, bar, task),
                )
        except (CheckpointError, DivergedError) as error:
            raise BadInputError(str(error)) from None


def _advance(bar: "Progress", task: "TaskID", done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _print(result: "Result", console: "Console") -> None:
    from torch_ref.experiments.run import NETWORK
    from torch_ref.experiments.table import print_ranking

    print_ranking(result, NETWORK, "GARCH(1,1)", console)


def _pairs(result: "Result", console: "Console") -> "list[Pair]":
    from torch_ref.experiments.ranks import RankError
    from torch_ref.experiments.run import training_of
    from torch_ref.experiments.table import print_ways
    from torch_ref.experiments.trajectory import descent
    from torch_ref.experiments.ways import three_ways

    training = training_of(result.series, result.protocol)
    given = descent(training.x, training.t, seed=result.protocol.seed)
    try:
        with console.status("three ways"):  # nothing, where there is no terminal
            pairs = three_ways(given)
    except RankError as error:
        raise BadInputError(f"the ranks could not be compared: {error}") from None
    print_ways(pairs, len(given.batches), console)
    return pairs


def _copies(result: "Result", path: Path | None, console: "Console") -> "list[Copy]":
    from torch_ref.experiments.export import copies, onnx_bytes
    from torch_ref.experiments.run import training_of
    from torch_ref.experiments.table import print_copies
    from torch_ref.report.files import replace_file

    x = training_of(result.series, result.protocol).x
    content = None if path is None else onnx_bytes(result.net, x)
    found = copies(result.net, x, content)
    print_copies(found, console)
    if path is not None and content is not None:
        with written(path):
            replace_file(path, content)
    return found


def _plot(result: "Result", path: Path) -> None:
    from torch_ref.experiments.plot import plot

    with written(path):
        plot(result, path)


def _as_json(result: "Result", pairs: "list[Pair]", copies: "list[Copy]") -> dict[str, object]:
    return {
        **result.to_dict(),
        "ways": [{**vars(pair), "agree": pair.agree} for pair in pairs],
        "forms": [{**vars(copy), "agrees": copy.agrees} for copy in copies],
    }
