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

    def only_in(self, name: str, others: Iterable[str]) -> int:
        """The operations that a result is made of, and none of these others."""
        return self.made_of.get(name, 0) & ~union(self.made_of.get(other, 0) for other in others)

    def lines_of(self, operations: int) -> Iterator[Line]:
        """Their lines, as far as these are the author's."""
        return (one for place, one in enumerate(self.lines) if one and operations >> place & 1)


def union(slices: Iterable[int]) -> int:
    return reduce(or_, slices, 0)
