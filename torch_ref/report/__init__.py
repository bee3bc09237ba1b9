"""How a report is shown (terminal) and stored (JSON); both only read it."""

from torch_ref.report.json import write_json
from torch_ref.report.terminal import print_replay, print_report, report_console

__all__ = ["print_replay", "print_report", "report_console", "write_json"]
