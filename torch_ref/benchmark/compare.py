"""Two stored runs against each other: have the ratios of our own code become worse?

Times of two runs are not comparable, on a machine that others use not even in one hour; ratios to
eager autograd and to the limit of the same run are. One has become worse where all of its spread
(first to ninth tenth of the turns) lies on the worse side of all of the old one's, and its median
is off by more than MARGIN besides: two processes differ by some percent in where memory lies,
which the turns of one of them do not show.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]
MARGIN = 1.1
MACHINE = ("threads", "device", "cpu")  # what is looked at of a run's machine
RATIOS = {
    "speed_to_eager": ("speed relative to eager autograd", True),
    "time_to_limit": ("time relative to the limit", False),
}


@dataclass(frozen=True)
class Change:
    """A ratio of a peer that is in both runs; spreads as dicts of median, low and high."""

    place: tuple[str, str, int]  # work, dtype, size
    peer: str
    ratio: str
    old: dict[str, float]
    new: dict[str, float]

    @property
    def worse(self) -> bool:
        more_is_better = RATIOS[self.ratio][1]
        old, new = (self.old, self.new) if more_is_better else (self.new, self.old)
        return new["high"] < old["low"] and new["median"] * MARGIN < old["median"]

    def __str__(self) -> str:
        work, dtype, size = self.place
        return (
            f"{self.peer}, {work}, {dtype}, {size:,} samples: {RATIOS[self.ratio][0]} was "
            f"{_told(self.old)}, is {_told(self.new)}"
        )


def changes(old: Result, new: Result) -> list[Change]:
    """All ratios of our own peers that both runs have.

    Raises ValueError, with one sentence, where the runs cannot be compared: other threads or
    another kind of device, or nothing in common.
    """
    try:
        machines = [{what: one["machine"][what] for what in MACHINE} for one in (old, new)]
        found = list(_changes(_by_place(old), _by_place(new)))
    except (KeyError, TypeError):
        raise ValueError("A result is damaged: run gradtwin bench --json again.") from None
    for what in ("threads", "device"):
        before, after = (machine[what] for machine in machines)
        if before != after:
            raise ValueError(
                f"The runs cannot be compared: the old one has {what} {before}, the new one "
                f"{after}. Run one of them again as the other."
            )
    if not found:
        raise ValueError(
            "The runs have no work, dtype, batch size and peer in common: run gradtwin bench with "
            "the same --sizes and --dtype."
        )
    return found


def _by_place(run: Result) -> dict[tuple[str, str, int], Result]:
    return {(e["work"], e["dtype"], e["size"]): e["peers"] for e in run["entries"]}


def _changes(
    old: dict[tuple[str, str, int], Result], new: dict[tuple[str, str, int], Result]
) -> Iterator[Change]:
    for place in old:
        for peer in old[place]:
            before, after = old[place][peer], new.get(place, {}).get(peer)
            if after is None or not before["own"]:
                continue
            for ratio in RATIOS:
                yield Change(place, peer, ratio, before[ratio], after[ratio])


def missing(old: Result, new: Result) -> list[str]:
    """Own peers at places that both runs have, but which only the old one could time."""
    later = _by_place(new)
    return [
        f"{peer}, {place[0]}, {place[1]}, {place[2]:,} samples"
        for place, peers in _by_place(old).items()
        for peer, numbers in peers.items()
        if numbers["own"] and place in later and peer not in later[place]
    ]


def _told(spread: dict[str, float]) -> str:
    return f"{spread['median']:.3g} ({spread['low']:.3g} to {spread['high']:.3g})"
