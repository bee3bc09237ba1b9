"""What a sweep is cut into, and what judging one piece gives, as plain JSON and back.

A shard is a fixed run of cases; it is judged on its own, so that it does not matter which process
does it, when, and after what.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from torch_ref.compare.cases import SHARD, Batch, Cases
from torch_ref.compare.judge import Judge
from torch_ref.compare.pooled import Pool
from torch_ref.compare.said import Said
from torch_ref.compare.verdict import Tally

ONE_CASE_SHARD = 128  # cases of a one-case twin, some milliseconds each
# A line takes some 8 KB and one fsync (milliseconds): a sweep of many cases has larger shards, of
# up to so many smallest ones, once its ledger would have more than so many lines.
MOST_TOGETHER, MANY_LINES = 16, 4096
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def smallest_size(batched: bool) -> int:
    """Cases in the smallest shard: those that are drawn together, where there are such."""
    return SHARD if batched else ONE_CASE_SHARD


def size_for(cases: int, batched: bool) -> int:
    """Cases a shard for a sweep of so many."""
    smallest = smallest_size(batched)
    together = cases // smallest // MANY_LINES
    return smallest * min(max(together, 1), MOST_TOGETHER)


@dataclass(frozen=True)
class Plan:
    """Cases 0 to cases - 1 in shards of `size`; the last may have fewer."""

    cases: int
    size: int

    @property
    def shards(self) -> int:
        return -(-self.cases // self.size)

    def count(self, shard: int) -> int:
        """Cases in a shard; 0 for one that is not in the plan."""
        return max(min(self.size, self.cases - shard * self.size), 0)

    def batches(self, cases: Cases, shard: int) -> Iterator[Batch]:
        """The cases of a shard, as `Cases.batches` would give them."""
        first = shard * self.size
        end = first + self.count(shard)
        if not cases.batched:
            yield from (cases.case(index) for index in range(first, end))
            return
        yield from (cases.batch(start // SHARD, end) for start in range(first, end, SHARD))


@dataclass(frozen=True)
class Found:
    """What judging a shard found.

    tallies: of each quantity that could be compared. kinks: how many cases met one. said: of this
    shard alone.
    """

    shard: int
    cases: int
    kinks: int
    tallies: dict[str, Tally]
    said: Said = field(default_factory=Said)

    @property
    def wrong(self) -> bool:
        return any(tally.wrong for tally in self.tallies.values())

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, from which `from_json` makes the same to the bit."""
        tallies = {name: _plain(_values(tally)[1:]) for name, tally in self.tallies.items()}
        counts = {name: getattr(self, name) for name in ("shard", "cases", "kinks")}
        return {**counts, "tallies": tallies, **self.said.as_lists()}

    @staticmethod
    def from_json(line: dict[str, Any]) -> "Found":
        """Raises KeyError, TypeError or ValueError where the line is not one of `to_json`."""
        tallies = {name: _tally(name, values) for name, values in line["tallies"].items()}
        said = Said()
        said.say(**{one.name: line[one.name] for one in fields(Said)})
        return Found(line["shard"], line["cases"], line["kinks"], tallies, said)


def _values(one: Tally | Pool) -> list[Any]:
    """By place and not by name: the names would double the length of a line."""
    return [getattr(one, each.name) for each in fields(one)]


def _plain(value: Any) -> Any:
    if isinstance(value, Pool):
        return _plain(_values(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    finite = not isinstance(value, float) or math.isfinite(value)
    return value if finite else str(value)


def _tally(name: str, values: list[Any]) -> Tally:
    keys = [each.name for each in fields(Tally)][1:]
    found = dict(zip(keys, map(_number, values), strict=True))
    worst = {key: _number(value) for key, value in found["worst"].items()}
    if "element" in worst:
        worst["element"] = tuple(worst["element"])
    pool = Pool(*map(_number, found["pool"]))
    histogram = tuple(found["histogram"])
    return Tally(name, **{**found, "worst": worst, "pool": pool, "histogram": histogram})


def _number(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def judged(judge: Judge, plan: Plan, shard: int) -> Found:
    """Judge the cases of one shard, with nothing left over from others but recorded graphs."""
    judge.forget()
    for batch in plan.batches(judge.cases, shard):
        judge.judge(batch)
    said = Said()
    said.add(judge.recorder.said)
    return Found(shard, plan.count(shard), judge.at_kinks, dict(judge.tallies), said)
