"""How a result is shown (terminal) and stored (JSON); both only read it, and need no torch."""

from torch_ref.report.audit import print_findings
from torch_ref.report.json import SCHEMA, json_format, write_json
from torch_ref.report.selftest import print_selftest
from torch_ref.report.terminal import print_replay, print_report, report_console

__all__ = [
    "SCHEMA",
    "json_format",
    "print_findings",
    "print_replay",
    "print_report",
    "print_selftest",
    "report_console",
    "write_json",
]
