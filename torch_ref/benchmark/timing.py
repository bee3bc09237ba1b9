"""Peers that take turns in one process, and what their times say."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORTEST_TURN = 2e-3  # seconds; faster calls are repeated until a turn takes as long
LONGEST_TURN = 50e-3  # seconds, after which no more calls begin
# Seconds before a turn: the threads of the one before, OpenMP's above all, wait busily for some
# milliseconds more, and would be charged to the next.
PAUSE = 5e-3

Step = Callable[[], Any]


@dataclass(frozen=True)
class Spread:
    """The median, and the first and the ninth tenth: most turns lie between."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(numbers: Sequence[float]) -> "Spread":
        """Of at least one number."""
        ordered = sorted(numbers)
        tenths = [ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9)]
        return Spread(statistics.median(ordered), *tenths)


def race(
    steps: Mapping[str, Step], seconds: float, least_turns: int, seed: int = 0
) -> dict[str, list[float]]:
    """Seconds a call, one number a round for each peer: numbers of one round belong together.

    In every round each peer has one turn, in shuffled order: what one leaves behind in caches hits
    any other, and a slow spell of the machine hits all. A call that is short enough is made once
    before its turn, untimed. Rounds go on for `seconds`, and until there are `least_turns`.
    """
    generator = random.Random(seed)
    repeats = {name: _repeats(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = list(steps)
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < least_turns or time.perf_counter() < end:
        generator.shuffle(order)
        for name in order:
            time.sleep(PAUSE)
            if repeats[name] > 1:
                steps[name]()
            times[name].append(_turn(steps[name], repeats[name]))
        rounds += 1
    return times


def _repeats(step: Step) -> int:
    """How many calls make a turn, for a step that has been called before."""
    return max(1, int(SHORTEST_TURN / _turn(step, 1)))


def _turn(step: Step, repeats: int) -> float:
    """Seconds a call, without Python's garbage collection.

    A turn ends early once it has taken LONGEST_TURN: on a loaded machine threads that wait for each
    other can take a thousand times as long as when the repeats were chosen.
    """
    collecting = gc.isenabled()
    gc.disable()
    together = max(1, repeats // 10)  # calls between two looks at the clock
    done, taken = 0, 0.0
    try:
        start = time.perf_counter()
        while done < repeats and taken < LONGEST_TURN:
            for _ in range(together):
                step()
            done += together
            taken = time.perf_counter() - start
        return taken / done
    finally:
        if collecting:
            gc.enable()


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of two peers' times, round by round."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])
