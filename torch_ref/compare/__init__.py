"""The comparison layer: two sides and a bound for each in, a report out. No network in it."""

from torch_ref.compare.replay import Line, replay
from torch_ref.compare.twin import Draw, Twin, draw_shard, stratum_of
from torch_ref.compare.verdict import Report, Row
from torch_ref.compare.verify import DTYPES, verify

__all__ = [
    "DTYPES",
    "Draw",
    "Line",
    "Report",
    "Row",
    "Twin",
    "draw_shard",
    "replay",
    "stratum_of",
    "verify",
]
