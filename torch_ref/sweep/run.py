"""One rank's work, and rank 0's wait for the others."""

import time
from collections.abc import Callable

from torch_ref.compare.judge import Judge
from torch_ref.sweep.ledger import Ledger
from torch_ref.sweep.shards import judged

GRACE = 60.0  # seconds without a sign of life: a rank may take as long to start
PAUSE = 0.2  # seconds between two looks at the other ranks' files


class RanksMissingError(ValueError):
    """Shards are missing, and nobody works on them; the message is one clear sentence."""


def work(judge: Judge, ledger: Ledger, tell: Callable[[], None]) -> None:
    """Judge this rank's shards that nobody has finished; `tell` is called after each.

    Raises LinesError where one cannot be stored; those before it stay.
    """
    for shard in ledger.missing():
        if ledger.ranks.has(shard):
            ledger.append(judged(judge, ledger.plan, shard))
            tell()


def wait(ledger: Ledger, tell: Callable[[], None]) -> None:
    """Wait until other ranks have finished what is missing.

    Raises RanksMissingError where none of them has shown a sign of life for GRACE seconds.
    """
    heard = time.monotonic()
    ledger.refresh()
    while missing := set(ledger.missing()):
        tell()
        time.sleep(PAUSE)
        before = ledger.done
        ledger.refresh()
        ranks = sorted({shard % ledger.ranks.world for shard in missing})
        if ledger.done > before or any(ledger.alive(rank) for rank in ranks):
            heard = time.monotonic()
        elif time.monotonic() - heard > GRACE:
            named = ", ".join(map(str, ranks[:8])) + (" ..." if len(ranks) > 8 else "")
            raise RanksMissingError(
                f"{len(missing)} of {ledger.plan.shards} shards are missing, and nobody is at work "
                f"on them (rank {named}). What is finished is kept."
            )
    tell()
