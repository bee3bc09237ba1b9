"""One report of all shards, the same to the bit whoever judged them: tallies add up in shard order.

Floating sums depend on the order of their terms, so the order in which shards were finished plays
no part.
"""

from itertools import islice

from torch_ref.compare.judge import Judge
from torch_ref.compare.report import Report
from torch_ref.sweep.ledger import Ledger
from torch_ref.sweep.shards import Found

# Drawn again for the diagnosis: so many of the first shards with something wrong in them, and of
# these so many batches.
SHARDS_LOOKED_AT, BATCHES_LOOKED_AT = 4, 512


def merged(judge: Judge, ledger: Ledger) -> Report:
    """The report over all cases of a ledger in which no shard is missing.

    judge: a new one; what is wrong is explained from cases that are drawn once more.
    """
    wrong: list[int] = []
    for shard in range(ledger.plan.shards):
        found = ledger.read(shard)
        _add(judge, found)
        if found.wrong and len(wrong) < SHARDS_LOOKED_AT:
            wrong.append(shard)
    again = _looked_at(judge, ledger, wrong)
    judge.suspects, judge.unsuspected = again.suspects, again.unsuspected
    return judge.report(ledger.plan.cases)


def _add(judge: Judge, found: Found) -> None:
    judge.add(found.tallies.values(), found.kinks)
    judge.recorder.said.add(found.said)


def _looked_at(judge: Judge, ledger: Ledger, wrong: list[int]) -> Judge:
    """Has what `verify` would have kept for its diagnosis, from the first shards that differ."""
    again = Judge(judge.twin, judge.dtype, judge.device, judge.seed)
    batches = (batch for shard in wrong for batch in ledger.plan.batches(again.cases, shard))
    for batch in islice(batches, BATCHES_LOOKED_AT):
        again.judge(batch)
        if batch.batched and again.suspects:
            break
    return again
