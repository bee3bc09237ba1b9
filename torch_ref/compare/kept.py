"""Batches kept for a diagnosis: of as many sizes and strata as there are, in constant memory."""

from collections import Counter
from dataclasses import dataclass, field

from torch_ref.compare.cases import Batch, shapes

MOST = 64  # batches of single cases; of the larger ones that hold many cases, one


@dataclass
class Kept:
    """The first batch of each combination of shapes and stratum."""

    _by_kind: dict[tuple[object, str], Batch] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._by_kind)

    def add(self, batch: Batch, stratum: str) -> None:
        """Keep the batch, if there is room and none of its kind is kept."""
        if len(self._by_kind) < (1 if batch.batched else MOST):
            self._by_kind.setdefault((shapes(batch.inputs), stratum), batch)

    def some(self, most: int) -> list[Batch]:
        """So many of them, chosen by turns from all shapes and strata: a constant is then told
        from a size, and what holds in one stratum alone is not taken for a rule."""
        left = dict(self._by_kind)
        chosen: list[Batch] = []
        met: Counter[object] = Counter()
        while left and len(chosen) < most:
            kind = min(left, key=lambda kind: (met[kind[0]] + met[kind[1]], left[kind].first))
            chosen.append(left.pop(kind))
            met.update(kind)
        return chosen
