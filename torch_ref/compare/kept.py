"""Batches kept for a diagnosis: of as many sizes and strata as there are, in constant memory."""

from collections import Counter
from dataclasses import dataclass, field

from torch_ref.compare.cases import Batch, shapes

MOST, EACH = 96, 6  # batches of one case, of all kinds and of each; where one holds many cases, 1


@dataclass
class Kept:
    """The first batches of each kind: of each combination of shapes and stratum."""

    _kept: list[tuple[Batch, tuple[object, str]]] = field(default_factory=list)
    _count: Counter[object] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, batch: Batch, stratum: str) -> None:
        """Keep the batch, if there is room for its kind."""
        kind = shapes(batch.inputs), stratum
        most = 1 if batch.batched else MOST
        if len(self._kept) < most and self._count[kind] < EACH:
            self._kept.append((batch, kind))
            self._count[kind] += 1

    def some(self, most: int) -> list[Batch]:
        """So many of them, chosen by turns from all shapes and strata: a constant is then told
        from a size, and what holds in one stratum alone is not taken for a rule."""
        left = list(self._kept)
        chosen: list[Batch] = []
        met: Counter[object] = Counter()
        while left and len(chosen) < most:
            place = min(range(len(left)), key=lambda at: sum(met[part] for part in left[at][1]))
            batch, kind = left.pop(place)
            met.update(kind)
            chosen.append(batch)
        return chosen
