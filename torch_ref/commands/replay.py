"""`gradtwin replay`: one case again, every value and gradient of it."""

import argparse

from torch_ref import arguments
from torch_ref.commands.shared import (
    EXIT_CODES,
    as_dtype,
    bad_input,
    device_option,
    exit_code,
    found_twin,
    twin_argument,
    usable_device,
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "replay",
        help="every value and gradient of one case, both sides side by side",
        epilog=EXIT_CODES,
    )
    parser.add_argument(
        "case", type=arguments.case, metavar="SEED:INDEX", help="as `verify` prints it"
    )
    twin_argument(parser)
    parser.add_argument("--dtype", choices=arguments.DTYPES, default="float64")
    device_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from torch_ref.assignment import manual_values
    from torch_ref.compare import Cases, replay
    from torch_ref.report import print_replay, report_console

    seed, index = options.case
    found = found_twin(options.twin)
    dtype, device = as_dtype(options.dtype), torch.device(usable_device(options.device))
    with bad_input():
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
    return exit_code([line.verdict for line in lines if line.verdict])
