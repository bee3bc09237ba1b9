"""`gradtwin audit`: which printed lines of the assignment are wrong."""

import argparse
from pathlib import Path

from torch_ref.commands.shared import AGREE, check_writable, write


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter the command and its options."""
    parser = commands.add_parser(
        "audit",
        help="which printed lines of the assignment are wrong, and what belongs there",
        epilog="exit codes: 0 every line was checked, wrong ones or not; 2 bad usage or input",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    check_writable(options.json)
    from rich.console import Console

    from manual_bp.audit import audit
    from torch_ref.report import print_findings

    findings = audit()
    print_findings(findings, Console())
    write(options.json, "audit", {"findings": [finding.to_dict() for finding in findings]})
    return AGREE
