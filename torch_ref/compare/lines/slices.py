"""What results are made of: operations, each a bit of a whole number, and the lines they are on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import or_

from torch_ref.compare.strangers import Line


@dataclass(frozen=True)
class Slices:
    """lines: where each operation is, None for one that is none of the author's. made_of: the
    operations of each result, bit n for number n."""

    lines: list[Line | None]
    made_of: dict[str, int]

    def lines_of(self, name: str, *, without: Iterable[str] = ()) -> Iterator[Line]:
        """The lines of what a result is made of, and none of these others."""
        others = union(self.made_of.get(other, 0) for other in without)
        own = self.made_of.get(name, 0) & ~others
        return (line for place, line in enumerate(self.lines) if line and own >> place & 1)


def union(slices: Iterable[int]) -> int:
    return reduce(or_, slices, 0)
