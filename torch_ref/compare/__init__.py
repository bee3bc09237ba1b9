"""The comparison layer: two sides and a bound for each in, a report out. No network in it."""

from torch_ref.compare.cases import Batch, Cases
from torch_ref.compare.replay import Line, replay
from torch_ref.compare.report import Diagnosis, Report, Row
from torch_ref.compare.twin import STRESS, Draw, Twin, TwinError
from torch_ref.compare.verify import DTYPES, verify

__all__ = [
    "DTYPES",
    "STRESS",
    "Batch",
    "Cases",
    "Diagnosis",
    "Draw",
    "Line",
    "Report",
    "Row",
    "Twin",
    "TwinError",
    "replay",
    "verify",
]
